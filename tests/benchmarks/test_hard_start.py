"""The table and figure of ``benchmarks/hard_start.py``, of results that are already there."""

from __future__ import annotations

import importlib
import json
import runpy
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/hard_start.py"


def write_run(folder: Path, successes: list[int], before: int, after: int) -> None:
    """What the script keeps of a task's run: 16 single attempts a step, of which so many succeed."""
    folder.mkdir(parents=True)
    lines = ["step,group,task,initial_state,again,episodes,successes"]
    for step, won in enumerate(successes, start=1):
        lines.append(f"{step},0,libero_spatial/3,sampled-0,0,8,8")  # a group, which does not count
        lines += [f"{step},{k + 1},libero_spatial/3,sampled-{k + 1},0,1,{int(k < won)}" for k in range(16)]
    (folder / "groups.csv").write_text("\n".join(lines) + "\n")
    rows = [f"{s},{80 * s},{64 + won},80" for s, won in enumerate(successes, start=1)]
    (folder / "metrics.csv").write_text("\n".join(["step,episodes,n_success,n_episodes", *rows]) + "\n")
    for phase, won in (("before", before), ("after", after)):
        rate = {"overall": {"successes": won, "episodes": 20}}
        (folder / f"eval_{phase}.json").write_text(json.dumps(rate))


