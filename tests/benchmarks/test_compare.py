"""``benchmarks/compare.py``: published intervals, numbers worked out by hand, and what it refuses."""

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
    files[0].write_text(json.dumps({"overall": overall[0], "episodes": episodes}))
    files[1].write_text(json.dumps({"overall": overall[1], "outcomes": {"a": "1110", "b": "110"}}))
    monkeypatch.setattr("sys.argv", ["compare.py", *map(str, files), "6/7"])
    compare.main()
    first, second, third = capsys.readouterr().out.splitlines()[2:]
    assert first == f"| {files[0]} | 1/7 | 3% to 51% |  |  |  |  |"
    # Six are solved by one of the two, five by the second: (1 + 6 + 6 + 1) / 2^6. Of the 3,003 ways to deal six
    # successes to twice seven attempts, 7 * 21 give one to the first and 7 none; as many one or none to the second.
    assert second.endswith(f"| {2 * (7 * 21 + 7) / 3003:.2g} | 0.22 |")
    assert third.startswith("| 6/7 | 6/7 | 49% to 97% | +71.4% |") and third.endswith("|  |")


@pytest.mark.parametrize("argument", ["4/3", "0/0", "nowhere.json", "3 of 4"])
def test_what_is_no_count_is_refused(compare: ModuleType, argument: str) -> None:
    with pytest.raises(SystemExit, match=r"nothing to compare|neither like"):
        compare.read(argument)
