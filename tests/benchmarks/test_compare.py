"""``benchmarks/compare.py``: published intervals, numbers worked out by hand, and what it refuses."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("compare")


def test_newcombes_published_intervals(compare: ModuleType) -> None:
    """Newcombe 1998, table II, method 10, examples (a), (b) and (h)."""
    published = {
        ("48/80", "56/70"): (0.0524, 0.3339),
        ("3/10", "9/10"): (0.1705, 0.8090),
        ("0/10", "10/10"): (0.6075, 1),
    }
    for (first, second), interval in published.items():
        assert compare.newcombe(compare.read(first), compare.read(second)) == pytest.approx(interval, abs=5e-5)


def test_files_and_counts(
    compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same seven attempts, one file with all of their episodes, one with the outcomes alone."""
    episodes = [{"task": "a", "success": k == 3} for k in range(4)] + [{"task": "b", "success": False}] * 3
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    overall = [{"successes": won, "episodes": 7} for won in (1, 5)]
    files[0].write_text(json.dumps({"protocol": "held-out", "overall": overall[0], "episodes": episodes}))
    known = {"a": "1110", "b": "110"}
    files[1].write_text(json.dumps({"protocol": "held-out", "overall": overall[1], "outcomes": known}))
    monkeypatch.setattr("sys.argv", ["compare.py", *map(str, files), "6/7"])
    compare.main()
    first, second, third = capsys.readouterr().out.splitlines()[2:]
    assert first == f"| {files[0]} | 1/7 | 3% to 51% |  |  |  |  |"
    # Six are solved by one of the two, five by the second: (1 + 6 + 6 + 1) / 2^6. Of the 3,003 ways to deal six
    # successes to twice seven attempts, 7 * 21 give one to the first and 7 none; as many one or none to the second.
    assert second.endswith(f"| {2 * (7 * 21 + 7) / 3003:.2g} | 0.22 |")
    assert third.startswith("| 6/7 | 6/7 | 49% to 97% | +71.4% |") and third.endswith("|  |")


def test_attempts_at_other_states_are_not_paired(compare: ModuleType, tmp_path: Path) -> None:
    def evaluated(protocol: str, won: str) -> Any:
        file = tmp_path / "eval.json"
        overall = {"successes": won.count("1"), "episodes": len(won)}
        file.write_text(json.dumps({"protocol": protocol, "overall": overall, "outcomes": {"a": won}}))
        return compare.read(str(file))

    held_out = evaluated("held-out", "1100")
    assert compare.mcnemar(held_out, evaluated("held-out", "1111")) == "0.5"  # both of two: 2 / 2^2
    assert compare.mcnemar(held_out, held_out) == "1"
    assert compare.mcnemar(held_out, evaluated("held-out", "11111")) == ""  # more states
    assert compare.mcnemar(held_out, evaluated("paper", "1111")) == ""
    # Each run has practised at states of its own.
    assert compare.mcnemar(evaluated("practised", "1100"), evaluated("practised", "1111")) == ""


@pytest.mark.parametrize("argument", ["4/3", "0/0", "nowhere.json", "3 of 4"])
def test_what_is_no_count_is_refused(compare: ModuleType, argument: str) -> None:
    with pytest.raises(SystemExit, match=r"nothing to compare|neither like"):
        compare.read(argument)
