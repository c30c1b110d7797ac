"""What the commands do: wire the parts together, show progress, write the run folder."""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from srpo import checkpoint, distributed, presets
from srpo.config import field_names, override, parse
from srpo.data.demonstrations import DemonstrationSet
from srpo.envs import libero
from srpo.evaluation import evaluate as evaluation
from srpo.policies.loading import ModelOptions, kind_of, load_policy
from srpo.provenance import provenance, write_json
from srpo.report import write_report
from srpo.rollout.collector import Collector, default_workers
from srpo.rollout.runner import RolloutConfig
from srpo.sampler import evaluation_states
from srpo.session import Session, counting
from srpo.tracking import Console, CsvLogger, read_csv
from srpo.train_config import TrainConfig
from srpo.trainer import Trainer
from srpo.types import SrpoError, Task
from srpo.world_models import create


def show_presets(name: str | None) -> int:
    """List the presets, or all settings of one."""
    if name is None:
        for key, one in presets.PRESETS.items():
            print(f"{key:18} {one.description}")
        return 0
    chosen = presets.preset(name)
    for part in ("collect", "sft", "train"):
        config = getattr(chosen, part)
        print(f"\nsrpo {part} {name}")
        for field in field_names(config):
            value: Any = config
            for step in field.split("."):
                value = getattr(value, step)
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            print(f"  --{field.replace('_', '-')} {text}".rstrip())
    return 0


def _split_common(changes: dict[str, str], keys: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    common = {k: v for k, v in changes.items() if k in keys}
    return common, {k: v for k, v in changes.items() if k not in keys}


def _resolve(options: argparse.Namespace) -> presets.Preset:
    return presets.with_seed(presets.preset(options.preset), options.seed)


def collect(options: argparse.Namespace, changes: dict[str, str]) -> int:
    """``srpo collect``."""
    from srpo.collect import collect as run

    chosen = _resolve(options)
    # Which tasks is a setting of the experiment, shared by its three commands.
    where, own = _split_common(changes, ("suite", "tasks"))
    tasks = _tasks(override(chosen.train, where))
    config = override(chosen.collect, own)
    folder = DemonstrationSet(options.out)
    console = Console()
    total = sum(map(config.demos_of, tasks))
    console.header(f"srpo collect · {options.preset}", {"tasks": len(tasks), "demonstrations": total})
    present = sum(sum(folder.attempts(t).values()) for t in tasks)
    with console.phase("collect", total - present, "demos") as phase:
        done = run(folder, tasks, config, options.workers, lambda success: phase.advance(1 if success else 0))
    for task in tasks:
        successes, attempts = done[task.id]
        console.message(f"{task.id}: {successes} demonstrations from {attempts} attempts of the expert")
    return 0


def sft(options: argparse.Namespace, changes: dict[str, str]) -> int:
    """``srpo sft``."""
    from srpo import sft as cloning

    config = override(_resolve(options).sft, changes)
    run = Path(options.run)
    _fresh(run, options.resume, run / "policy")
    console = Console()
    console.header(f"srpo sft · {options.preset}", {"steps": config.steps, "demonstrations": options.demos})
    _save_settings(run, "sft", config, options.seed)
    metrics = CsvLogger(run / "sft.csv")
    metrics.resume(checkpoint.latest_step(run / "checkpoints") if options.resume else 0)
    losses: list[float] = []
    with ExitStack() as phases:  # one after the other: the frozen features, then the gradient steps
        now = phases.enter_context(console.phase("features", None, "demos"))

        def on_features(done: int, total: int) -> None:
            nonlocal now
            now.update(done)
            if done == total:
                phases.close()
                now = phases.enter_context(console.phase("sft", config.steps, "steps"))

        def on_step(row: dict[str, float]) -> None:
            now.update(int(row["step"]))
            losses.append(row["loss"])
            if "validation_loss" in row or row["step"] % 50 == 0:
                metrics.log({**row, "loss": sum(losses) / len(losses)})
                losses.clear()
            if "validation_loss" in row:
                console.message(f"step {row['step']:.0f}: validation loss {row['validation_loss']:.3f} nats a token")

        cloning.train(
            DemonstrationSet(options.demos),
            config,
            run,
            resume=options.resume,
            on_features=on_features,
            on_step=on_step,
        )
    console.message(f"policy: {run / 'policy'}")
    return 0


def train(options: argparse.Namespace, changes: dict[str, str]) -> int:
    """``srpo train``: evaluate, practise, evaluate again, report."""
    config = override(_resolve(options).train, changes)
    if options.workers:
        config = replace(config, workers=options.workers)
    if options.plan:
        return _show_plan(options, config)
    if options.policy is None or options.run is None:
        raise SrpoError("srpo train needs --policy (a folder or a hub name) and --run (a new folder).")
    if options.processes > 1 and "WORLD_SIZE" not in os.environ:
        return distributed.launch(options.processes, config.workers)
    world = distributed.start()
    shared = Path(options.run)
    # One that was killed after its first checkpoint may have no metrics yet.
    _fresh(shared, options.resume, shared / "metrics.csv", shared / "checkpoints")
    before = not (shared / "eval_before.json").is_file()
    world.wait()
    with ExitStack() as stack:
        run = shared
        if not world.first:  # one process shows and writes; what the others note is thrown away
            run = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="srpo-")))
            stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        _train(options, config, run, world, before)
    return 0


