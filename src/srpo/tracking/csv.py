"""A table of metrics that survives a kill: one row per RL step, plain CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from srpo.types import SrpoError

Cell = int | float | str | None


class CsvLogger:
    """Appends rows to a CSV file.

    The first row fixes the header. A later row with new columns has the file rewritten (under a temporary
    name, then renamed) with those columns at the end; older rows have empty cells there. A last line that was
    cut short by a kill is dropped when the file is opened again.

    Args:
        path: the file; it is continued when it exists, and its folder is made when it does not.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._columns: list[str] = []
        if self.path.is_file():
            text = self.path.read_bytes().decode("utf-8", errors="replace")
            whole = text[: text.rfind("\n") + 1]
            self._columns, rows = _parse(whole.splitlines(), self.path)
            if whole != text:
                self._rewrite(rows)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row and flush it.

        Args:
            row: column -> number, bool (written 1 or 0), one-line string, or None (an empty cell).

        Raises:
            SrpoError: for an empty row, or a name or value that does not fit in one cell of one line.
        """
        cells = {_column(name): _cell(name, value) for name, value in row.items()}
        if not cells:
            raise SrpoError(f"An empty row cannot be logged to {self.path}; pass at least one column.")
        new = [name for name in cells if name not in self._columns]
        if new:
            old = self._columns
            self._columns = [*old, *new]
            self._rewrite(_parse(self.path.read_text().splitlines(), self.path)[1] if old else [])
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow([cells.get(name, "") for name in self._columns])

    def resume(self, step: int) -> None:
        """Drop the rows whose ``step`` is larger than ``step``: a resumed run will write them again."""
        if not self._columns:
            return
        if "step" not in self._columns:
            raise SrpoError(f"{self.path} has no column 'step', so it cannot be resumed; move it away.")
        _, rows = _parse(self.path.read_text(encoding="utf-8").splitlines(), self.path)
        self._rewrite(row for row in rows if float(row["step"] or "inf") <= step)

    def rows(self) -> list[dict[str, Cell]]:
        """The rows so far, see `read_csv`."""
        return read_csv(self.path) if self._columns else []

    def close(self) -> None:
        """Nothing stays open between rows; here because every logger has it."""

    def _rewrite(self, rows: Iterable[Mapping[str, str]]) -> None:
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if self._columns:
                writer.writerow(self._columns)
            writer.writerows([row.get(name, "") for name in self._columns] for row in rows)
        partial.replace(self.path)


def read_csv(path: str | Path) -> list[dict[str, Cell]]:
    """Read a metrics file.

    Returns:
        One dict per row with all columns: int or float where the cell reads as a number (``nan`` and ``inf``
        do), None where it is empty, else the string.

    Raises:
        SrpoError: the file is missing or a row has too many or too few cells.
    """
    path = Path(path)
    if not path.is_file():
        raise SrpoError(f"There are no metrics at {path}; give the folder of a run that has begun training.")
    _, rows = _parse(path.read_text(encoding="utf-8").splitlines(), path)
    return [{name: _value(cell) for name, cell in row.items()} for row in rows]


def _parse(lines: list[str], path: Path) -> tuple[list[str], list[dict[str, str]]]:
    records = list(csv.reader(lines))
    if not records:
        return [], []
    header, *body = records
    for number, record in enumerate(body, start=2):
        if len(record) != len(header):
            raise SrpoError(
                f"{path} line {number} has {len(record)} cells, its header {len(header)}; mend or remove it."
            )
    return header, [dict(zip(header, record, strict=True)) for record in body]


def _column(name: str) -> str:
    if not name or len(name.splitlines()) != 1:
        raise SrpoError(f"A column needs a name of one line, got {name!r}.")
    return name


def _cell(name: str, value: Any) -> str:
    if hasattr(value, "item"):
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and len(value.splitlines()) <= 1 and value == value.rstrip("\r\n"):
        return value
    raise SrpoError(f"Column {name!r} takes a number or a string of one line, got {value!r:.60}.")


def _value(cell: str) -> Cell:
    if cell == "":
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def number(value: Any) -> float | None:
    """A finite number, or None for an empty, textual or non-finite cell."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
