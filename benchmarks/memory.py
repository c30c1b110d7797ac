"""Memory of all processes that this one has started, shared pages counted once (Linux)."""

from __future__ import annotations

import os
from pathlib import Path


def descendants_memory() -> int:
    """Sum of the proportional set sizes of this process's descendants, in bytes."""
    parents, total = {}, 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    wanted = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    for pid in wanted - {os.getpid()}:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total