def distil(options: argparse.Namespace, changes: dict[str, str]) -> int:
    """``srpo distil``: one policy from the successes of several runs."""
    from srpo import distil_command

    config = override(_resolve(options).train, changes)
    run, runs = Path(options.run), [Path(r) for r in options.runs]
    _fresh(run, False, run / "policy")
    for one in runs:
        if not (one / "successes").is_dir():
            raise SrpoError(f"{one} keeps no successes: it must be a run of srpo train with --distil.keep True.")
        if not (one / "policy").is_dir():
            raise SrpoError(f"{one} has no policy yet: finish it with srpo train ... --resume.")
    console = Console()
    told = {"policy": options.policy, "runs": [str(one) for one in runs], "labels": options.labels}
    console.header(f"srpo distil · {options.preset}", {**told, "runs": len(runs), "steps": config.distil.steps})
    _save_settings(run, "distil", config, options.seed, {**told, "preset": options.preset})
    policy = distil_command.run(options, config, _tasks(config), console)
    policy.save_pretrained(run / "policy")
    console.message(f"policy: {run / 'policy'}")
    return 0


def _show_plan(options: argparse.Namespace, config: TrainConfig) -> int:
    from srpo import plan

    if kind_of(options.policy) != "openvla" if options.policy else not options.preset.startswith("openvla"):
        print("A compact policy trains on two CPU cores within 3 GiB; docs/results.md says how long it takes.")
        return 0
    print(plan.text(plan.make(config, options.policy, options.processes), config))
    return 0


