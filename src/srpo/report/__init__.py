"""What a run did, for people: a single-file HTML report, plots and videos."""

from __future__ import annotations

from pathlib import Path


def write_report(run: str | Path) -> Path:
    """Write ``report.html`` into a run folder, see `srpo.report.html.write_report`."""
    from srpo.report import html

    return html.write_report(run)


__all__ = ["write_report"]
