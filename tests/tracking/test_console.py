from __future__ import annotations

import io
import re

import pytest
from rich.text import Text

from srpo.tracking import Console
from srpo.tracking.console import duration, sparkline

ROW = {
    "step": 3,
    "success_rate": 0.8125,
    "n_success": 26,
    "n_episodes": 32,
    "reward_failure_mean": 0.41,
    "reward_failure_std": 0.132,
    "n_clusters": 2,
    "groups_informative": 3,
    "groups_skipped": 1,
    "approx_kl": 0.0031,
    "clip_fraction": 0.042,
    "seconds_total": 30.0,
    "episodes_per_s": 1.3,
}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _plain(width: int | None = None) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(steps=20, file=file, width=width, every=0.0), file


def test_step_table_says_the_numbers() -> None:
    console, file = _plain()
    console.resume([{"success_rate": 0.0}, {"success_rate": 0.5}])
    console.step_table(ROW)
    text = file.getvalue()
    for part in (
        "step 3/20", "81.2 %", "26/32", "▁▅▇", "reward 0.41 ± 0.13", "2 clusters of successes", "3 groups teach",
        "1 skipped", "KL 0.0031", "clipped 4.2 %", "1.30 episodes/s", "8:30 left",  # 17 steps of 30 s
    ):  # fmt: skip
        assert part in text, part
    assert text.count("█") == 16  # of 20, 81 %
    assert "entropy" not in text and "evaluated" not in text


def test_step_table_without_failures_and_with_an_evaluation() -> None:
    console, file = _plain()
    console.step_table(ROW | {"n_success": 32, "success_rate": 1.0, "eval_successes": 46, "eval_episodes": 50})
    text = file.getvalue()
    assert re.search(r"failures +none", text) and "0.41" not in text
    assert "92.0 %  46/50" in text and "81.2 to 96.8" in text  # Wilson, 46 of 50


def test_plain_output_has_no_control_characters_and_fits() -> None:
    console, file = _plain()
    console.header("srpo train", {"task": "put the bowl " * 20})
    console.warning("a worker was replaced")
    with console.phase("rollout", 3) as phase:
        for _ in range(3):
            phase.advance()
    console.step_table(ROW | {"entropy": 1.9, "grad_norm": 0.8, "ratio_max": 2.0, "seconds_rollout": 20.0})
    text = file.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert max(map(len, text.splitlines())) <= 80
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "rollout  1/3 episodes" in text and "rollout     3/3 episodes in 0:00" in text


def test_plain_progress_is_rare() -> None:
    file = io.StringIO()
    console = Console(file=file, every=10.0)
    with console.phase("rollout", 1000) as phase:
        for _ in range(1000):
            phase.advance()
    assert len(file.getvalue().splitlines()) == 1


def test_a_phase_that_fails_says_where() -> None:
    console, file = _plain()
    with pytest.raises(ZeroDivisionError), console.phase("update", 8, "minibatches") as phase:
        phase.advance(5)
        raise ZeroDivisionError
    assert "stopped at 5/8 minibatches" in file.getvalue()


def test_output_that_knows_only_ascii() -> None:
    raw = io.BytesIO()
    console = Console(steps=5, file=io.TextIOWrapper(raw, encoding="ascii"))
    console.header("run", {"seed": 0})
    console.step_table(ROW)
    raw.getvalue().decode("ascii")
    assert b"81.2 %" in raw.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_nested_phases_on_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    file = _Terminal()
    console = Console(steps=2, file=file, width=width)
    with console.phase("features", None, "demos") as first, console.phase("sft", 10, "steps") as second:
        first.update(4)
        second.advance(7)
        console.message("between")
    console.step_table(ROW)
    plain = str(Text.from_ansi(file.getvalue()))
    assert console.live and "between" in plain
    assert "4 demos in 0:00" in plain and "7/10 steps" in plain


def test_duration_and_sparkline() -> None:
    assert [duration(s) for s in (0, 24.4, 725, 3723)] == ["0:00", "0:24", "12:05", "1:02:03"]
    assert sparkline([0.0, 0.5, 1.0, -1.0, 2.0]) == "▁▅█▁█"
    assert sparkline([0.0, 1.0], unicode=False) == "_#"


def test_a_phase_ends_with_its_last_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    # What follows the last episode within the phase (the update of the policy) is not rolling out.
    now = 0.0
    monkeypatch.setattr("srpo.tracking.console.time.monotonic", lambda: now)
    console, file = _plain()
    with console.phase("roll out", 4, "episodes") as phase:
        now = 8.0
        phase.advance(4)
        now = 20.0
    assert "4/4 episodes in 0:08 (0.5/s)" in file.getvalue()
