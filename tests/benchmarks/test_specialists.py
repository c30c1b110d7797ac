"""The schedule and table of ``benchmarks/specialists.py``, with commands that only write what they would leave."""

from __future__ import annotations

import importlib
import json
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GROUPS = "step,group,task,initial_state,episodes,successes\n"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("specialists")


def test_steps_go_by_the_weights_up_to_the_largest_remainders(script: ModuleType) -> None:
    # 10 spare steps by 1, 2 and 3 of 6: 1.67, 3.33, 5.0; the one left over goes to the largest remainder.
    assert script.allotted(16, [1, 2, 3], least=2) == [4, 5, 7]
    assert script.allotted(4, [0, 0], least=2) == [2, 2]


def test_only_the_last_single_attempts_count(script: ModuleType, tmp_path: Path) -> None:
    rows = ["1,0,libero_spatial/1,a,1,0", "1,1,libero_spatial/1,b,8,0", "1,2,libero_spatial/11,c,1,0"]
    rows += ["2,0,libero_spatial/1,d,1,1", "2,1,libero_spatial/1,e,1,0"]
    (tmp_path / "groups.csv").write_text(GROUPS + "\n".join(rows) + "\n")
    assert script.failures(tmp_path, 1) == 2
    assert script.failures(tmp_path, 1, last=1) == 1
    assert script.failures(tmp_path, 0) == 0


class Commands:
    """In place of ``stage``: task 3 fails at every attempt of practice; evaluations count the steps behind them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, command: list[str], log: Path, times: Path, program: tuple[str, ...] = ()) -> None:
        option = {a: b for a, b in pairwise(command) if a.startswith("--")}
        times.parent.mkdir(parents=True, exist_ok=True)
        times.write_text('{"train": {"wall": 1, "cpu": 1}}')
        self.calls.append(command[0])
        if command[0] == "eval":
            evaluation(Path(option["--out"]) / "eval.json", dict.fromkeys(range(10), 40))
            return
        run = Path(option["--run"])
        run.mkdir(exist_ok=True)
        if command[0] == "distil":
            (run / "policy").mkdir()
            for name in ("distil_config.json", "distil_provenance.json"):
                (run / name).write_text("{}")
            return
        task, steps = int(option["--tasks"]), int(option["--steps"])
        self.calls[-1] += f" {task} {steps}"
        (run / "metrics.csv").write_text("step,episodes\n" + "".join(f"{k},{80 * k}\n" for k in range(1, steps + 1)))
        (run / "groups.csv").write_text(GROUPS + f"1,0,libero_spatial/{task},a,1,{int(task != 3)}\n")
        for name in ("config.json", "provenance.json"):
            (run / name).write_text("{}")
        evaluation(run / "eval_before.json", {task: 0})
        evaluation(run / "eval_after.json", {task: steps})


def evaluation(file: Path, successes: dict[int, int]) -> None:
    rates = {f"libero_spatial/{task}": {"successes": won, "episodes": 40} for task, won in successes.items()}
    overall = {"successes": sum(successes.values()), "episodes": 40 * len(successes)}
    file.write_text(json.dumps({"overall": overall, "tasks": rates}))


def test_each_further_number_goes_to_what_failed_last(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = tmp_path / "joint"
    joint.mkdir()
    (joint / "groups.csv").write_text(GROUPS + "".join(f"1,0,libero_spatial/{k},a,1,1\n" for k in range(10)))
    given = ["--policy", str(joint / "policy"), "--practised", str(joint), "--demos", str(tmp_path / "demos")]
    given += ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results"), "--steps", "20"]

    def calls(*more: str) -> list[str]:
        commands = Commands()
        monkeypatch.setattr(script, "stage", commands)
        monkeypatch.setattr(script.signal, "signal", lambda *_: None)  # the tests' own stay as they are
        monkeypatch.setattr("sys.argv", ["specialists.py", *given, *more])
        script.main()
        return commands.calls

    assert sorted(calls()) == ["distil", "eval", *(f"train {k} 2" for k in range(10))]
    assert calls() == []  # all is done
    assert calls("--again", "5") == ["train 3 7", "distil", "eval"]
    assert calls("--again", "5", "4") == ["train 3 11", "distil", "eval"]
    table = (tmp_path / "results/libero_spatial/specialists_0/table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in row.strip("| ").split("|")] for row in table[2:]]
    two = ["2"] * 3
    assert [row[:11] for row in rows] == [
        ["before", *["0"] * 10],
        ["RL steps", *two, "2", *two, *two],
        ["one policy a task", *two, "2", *two, *two],
        ["one policy for all", *["40"] * 10],
        ["RL steps", *two, "7", *two, *two],
        ["one policy a task", *two, "7", *two, *two],
        ["one policy for all", *["40"] * 10],
        ["RL steps", *two, "11", *two, *two],
        ["one policy a task", *two, "11", *two, *two],
        ["one policy for all", *["40"] * 10],
    ]
    assert [row[11].split(" [")[0] for row in rows[1::3]] == ["20", "25", "29"]
