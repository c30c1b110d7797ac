"""What a person sees while a run goes on: a progress line per phase and a small table per RL step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import rich.console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from srpo.tracking.csv import number

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.:-=+*#"
_PLAIN_WIDTH = 80


class Phase:
    """Progress of one phase, handed out by `Console.phase`.

    Attributes:
        name: of the phase.
        done: units finished.
        total: units in all, or None if unknown.
        unit: what is counted, in the plural.
    """

    def __init__(self, name: str, total: int | None, unit: str, report: Callable[[Phase], None]) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, 0
        self.start = time.monotonic()
        self._finished: float | None = None
        self._report = report

    def advance(self, count: int = 1) -> None:
        """``count`` more units are finished."""
        self.update(self.done + count)

    def update(self, done: int) -> None:
        """``done`` units are finished in all."""
        self.done = done
        self._finished = time.monotonic() if done == self.total else None
        self._report(self)

    @property
    def seconds(self) -> float:
        """From the beginning of the phase to its last unit, or to now."""
        return (self._finished or time.monotonic()) - self.start

    def count(self) -> str:
        """``32/64 episodes``, or ``32 episodes`` when the total is unknown."""
        return f"{self.done} {self.unit}" if self.total is None else f"{self.done}/{self.total} {self.unit}"

    def rate(self) -> str:
        """``1.3/s``, or per minute where that reads better; empty before the first unit."""
        if not self.done or self.seconds <= 0:
            return ""
        per_second = self.done / self.seconds
        return f"{per_second:.3g}/s" if per_second >= 0.1 else f"{60 * per_second:.2g}/min"

    def left(self) -> str:
        """``0:24 left`` at the mean rate so far; empty where it cannot be said."""
        if not self.done or self.total is None or self.done >= self.total:
            return ""
        return f"{duration(self.seconds / self.done * (self.total - self.done))} left"


class Console:
    """Progress and results on a (UTF-8) terminal, or as plain lines where the output is not one.

    Plain output holds no control characters, and at most one progress line every ``every`` seconds.

    Args:
        steps: RL steps in all, for "step 3/20" and the time left; None if unknown.
        file: where to print; standard output by default.
        width: columns; by default the terminal's, or 80.
        every: seconds between progress lines in plain output.
    """

    def __init__(
        self,
        steps: int | None = None,
        file: IO[str] | None = None,
        width: int | None = None,
        every: float = 10.0,
    ) -> None:
        self.rich = rich.console.Console(file=file, width=width, highlight=False, soft_wrap=False)
        self.unicode = self.rich.encoding.lower().startswith("utf")
        self.live = self.rich.is_terminal and not self.rich.is_dumb_terminal and self.unicode
        if not self.live:
            self.rich = rich.console.Console(
                file=file,
                width=width or _PLAIN_WIDTH,
                highlight=False,
                color_system=None,
                force_terminal=False,
            )
        self.steps, self.every = steps, every
        self.history: list[float] = []
        self._shown: list[float] = []
        self._progress: Progress | None = None
        self._phases: dict[Phase, Any] = {}
        self._printed: dict[Phase, float] = {}

    def header(self, title: str, summary: Mapping[str, Any]) -> None:
        """The run's name and its most important settings, one a line."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in summary.items():
            table.add_row(Text(str(name)), Text(str(value)))
        self._print(self._rule(title, left=True), table, Text(""))

    def message(self, text: str) -> None:
        """One plain line."""
        self._print(Text(text))

    def warning(self, text: str) -> None:
        """A line that starts with "warning:"."""
        self._print(Text.assemble(("warning: ", "bold yellow"), text))

    @contextmanager
    def phase(self, name: str, total: int | None = None, unit: str = "episodes") -> Iterator[Phase]:
        """Show progress while the block runs, and one closing line when it ends (also when it fails).

        Args:
            name: "rollout", "update", "evaluation", ...
            total: units to do, None if unknown.
            unit: what is counted, in the plural.
        """
        phase = Phase(name, total, unit, self._report)
        self._begin(phase)
        try:
            yield phase
        except BaseException:
            self._end(phase, "stopped at")
            raise
        self._end(phase, "")

    def resume(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take up the history of success from the rows of an interrupted run."""
        self.history = [rate for row in rows if (rate := number(row.get("success_rate"))) is not None]

    def step_table(self, row: Mapping[str, Any]) -> None:
        """The numbers of one RL step; columns that ``row`` lacks are left out."""
        success = number(row.get("success_rate"))
        if success is not None:
            self.history.append(success)
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in (
            ("success", self._success(row, success)),
            ("failures", _joined(_failures(row))),
            ("update", _joined(_update(row))),
            ("evaluated", _evaluation(row)),
            ("speed", _joined([*_speed(row), self._left(row)])),
        ):
            if text:
                table.add_row(name, text)
        step = row.get("step")
        self._print(self._rule(f"step {step}/{self.steps}" if self.steps else f"step {step}"), table)

    def _success(self, row: Mapping[str, Any], success: float | None) -> Text | None:
        if success is None:
            return None
        text = Text.assemble((f"{100 * success:5.1f} %", "bold"))
        if row.get("n_episodes"):
            text.append(f"  {row['n_success']}/{row['n_episodes']}")
        full, empty = ("█", "░") if self.unicode else ("#", ".")
        filled = round(20 * success)
        text.append("  ").append(full * filled, "green").append(empty * (20 - filled), "dim")
        room = max(8, min(40, self.rich.width - 50))
        return text.append("  ").append(sparkline(self.history[-room:], self.unicode), "cyan")

    def _left(self, row: Mapping[str, Any]) -> str:
        seconds = number(row.get("seconds_total"))
        if seconds is None or not self.steps or row.get("step") is None:
            return ""
        self._shown.append(seconds)
        recent = self._shown[-5:]
        remaining = self.steps - int(row["step"])
        return f"{duration(remaining * sum(recent) / len(recent))} left" if remaining > 0 else ""

    def _begin(self, phase: Phase) -> None:
        self._printed[phase] = phase.start
        if not self.live:
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description:<11}", style="cyan"),
                BarColumn(bar_width=None if self.rich.width < 100 else 40),
                _PhaseText(),
                console=self.rich,
                transient=True,
                expand=self.rich.width < 100,
                refresh_per_second=4,
            )
            self._progress.start()
        self._phases[phase] = self._progress.add_task(phase.name, total=phase.total, phase=phase)

    def _report(self, phase: Phase) -> None:
        if self._progress is not None and phase in self._phases:
            self._progress.update(self._phases[phase], completed=phase.done)
            return
        now = time.monotonic()
        if not self.live and now - self._printed[phase] >= self.every and phase.done != phase.total:
            self._printed[phase] = now
            self._print(
                Text("  ".join(part for part in (phase.name, phase.count(), phase.rate(), phase.left()) if part))
            )

    def _end(self, phase: Phase, verdict: str) -> None:
        self._printed.pop(phase)
        if self._progress is not None:
            self._progress.remove_task(self._phases.pop(phase))
            if not self._phases:
                self._progress.stop()
                self._progress = None
        count = f"{verdict} {phase.count()}".strip()
        rate = f" ({phase.rate()})" if phase.rate() else ""
        text = f"{phase.name:<11} {count} in {duration(phase.seconds)}{rate}"
        self._print(Text(text, style="red" if verdict else "dim"))

    def _rule(self, title: str, left: bool = False) -> Text:
        line = "─" if self.unicode else "-"
        width = max(0, self.rich.width - len(title) - 4)
        text = Text.assemble((line * 2 + " ", "dim"), (title, "bold"), (" " + line * width, "dim"))
        return text if left else Text("\n") + text

    def _print(self, *parts: Text | Table) -> None:
        for part in parts:
            if self.live:
                self.rich.print(part)
                continue
            with self.rich.capture() as capture:
                self.rich.print(part)
            lines = [line.rstrip() for line in capture.get().splitlines()]
            text = "\n".join(lines) + "\n"
            self.rich.file.write(text if self.unicode else text.encode("ascii", "replace").decode())
            self.rich.file.flush()


class _PhaseText(ProgressColumn):
    max_refresh = 0.25

    def render(self, task: Task) -> Text:
        phase: Phase = task.fields["phase"]
        return Text("  ".join(part for part in (phase.count(), phase.rate(), phase.left()) if part), no_wrap=True)


def sparkline(values: Iterable[float], unicode: bool = True) -> str:
    """One character per value between 0 (lowest block) and 1 (full block)."""
    blocks = _BLOCKS if unicode else _ASCII_BLOCKS
    return "".join(blocks[min(7, max(0, int(8 * value)))] for value in values)


def duration(seconds: float) -> str:
    """``0:24``, ``12:05`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _joined(parts: Iterable[str]) -> Text | None:
    kept = [part for part in parts if part]
    return Text(", ".join(kept)) if kept else None


def _format(row: Mapping[str, Any], column: str, template: str, scale: float = 1.0) -> str:
    value = number(row.get(column))
    return "" if value is None else template.format(scale * value)


def _failures(row: Mapping[str, Any]) -> list[str]:
    if row.get("n_episodes") and row.get("n_success") == row["n_episodes"]:
        reward = "none"
    else:
        reward = _format(row, "reward_failure_mean", "reward {:.2f}") + _format(row, "reward_failure_std", " ± {:.2f}")
    clusters = number(row.get("n_clusters"))
    return [
        reward,
        "" if clusters is None else f"{clusters:.0f} cluster{'' if clusters == 1 else 's'} of successes",
        _format(row, "groups_informative", "{:.0f} groups teach"),
        _format(row, "groups_skipped", "{:.0f} skipped"),
    ]


def _update(row: Mapping[str, Any]) -> list[str]:
    return [
        _format(row, "approx_kl", "KL {:.4f}"),
        _format(row, "clip_fraction", "clipped {:.1f} %", 100),
        _format(row, "entropy", "entropy {:.2f}"),
        _format(row, "grad_norm", "gradient {:.2g}"),
        _format(row, "ratio_max", "ratio up to {:.2g}"),
    ]


def _evaluation(row: Mapping[str, Any]) -> Text | None:
    successes, episodes = number(row.get("eval_successes")), number(row.get("eval_episodes"))
    if successes is None or not episodes:
        return None
    from srpo.evaluation.intervals import wilson

    low, high = wilson(int(successes), int(episodes))
    rate = 100 * successes / episodes
    return Text.assemble(
        (f"{rate:5.1f} %", "bold"),
        f"  {successes:.0f}/{episodes:.0f}  95 % interval {100 * low:.1f} to {100 * high:.1f}",
    )


def _speed(row: Mapping[str, Any]) -> list[str]:
    return [
        _format(row, "episodes_per_s", "{:.2f} episodes/s"),
        _format(row, "seconds_rollout", "rollout {:.1f} s"),
        _format(row, "seconds_update", "update {:.1f} s"),
    ]
