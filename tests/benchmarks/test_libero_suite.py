"""The table and figure of ``benchmarks/libero_suite.py``, of results that are already there."""

from __future__ import annotations

import importlib
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/libero_suite.py"


def write_run(folder: Path, recent: list[float], won: int) -> None:
    """What the script keeps of a run: a step of 80 episodes a number of ``recent``; ``won`` of 20 afterwards."""
    folder.mkdir(parents=True)
    lines = ["step,episodes,success_recent,seconds_total"]
    lines += [f"{k},{80 * k},{rate},90" for k, rate in enumerate(recent, start=1)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    rate = {"successes": won, "episodes": 20}
    (folder / "eval_after.json").write_text(json.dumps({"overall": rate, "tasks": {"libero_spatial/0": rate}}))
    (folder / "times.json").write_text('{"train": {"wall": 360, "cpu": 720}}')


def figures(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    """Run the script's ``--figures``."""
    options = ["--suite", "libero_spatial", "--figures", "--results", str(results)]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *options])
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_table_holds_the_joint_runs_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tmp_path / "libero_spatial"
    write_run(suite / "easy/srpo_0", [0.4, 0.75, 0.7, 0.9], won=20)
    write_run(suite / "easy/grpo_0", [0.4, 0.4, 0.6, 0.7], won=10)
    write_run(suite / "specialists_0/task_3", [0.99] * 4, won=20)  # of specialists.py
    (suite / "specialists_0/eval_100_states.json").write_text("{}")
    figures(monkeypatch, tmp_path)
    rows = [line.strip("| ").split(" | ") for line in (suite / "table.md").read_text().splitlines()]
    by_method = {(row[1], row[2]): row for row in rows if row[0] == "easy"}
    assert not any("specialists_0" in row for row in rows)
    # Wilson's interval of 20 of 20; 70 % after 2 steps, 80 and 90 % after 4; 360 s and 720 CPU seconds.
    assert by_method["srpo", "0"][3:6] == ["320", "-", "20/20 [84%, 100%]"]
    assert by_method["srpo", "0"][9:] == ["90%", "160", "160", "320", "320", "-", "0.10", "0.20"]
    assert by_method["grpo", "0"][9:] == ["70%", "240", "320", "-", "-", "-", "0.10", "0.20"]
    # SRPO's share of GRPO's episodes: 160 of 240 to 50 %, 160 of 320 to 70 %.
    assert by_method["srpo", "0.67 (n=1)"][3:] == ["0.50 (n=1)", "-", "-", "-"]
    assert (suite / "learning_curves.png").stat().st_size > 10_000


def test_an_evaluation_that_seeds_have_in_common_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):  # the second made its clone again
        folder = tmp_path / f"libero_spatial/easy/srpo_{seed}"
        write_run(folder, [0.5], won=17)
        rate = {"successes": 9, "episodes": 20}
        before = {"overall": rate, "tasks": {"libero_spatial/0": rate}, "provenance": {"started": f"day {seed}"}}
        (folder / "eval_before.json").write_text(json.dumps(before))
    figures(monkeypatch, tmp_path)
    table = (tmp_path / "libero_spatial/table.md").read_text()
    assert "| easy | srpo | before | 9/20 |" in table
    assert "| easy | srpo | after | 34/40 |" in table


def test_no_results_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="holds no results yet"):
        figures(monkeypatch, tmp_path)


def test_single_attempts_without_groups_by_fifteen_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, last in ((0, 15), (1, 31)):
        folder = tmp_path / f"libero_spatial/easy/srpo_{seed}"
        write_run(folder, [0.5], won=17)
        rows = ["1,0,libero_spatial/0,8,3", "1,1,libero_spatial/0,1,1", f"{last},2,libero_spatial/0,1,0"]
        (folder / "groups.csv").write_text("\n".join(["step,group,task,episodes,successes", *rows]) + "\n")
    figures(monkeypatch, tmp_path)
    table = (tmp_path / "libero_spatial/table.md").read_text()
    assert "| start | method | seed | steps 1 to 15 | steps 16 to 30 | steps 31 to 45 |" in table
    assert "| easy | srpo | 0 | 1/2 | - | - |\n| easy | srpo | 1 | 1/1 | 0/0 | 0/1 |" in table


def test_what_is_kept_of_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of the machine and all of an episode but its outcome are left out; what was kept so is kept the same."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    small = importlib.import_module("libero_suite").small
    episodes = [
        {"task": task, "success": won, "seconds": 9.9} for task, won in (("a", True), ("b", False), ("a", False))
    ]
    file = tmp_path / "eval_after.json"
    file.write_text(json.dumps({"checkpoint": "/home/me/runs/policy", "episodes": episodes}))
    for _ in range(2):
        file.write_text(small(file, {"/home/me/": ""}))
        assert json.loads(file.read_text()) == {"checkpoint": "runs/policy", "outcomes": {"a": "10", "b": "0"}}


def test_the_interval_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    over_seeds = importlib.import_module("suite_results").over_seeds
    write_run(tmp_path / "srpo_0", [0.4, 0.5], won=1)
    assert not len(over_seeds(tmp_path, "srpo")[0])
    write_run(tmp_path / "srpo_1", [0.5, 0.5, 0.9], won=1)
    episodes, mean, half = over_seeds(tmp_path, "srpo")
    assert episodes.tolist() == [80, 160] and mean.tolist() == pytest.approx([0.45, 0.5]) and np.isnan(half).all()
    write_run(tmp_path / "srpo_2", [0.6, 0.5], won=1)
    # Student's t of 2 degrees of freedom is 4.303: 4.303 * 0.1 / sqrt(3); no spread, no interval.
    assert over_seeds(tmp_path, "srpo")[2].tolist() == pytest.approx([0.2484, 0.0], abs=1e-4)
