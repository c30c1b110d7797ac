"""``benchmarks/compare.py``: a published example, one worked out by hand, and what it refuses."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("compare")


def test_newcombes_published_intervals(compare: ModuleType) -> None:
    """Newcombe 1998, table II, method 10, examples (a), (b) and (h)."""
    assert compare.newcombe((48, 80), (56, 70)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert compare.newcombe((3, 10), (9, 10)) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert compare.newcombe((0, 10), (10, 10)) == pytest.approx((0.6075, 1.0), abs=5e-5)


def test_a_file_and_a_count(
    compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "eval.json"
    file.write_text(json.dumps({"overall": {"successes": 0, "episodes": 3}}))
    monkeypatch.setattr("sys.argv", ["compare.py", str(file), "3/3"])
    compare.main()
    first, second = capsys.readouterr().out.splitlines()[2:]
    assert first == f"| {file} | 0/3 | 0% to 56% |  |  |  |"
    # All three of one and none of the other: 2 of the 20 ways to deal three successes to six attempts are as far apart.
    assert second.startswith("| 3/3 | 3/3 | 44% to 100% | +100.0% |") and second.endswith("| 0.1 |")


@pytest.mark.parametrize("argument", ["4/3", "0/0", "nowhere.json", "3 of 4"])
def test_what_is_no_count_is_refused(compare: ModuleType, argument: str) -> None:
    with pytest.raises(SystemExit, match=r"nothing to compare|neither like"):
        compare.counted(argument)
