"""The table of ``benchmarks/stages.py``, of numbers made up here."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/stages.py"


def write(file: Path, text: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text if isinstance(text, str) else json.dumps(text))


def evaluation(successes: int, episodes: int) -> dict[str, object]:
    return {"overall": {"successes": successes, "episodes": episodes}}


def test_every_stage_has_what_it_took_from_the_clone_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tmp_path / "libero_spatial"
    write(suite / "easy/grpo_1/metrics.csv", "step,episodes\n1,80\n2,160\n")
    write(suite / "easy/grpo_1/eval_before.json", evaluation(5, 10))
    # The joint run's other evaluations are not on the way.
    write(suite / "easy/grpo_1/times.json", {"train": {"wall": 360, "cpu": 720}, "eval": {"wall": 9999, "cpu": 9999}})
    folder = suite / "specialists_grpo_1"
    for task, won in enumerate((3, 4)):
        write(folder / f"task_{task}/eval_before.json", evaluation(won, 5))
    for number, distil, practice, won in ((9, 360, 720, 9), (10, 720, 1080, 10)):
        one = folder / f"one_{number}"
        times = {"train": practice, "distil": distil, "eval": distil}
        write(one / "times.json", {k: {"wall": v, "cpu": 2 * v} for k, v in times.items()})
        write(one / "distil_config.json", {"distil": {"distil": {"rounds": 2, "attempts": 3}}})
        write(one / "eval.json", evaluation(won, 10))
    (folder / "one_7").mkdir()  # without times: not a stage
    (suite / "specialists_grpo_2/task_0").mkdir(parents=True)  # stopped before its first final policy: not in the table
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "--suite", "libero_spatial", "--results", str(tmp_path)])
    monkeypatch.syspath_prepend(SCRIPT.parent)  # as of a script
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = [line.strip("| ").split(" | ") for line in (suite / "stages.md").read_text().splitlines()[2:]]
    assert [row[:5] for row in rows] == [
        ["grpo", "1", "clone", "0", "0"],
        ["grpo", "1", "practised jointly", "2", "160"],
        ["grpo", "1", "one for all", "11", "892"],  # 160, 9 steps of 80, and 2 rounds of 3 attempts at 2 tasks
        ["grpo", "1", "one for all", "12", "972"],
    ]
    assert [row[5].split(" [")[0] for row in rows] == ["5 of 10", "7 of 10", "9 of 10", "10 of 10"]
    # 360 + 720 + 360 + 360 s, and 360 + 1080 + 360 + 360 s: the second has its own cloning and evaluation only.
    assert [row[6:] for row in rows] == [["-", "-"], ["0.10", "0.20"], ["0.50", "1.00"], ["0.60", "1.20"]]
    assert (suite / "stages.png").stat().st_size > 10_000