def _train(options: argparse.Namespace, config: TrainConfig, run: Path, world: distributed.World, before: bool) -> None:
    tasks = _tasks(config)
    policy = load_policy(options.policy, config.model, config.suite)
    evaluation_states(config.protocol, config.evaluation_states)  # refuses what is impossible before any work
    _save_settings(run, "train", config, options.seed, {"policy": str(options.policy), "preset": options.preset})
    console = Console(steps=config.steps)
    console.header(
        f"srpo train · {options.preset}",
        {
            "policy": options.policy,
            "tasks": ", ".join(t.id for t in tasks),
            "reward": config.reward,
            "episodes per step": config.episodes_per_step,
            "steps": config.steps,
            "workers": config.workers or default_workers(),
        },
    )
    torch.set_num_threads(default_workers())  # whatever the number of workers: the order of sums depends on it
    rollout = replace(config.rollout, world_model=config.rollout.world_model if config.reward == "srpo" else None)
    with Collector(policy, rollout, config.workers) as collector:
        world_model = create(config.rollout.world_model or "image")
        trainer = Trainer(config, policy, tasks, collector, world_model, Path(options.run), world)
        session = Session(config, tasks, collector, run, console, str(options.policy), world)
        if before:
            session.evaluate(trainer.learner.acting, "before", config.videos)
        if options.resume and trainer.resume():
            console.message(f"resumed after step {trainer.done}")
        elif config.demonstrations:
            trainer.show(DemonstrationSet(config.demonstrations))
        session.practise(trainer)
        final = session.final_policy(trainer)
        if world.first or trainer.learner.sharded:
            final.save_pretrained(run / "policy" if world.first else None)
        session.evaluate(trainer.learner.acting if trainer.learner.sharded else final, "after", config.videos)
        for reason in collector.pool.stats.reasons:
            console.warning(f"a worker was replaced: {reason.strip().splitlines()[-1]}")
    if world.first:
        console.message(f"report: {write_report(run)}")


def evaluate(options: argparse.Namespace) -> int:
    """``srpo eval``."""
    model = ModelOptions(
        device=options.device, dtype=options.dtype, images=options.images, unnorm_key=options.unnorm_key
    )
    if model.dtype == "auto" and model.resolved_device(kind_of(options.policy)).type == "cuda":
        model = replace(model, dtype="bfloat16")  # nothing is trained
    policy = load_policy(options.policy, model, options.suite)
    indices = list(parse(options.tasks, tuple[int, ...], "tasks")) or None
    tasks = evaluation.shortened(libero.tasks(options.suite, indices), options.max_steps)
    requests = evaluation.evaluation_requests(
        tasks, options.protocol, options.states, options.temperature, options.videos, options.decoding,
        read_csv(Path(options.practised) / "groups.csv") if options.practised else None,
    )  # fmt: skip
    protocol = "practised" if options.practised else options.protocol
    console = Console()
    rollout = RolloutConfig(render=options.render, world_model=None)
    with (
        Collector(policy, rollout, options.workers) as collector,
        console.phase("evaluate", len(requests), "episodes") as progress,
    ):
        episodes = evaluation.evaluate(collector, policy, requests, counting(progress))
    result = evaluation.result(episodes, checkpoint=str(options.policy), suite=options.suite, protocol=protocol)
    for task, rate in [*result["tasks"].items(), ("mean", result["overall"])]:
        low, high = rate["wilson_95"]
        count = f"{rate['successes']:4d} / {rate['episodes']:<4d}"
        console.message(f"{task:20} {count} {rate['success_rate']:6.1%} [{low:.1%}, {high:.1%}]")
    if options.out:
        write_json(Path(options.out) / "eval.json", result)
        if options.videos:
            evaluation.write_videos(Path(options.out) / "videos", "eval", episodes)
        console.message(f"written: {options.out}")
    return 0


def report(options: argparse.Namespace) -> int:
    """``srpo report``."""
    print(write_report(Path(options.run)))
    return 0


def _tasks(config: TrainConfig) -> list[Task]:
    return libero.tasks(config.suite, list(config.tasks) or None)


def _fresh(run: Path, resume: bool, *signs: Path) -> None:
    if not resume and any(sign.exists() for sign in signs):
        raise SrpoError(f"{run} already holds a run: continue it with --resume, or give another --run.")


def _save_settings(run: Path, part: str, config: Any, seed: int, more: dict[str, Any] | None = None) -> None:
    run.mkdir(parents=True, exist_ok=True)
    name = "config.json" if part == "train" else f"{part}_config.json"
    write_json(run / name, {**(more or {}), part: asdict(config)})
    write_json(run / ("provenance.json" if part == "train" else f"{part}_provenance.json"), provenance(seed))
