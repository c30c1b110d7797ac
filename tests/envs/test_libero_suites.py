"""LIBERO's suites, tasks and initial states, and what is said when they are missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")

from srpo.envs import libero, libero_suites
from srpo.types import SrpoError, Task

needs_libero = pytest.mark.skipif(importlib.util.find_spec("libero") is None, reason="needs LIBERO")


@needs_libero
@pytest.mark.parametrize(
    ("suite", "count", "limit"),
    [
        ("libero_spatial", 10, 220),
        ("libero_object", 10, 280),
        ("libero_goal", 10, 300),
        ("libero_10", 10, 520),
        ("libero_90", 90, 400),
    ],
)
def test_suites(suite: str, count: int, limit: int) -> None:
    tasks = libero.tasks(suite)
    assert [task.index for task in tasks] == list(range(count))
    assert {task.max_steps for task in tasks} == {limit}
    assert len({task.instruction for task in tasks}) > 0.8 * count  # libero_90 repeats some in other scenes
    for task in tasks:
        assert task.instruction == task.instruction.strip().lower() and "_" not in task.instruction
        assert "scene" not in task.instruction


@needs_libero
def test_instructions_and_selection() -> None:
    assert [t.instruction for t in libero.tasks("libero_goal", [7, 0])] == [
        "turn on the stove",
        "open the middle drawer of the cabinet",
    ]
    (long,) = libero.tasks("libero_10", [0])
    assert long.instruction == "put both the alphabet soup and the tomato sauce in the basket"
    assert libero.tasks("libero_90", [3])[0].id == "libero_90/3"


@needs_libero
def test_published_initial_states() -> None:
    for suite in libero.SUITES:
        states = libero.published_initial_states(libero.tasks(suite, [1])[0])
        assert states.dtype == np.float64 and states.shape[0] == 50
        assert len(np.unique(states, axis=0)) == 50


@needs_libero
def test_what_does_not_exist() -> None:
    with pytest.raises(SrpoError, match="libero_spatial, libero_object"):
        libero.tasks("libero_long")
    with pytest.raises(SrpoError, match="choose from 0 to 9"):
        libero.tasks("libero_goal", [10])
    with pytest.raises(SrpoError, match="choose from 0 to 9"):
        libero.published_initial_states(Task("libero_goal", -1, "", "", 1))


def test_import_without_libero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SrpoError, match=r'pip install "srpo\[libero\]"'):
        libero.tasks("libero_spatial")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (AttributeError("'NoneType' object has no attribute 'eglQueryString'"), "apt install libegl1"),
        (ImportError("No module named 'bddl'"), r'pip install "srpo\[libero\]"'),
    ],
)
def test_import_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception, remedy: str) -> None:
    def fail(name: str) -> Any:
        raise error

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(SrpoError, match=remedy):
        libero_suites.import_libero("libero.libero.envs")


def test_upstream_is_configured_without_questions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Upstream's import asks on standard input where its files are, unless a configuration says so."""
    package = tmp_path / "site" / "libero"
    (package / "libero" / "assets").mkdir(parents=True)
    specs = {"libero": SimpleNamespace(submodule_search_locations=[str(package)])}
    monkeypatch.setattr(importlib.util, "find_spec", specs.get)
    monkeypatch.delitem(sys.modules, "libero.libero", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path / "nothing"))
    libero_suites._configure_upstream()
    lines = (Path(os.environ["LIBERO_CONFIG_PATH"]) / "config.yaml").read_text().splitlines()
    assert f"init_states: {package}/libero/init_files" in lines
    assert f"assets: {package}/libero/assets" in lines


def test_both_formats_of_initial_states(tmp_path: Path) -> None:
    import torch

    states = np.arange(6.0).reshape(2, 3)
    torch.save(states, tmp_path / "upstream.pruned_init")
    np.savez(tmp_path / "pro.pruned_init.npz", states=states)
    for name in ("upstream", "pro"):
        np.testing.assert_array_equal(libero_suites._load_states(tmp_path / f"{name}.pruned_init"), states)
    with pytest.raises(SrpoError, match="missing"):
        libero_suites._load_states(tmp_path / "none.pruned_init")
