"""Command line: ``srpo collect | sft | train | distil | eval | reward | world-model | report | presets | doctor``."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Sequence

from srpo.types import SrpoError

_EXIT_MISTAKE, _EXIT_INTERRUPT = 2, 130
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="srpo",
        description="Self-Referential Policy Optimization: let a vision-language-action policy practise in simulation.",
        epilog="Every setting of a preset can be changed by name: srpo train libero-quick --steps 5 "
        "--learner.learning-rate 1e-4. 'srpo presets NAME' lists them.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, preset: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        if preset:
            sub.add_argument("preset", help="named configuration, see 'srpo presets'")
            sub.add_argument("--seed", type=int, default=0, help="one seed for everything")
            sub.add_argument("--workers", type=int, default=None, help="processes; default: one a core")
        return sub

    collect = command("collect", "write demonstrations by scripted experts")
    collect.add_argument("--out", required=True, help="folder of the demonstrations")

    sft = command("sft", "clone demonstrations (supervised fine-tuning)")
    sft.add_argument("--demos", required=True, help="folder written by srpo collect")
    sft.add_argument("--run", required=True, help="run folder; the policy goes to RUN/policy")
    sft.add_argument("--resume", action="store_true", help="continue an interrupted run")

    train = command("train", "practise with SRPO (or GRPO: --reward sparse)")
    train.add_argument("--policy", help="policy folder to start from, such as RUN/policy of srpo sft, or a hub name")
    train.add_argument("--run", help="run folder: policy, checkpoints, metrics, videos, report.html")
    train.add_argument("--plan", action="store_true", help="only say what it needs: memory, time, what will not fit")
    train.add_argument("--processes", type=int, default=1, help="GPUs to share the work (torchrun does it too)")
    train.add_argument("--resume", action="store_true", help="continue from the last completed step")

    distil = command("distil", "clone one policy from the successes of several runs of srpo train")
    distil.add_argument("--runs", nargs="+", required=True, help="run folders that kept their successes, best first")
    distil.add_argument("--run", required=True, help="new run folder; the policy goes to RUN/policy")
    distil.add_argument("--policy", help="policy folder whose weights it starts with; default: drawn anew")
    distil.add_argument(
        "--labels", choices=("median", "sampled"), default="median",
        help="clone what each run's policy decides by the median in these states, or what had been sampled in them",
    )  # fmt: skip

    evaluate = commands.add_parser("eval", help="success of a policy, with Wilson 95 %% intervals")
    evaluate.add_argument("policy", help="policy folder")
    evaluate.add_argument("--suite", default="libero_object")
    evaluate.add_argument("--tasks", default="", help="task numbers, comma-separated; default: all")
    evaluate.add_argument("--states", type=int, default=50, help="initial states per task")
    evaluate.add_argument("--protocol", default="held-out", help="held-out or paper")
    evaluate.add_argument("--practised", default=None, metavar="RUN", help="the last initial states practised in a run")
    evaluate.add_argument("--temperature", type=float, default=0.0, help="of the tokens; 0: greedy decoding")
    evaluate.add_argument("--decoding", default=None, help="greedy, median or sample; default: by temperature")
    evaluate.add_argument("--render", default="auto", help="pictures: fast, full, or auto: full where a GPU draws")
    evaluate.add_argument("--max-steps", type=int, default=None, help="step limit; default: the suite's")
    evaluate.add_argument("--videos", type=int, default=0, help="filmed episodes per task")
    evaluate.add_argument("--workers", type=int, default=None)
    evaluate.add_argument("--device", default="auto", help="of the network; auto: a GPU for OpenVLA")
    evaluate.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto (OpenVLA)")
    evaluate.add_argument("--images", type=int, default=None, help="pictures a decision: 1 or 2 (OpenVLA)")
    evaluate.add_argument("--unnorm-key", default=None, help="statistics of actions; default: the suite's (OpenVLA)")
    evaluate.add_argument("--out", default=None, help="folder for eval.json and videos; default: print only")

    report = commands.add_parser("report", help="write RUN/report.html, one self-contained file")
    report.add_argument("run", help="run folder of srpo train")

    reward = commands.add_parser("reward", help="the progress reward without the trainer: bench, score")
    parts = reward.add_subparsers(dest="part", required=True, metavar="PART")
    bench = parts.add_parser("bench", help="how well world models tell progress, on recorded episodes")
    bench.add_argument("episodes", help="folder written by benchmarks/episode_set.py or srpo.data.episodes")
    bench.add_argument("--world-models", default="image,image-random,pixels,length", help="names, comma-separated")
    bench.add_argument("--references", type=int, default=None, help="successes per task to know; default: all")
    bench.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    bench.add_argument("--seed", type=int, default=0)
    scoring = parts.add_parser("score", help="reward per episode and progress per frame, as parquet")
    scoring.add_argument("episodes", help="folder of recorded episodes, or a .csv list: video,task,success")
    scoring.add_argument("--world-model", default="image")
    scoring.add_argument("--every", type=int, default=8, help="read every n-th frame of a video")
    for part in (bench, scoring):
        part.add_argument("--formula", default="paper", help="paper or siirl")
        part.add_argument("--clustering", default="coverage", help="coverage, dbscan, nearest, mean or k-medoids")
        part.add_argument("--out", default=None, required=part is scoring, help="folder for results and plots")

    world = commands.add_parser("world-model", help="train the compact video world model", allow_abbrev=False)
    world_parts = world.add_subparsers(dest="part", required=True, metavar="PART")
    training = world_parts.add_parser("train", help="from recorded episodes, without actions or outcomes")
    training.add_argument("episodes", nargs="+", help="folders written by benchmarks/episode_set.py")
    training.add_argument("--run", required=True, help="run folder; the model goes to RUN/world_model")
    training.add_argument("--resume", action="store_true", help="continue an interrupted run")
    training.add_argument("--seed", type=int, default=0)

    presets = commands.add_parser("presets", help="list the presets, or all settings of one")
    presets.add_argument("name", nargs="?")

    commands.add_parser("doctor", help="check GL, MuJoCo, LIBERO, torch, GPU, disk; say what to install")
    return parser


def overrides(arguments: Sequence[str]) -> dict[str, str]:
    """``["--steps", "5", "--formula=siirl"]`` to ``{"steps": "5", "formula": "siirl"}``."""
    out: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--"):
            raise SrpoError(f"Cannot read '{name}'; settings look like --steps 5.")
        name, equals, value = name[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise SrpoError(f"--{name} needs a value, for example --{name} 5.")
            value = rest.pop(0)
        out[name] = value
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code (2: a mistake the message explains, 130: interrupted)."""
    options, extra = _parser().parse_known_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends like Ctrl-C: workers are stopped
    try:
        changes = overrides(extra)
        if changes and options.command not in ("collect", "sft", "train", "distil", "world-model"):
            raise SrpoError(f"There is no option '--{next(iter(changes))}' of srpo {options.command}; see --help.")
        return _run(options, changes)
    except SrpoError as error:
        print(f"srpo: {error}", file=sys.stderr)
        return _EXIT_MISTAKE
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        remedy = "free disk space or mend the permissions, then run it again (sft and train with --resume)."
        print(f"srpo: {error}; {remedy}", file=sys.stderr)
        return _EXIT_MISTAKE
    except KeyboardInterrupt:
        resumable = hasattr(options, "resume")  # what the others had finished is not always kept
        remedy = "finished work is kept, continue with --resume" if resumable else "run the same command again"
        print(f"\nsrpo: interrupted; {remedy}.", file=sys.stderr)
        return _EXIT_INTERRUPT


def _run(options: argparse.Namespace, changes: dict[str, str]) -> int:
    # Imports where used: `srpo --help` and `srpo doctor` must work where half of the packages are missing.
    if options.command == "doctor":
        from srpo import doctor

        return doctor.main()
    if options.command == "presets":
        from srpo.commands import show_presets

        return show_presets(options.name)
    if options.command == "report":
        from srpo.commands import report

        return report(options)
    if options.command == "reward":
        from srpo import reward_commands

        return {"bench": reward_commands.bench, "score": reward_commands.score}[options.part](options)
    if options.command == "world-model":
        from srpo import world_model_commands

        return world_model_commands.train(options, changes)
    from srpo import commands

    if options.command == "eval":
        return commands.evaluate(options)
    run = {"collect": commands.collect, "sft": commands.sft, "train": commands.train, "distil": commands.distil}
    return run[options.command](options, changes)


if __name__ == "__main__":
    sys.exit(main())
