"""The demo over several seeds: success before and after SRPO on held-out attempts, wall-clock time, peak memory.

    python benchmarks/demo.py --seeds 0 1 2 3 4 --out runs/demo_seeds

Runs what `make demo` runs (cloning the same two demonstrations, SRPO), once per seed, and prints a markdown table with
Wilson 95 % intervals. Finished seeds are kept: run it again to continue. Further options are those of ``srpo train``;
with other ones, give another ``--out``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from memory import descendants_memory
from srpo.evaluation.intervals import wilson


def run_seed(preset: str, seed: int, folder: Path, cloning: list[str], extra: list[str]) -> dict:
    """One seed from nothing to report; returns seconds per stage and the peak memory of all processes together."""
    srpo = [sys.executable, "-m", "srpo.cli"]
    common = [preset, "--seed", str(seed)]
    stages = {
        "collect": [*srpo, "collect", preset, "--out", str(folder / "demos")],
        "sft": [*srpo, "sft", *common, *cloning, "--demos", str(folder / "demos"), "--run", str(folder / "sft"),
                "--resume"],
        "train": [*srpo, "train", *common, "--policy", str(folder / "sft/policy"), "--run", str(folder / "srpo"),
                  "--resume", *extra],
    }  # fmt: skip
    seconds, peak = {}, 0
    for name, command in stages.items():
        start = time.monotonic()
        with (folder / f"{name}.log").open("a") as log, _PeakMemory() as memory:
            subprocess.run(command, stdout=log, stderr=log, check=True)
        seconds[name] = round(time.monotonic() - start, 1)
        peak = max(peak, memory.peak)
    return {"seconds": seconds, "peak_memory_mib": peak // 2**20}


class _PeakMemory:
    """Largest sum of proportional set sizes over this process's descendants, sampled every two seconds (Linux)."""

    def __enter__(self) -> _PeakMemory:
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(2.0):
            self.peak = max(self.peak, descendants_memory())


def table(rows: list[dict]) -> str:
    """Markdown, one line a seed."""
    lines = ["| seed | SFT | SRPO | episodes | minutes | peak memory |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = []
        for phase in ("before", "after"):
            k, n = row[phase]
            low, high = wilson(k, n)
            cells.append(f"{k}/{n} = {k / n:.0%} [{low:.0%}, {high:.0%}]")
        minutes = sum(row["seconds"].values()) / 60
        lines.append(
            f"| {row['seed']} | {cells[0]} | {cells[1]} | {row['episodes']} | {minutes:.1f} "
            f"| {row['peak_memory_mib'] / 1024:.1f} GiB |"
        )
    return "\n".join(lines)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="libero-quick")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/demo_seeds"))
    parser.add_argument("--cloning-steps", type=int, default=None, help="of srpo sft; default: the preset's")
    options, extra = parser.parse_known_args()  # what is not known here is an option of srpo train
    cloning = ["--steps", str(options.cloning_steps)] if options.cloning_steps else []
    rows = []
    for seed in options.seeds:
        folder = options.out / f"seed_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / "result.json"
        if not result.is_file():
            row = {"seed": seed, **run_seed(options.preset, seed, folder, cloning, extra)}
            for phase in ("before", "after"):
                overall = json.loads((folder / f"srpo/eval_{phase}.json").read_text())["overall"]
                row[phase] = [overall["successes"], overall["episodes"]]
            lines = (folder / "srpo/metrics.csv").read_text().splitlines()
            row["episodes"] = int(float(lines[-1].split(",")[lines[0].split(",").index("episodes")]))
            result.write_text(json.dumps(row) + "\n")
        rows.append(json.loads(result.read_text()))
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