def figures(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    """Run the script's ``--figures``."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "--figures", "--results", str(results)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_episodes_to_a_level_and_their_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tmp_path / "libero_spatial"
    # Of the last 32: 8, 24, 31. Half is there after 2 steps, 70 % too, 80 and 90 % after 3.
    write_run(suite / "hard_srpo_0/task_3", [8, 16, 15], before=0, after=19)
    # 0, 4, 16, 28, 31: half after 3 steps, 70 and 80 % after 4 (28 of 32 are 88 %), 90 % after 5.
    write_run(suite / "hard_grpo_0/task_3", [0, 4, 12, 16, 15], before=0, after=18)
    figures(monkeypatch, tmp_path)
    text = (suite / "hard_start.md").read_text()
    there = "(not there: 0 and 0 of 1)"
    # Held out nine tenths after 3 and 5.
    assert f"| srpo, 0 | 0.67 {there} | 0.50 {there} | 0.75 {there} | 0.60 {there} | 0.60 {there} |" in text
    srpo, grpo = text.split("| srpo, seed 0 |")[1], text.split("| grpo, seed 0 |")[1].split("| srpo, seed 0 |")[0]
    assert "| episodes to 90% | 240 | 1 tasks |" in srpo and "| episodes to 90% | 400 | 1 tasks |" in grpo
    # 64 of the groups and those of the single attempts: 72 + 80 + 79; 64 + 68 + 76 + 80, and 79 in the fifth step.
    assert "every 4 steps | 231 | 231 |" in srpo and "every 4 steps | 288 79 | 367 |" in grpo
    assert "| after, held out | 19 | 19 of 20 [76%, 99%] |" in srpo  # Wilson
    assert "| held out after steps | 0: 0, 5: 18 | |" in grpo
    assert (suite / "hard_start.png").stat().st_size > 10_000


def test_a_run_that_is_not_there_counts_as_long_as_it_lasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tmp_path / "libero_spatial"
    write_run(suite / "hard_srpo_1/task_3", [16, 16], before=3, after=20)
    write_run(suite / "hard_grpo_1/task_3", [0, 0, 0, 0], before=3, after=0)
    figures(monkeypatch, tmp_path)
    text = (suite / "hard_start.md").read_text()
    # Half after 1 step, all above after 2; the other lasted 4 steps without.
    assert "| srpo, 1 | 0.25 (not there: 0 and 1 of 1) | 0.50 (not there: 0 and 1 of 1) |" in text


def test_the_first_evaluation_with_nine_tenths_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tmp_path / "libero_spatial"
    write_run(suite / "hard_srpo_0/task_3", [0] * 12, before=0, after=17)
    for steps, won in ((2, 17), (4, 18), (10, 20)):  # in order of their number, not of their name
        rate = {"overall": {"successes": won, "episodes": 20}}
        (suite / f"hard_srpo_0/task_3/eval_{steps}.json").write_text(json.dumps(rate))
    write_run(suite / "hard_grpo_0/task_3", [0] * 8, before=0, after=17)  # not in 8
    figures(monkeypatch, tmp_path)
    text = (suite / "hard_start.md").read_text()
    assert text.splitlines()[2].endswith("| 0.50 (not there: 0 and 1 of 1) |")
    assert "| held out after steps | 0: 0, 2: 17, 4: 18, 10: 20, 12: 17 | |" in text


def test_a_task_that_is_there_before_practice_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tmp_path / "libero_spatial"
    for method, steps in (("srpo", 2), ("grpo", 4)):
        write_run(suite / f"hard_{method}_0/task_3", [0] * steps, before=18, after=20)
    figures(monkeypatch, tmp_path)
    assert (suite / "hard_start.md").read_text().splitlines()[2].endswith("| - |")
    for method, steps in (("srpo", 2), ("grpo", 4)):
        write_run(suite / f"hard_{method}_0/task_5", [0] * steps, before=17, after=20)
    figures(monkeypatch, tmp_path)
    assert (suite / "hard_start.md").read_text().splitlines()[2].endswith("| 0.50 (not there: 0 and 0 of 1) |")


def test_a_shorter_run_is_not_ahead_for_being_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tmp_path / "libero_spatial"
    write_run(suite / "hard_srpo_0/task_3", [0, 0], before=0, after=0)
    write_run(suite / "hard_grpo_0/task_3", [0, 0, 16, 0], before=0, after=0)  # to half after 3, no further
    figures(monkeypatch, tmp_path)
    text = (suite / "hard_start.md").read_text()
    assert "| srpo, 0 | 1.00 (not there: 1 and 0 of 1) | 1.00 (not there: 1 and 1 of 1) |" in text


def test_the_interval_is_over_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tmp_path / "libero_spatial"
    for task, steps in ((3, (1, 2)), (5, (3, 2))):  # to 50 %: half as many, and half as many again
        for method, number in zip(("srpo", "grpo"), steps, strict=True):
            write_run(suite / f"hard_{method}_0/task_{task}", [0] * (number - 1) + [16, 16], before=0, after=0)
    write_run(suite / "hard_srpo_0/task_7", [16], before=0, after=0)  # without a GRPO beside it
    figures(monkeypatch, tmp_path)
    assert "| srpo, 0 | 1.00 [0.50, 1.50] (not there: 0 and 0 of 2) |" in (suite / "hard_start.md").read_text()


def test_the_evaluation_after_fewer_steps_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = importlib.import_module("hard_start")
    options = Namespace(
        work=tmp_path / "work", results=tmp_path, demos=tmp_path / "demos", suite="libero_spatial", states=20
    )

    def train(options: Namespace, more: list[str], method: str, seed: int, task: int, steps: int, work: Path) -> None:
        kept = {f.name: f.read_text() for f in (work / "task_3").glob("eval_[0-9]*")}
        shutil.rmtree(work / "task_3")
        write_run(work / "task_3", [4] * steps, before=0, after=steps)
        for name, text in kept.items():
            (work / "task_3" / name).write_text(text)
        for file in ("task_3/config.json", "task_3/provenance.json", "times.json"):
            (work / file).write_text("{}")

    monkeypatch.setattr(script, "train", train)
    for steps in (2, 4, 4):  # the second time there is nothing left to do
        script.practise(options, [], "grpo", 0, 3, steps)
    script.keep(options, "grpo", 0)
    folder = tmp_path / "libero_spatial/hard_grpo_0/task_3"
    assert sorted(f.name for f in folder.glob("eval_*")) == ["eval_2.json", "eval_after.json", "eval_before.json"]
    won = [json.loads((folder / f"eval_{n}.json").read_text())["overall"]["successes"] for n in ("2", "after")]
    assert won == [2, 4]


def test_nothing_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="holds no results of a hard start yet"):
        figures(monkeypatch, tmp_path)
