"""The checks of ``srpo doctor``: what they say of good and bad machines."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from srpo import doctor
from srpo.doctor import Check
from srpo.types import SrpoError

GIB = 2**30


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("3.3.0", "ok"),
        ("3.3.2", "ok"),
        ("3.3.3", "fail"),
        ("3.10.1", "fail"),
        ("4.0.0", "fail"),
        ("3.2.9", "fail"),
        ("2.3.7", "fail"),
    ],
)
def test_mujoco_range(version: str, status: str) -> None:
    check = doctor.judge_mujoco(version)
    assert check.status == status and version in check.detail
    assert ("mujoco>=3.3.0,<3.3.3" in check.remedy) == (status == "fail")


@pytest.mark.parametrize(("free", "status"), [(0.5, "fail"), (2, "warn"), (50, "ok")])
def test_disk(free: float, status: str) -> None:
    check = doctor.check_disk(int(free * GIB), Path("/cache"))
    assert check.status == status
    assert f"{free:.1f} GiB free in /cache" in check.detail


@pytest.mark.parametrize(
    ("available", "cores", "status", "remedy"),
    [
        (1, 2, "fail", "2 GiB"),
        (3.1, 8, "warn", "at most 2 "),
        (3.1, 2, "ok", ""),
        (1.6, 4, "warn", "at most 1 "),
    ],
)
def test_memory(available: float, cores: int, status: str, remedy: str) -> None:
    """(3.1 - 1.5) / 0.75 = 2.1 workers fit; one always does."""
    check = doctor.check_memory(int(available * GIB), cores)
    assert check.status == status and remedy in check.remedy


def test_missing_backbone_is_only_a_warning() -> None:
    assert doctor.judge_compact_policy([]).status == "ok"
    check = doctor.judge_compact_policy(["wordllama"])
    assert (check.status, check.remedy) == ("warn", 'pip install "srpo[compact]"')
    assert "wordllama" in check.detail


def test_missing_libero(monkeypatch: pytest.MonkeyPatch) -> None:
    from srpo.envs import libero_suites

    def missing(suite: str) -> list:
        raise SrpoError("LIBERO is not installed.")

    monkeypatch.setattr(libero_suites, "tasks", missing)
    assert doctor.check_libero().status == "fail"


@pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="needs MuJoCo")
def test_gl_that_does_not_exist() -> None:
    check = doctor.check_gl({**os.environ, "MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "nowhere"})
    assert check.status == "fail"
    assert check.detail.startswith("osmesa: ") and "libegl1" in check.remedy


def test_a_check_that_breaks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Check:
        raise OSError("libcuda.so: bad image")

    monkeypatch.setattr(doctor, "check_torch", broken)
    monkeypatch.setattr(doctor, "check_gl", lambda: Check("OpenGL", "ok", "drawn"))
    monkeypatch.setattr(doctor, "check_libero", lambda: Check("LIBERO", "ok", "there"))
    (torch,) = [check for check in doctor.run_checks() if check.name == "PyTorch"]
    assert torch.status == "fail" and "libcuda.so" in torch.detail and torch.remedy


@pytest.mark.parametrize(("statuses", "code"), [(("ok", "warn"), 0), (("ok", "fail"), 1)])
def test_exit_code_and_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, statuses: tuple[str, ...], code: int
) -> None:
    checks = [Check(f"thing {s}", s, "found", "" if s == "ok" else 'pip "srpo[x]"') for s in statuses]
    monkeypatch.setattr(doctor, "run_checks", lambda: checks)
    assert doctor.main() == code
    printed = capsys.readouterr().out
    assert all(f"thing {status}" in printed for status in statuses)
    assert "srpo[x]" in printed


@pytest.mark.skipif(importlib.util.find_spec("libero") is None, reason="needs LIBERO")
def test_this_machine() -> None:
    """Where the simulator's tests run, the doctor must find it in order."""
    found = {check.name: check for check in doctor.run_checks()}
    for name in ("OpenGL", "MuJoCo", "LIBERO", "PyTorch"):
        assert found[name].status == "ok", found[name]
    assert "130 tasks" in found["LIBERO"].detail
    assert all(check.status != "ok" or not check.remedy for check in found.values())
