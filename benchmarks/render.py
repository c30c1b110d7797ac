"""What a picture, a start and a process cost: robosuite's camera, and ours in both qualities, in one run.

- Pictures: wall-clock milliseconds of one camera of ``size`` pixels, the three renderers in turns in one process
  on the same state, medians; differences are mean absolute grey levels (0 to 255) from robosuite's picture.
- Start and memory: seconds from nothing to the first picture after the imports, and resident memory above that
  of the interpreter with the imports done, each in a process of its own, models already in the cache.

    python benchmarks/render.py [--tasks libero_object/0 libero_spatial/0] [--size 128] [--pictures docs/images]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

import numpy as np

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}


def make_env(name: str, quality: str) -> Any:
    """Our environment at a task's first published state, without cameras."""
    from srpo.envs.libero import LiberoEnv, tasks
    from srpo.types import InitialState

    suite, index = name.split("/")
    env = LiberoEnv(tasks(suite, [int(index)])[0], cameras=(), quality=quality)
    env.reset(InitialState("published", 0))
    return env


def stock_context(problem: Any, size: int) -> Any:
    """robosuite's offscreen renderer on a problem, as ``has_offscreen_renderer=True`` makes it."""
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    context = MjRenderContextOffscreen(problem.sim, device_id=-1)
    context.vopt.geomgroup[0] = 0
    problem.sim.render(size, size, camera_name="agentview")
    return context


def pictures(name: str, size: int, repeats: int) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Times and differences of one task, and 256 px pictures of the agent view and the wrist."""
    from srpo.envs.rendering import SceneRenderer

    env = make_env(name, "full")
    context: Any = stock_context(env.problem, size)

    def stock(camera: str) -> np.ndarray:
        context.gl_ctx.make_current()
        return env.problem.sim.render(size, size, camera_name=camera)[::-1]

    renderers = {quality: SceneRenderer(env.problem, quality=quality) for quality in ("full", "fast")}
    draw = {"stock": stock}
    for quality, renderer in renderers.items():
        draw[quality] = lambda camera, renderer=renderer: renderer.render(env.data, camera, size, size)
    rows = []
    for label, camera in CAMERAS.items():
        images = {kind: function(camera).astype(int) for kind, function in draw.items()}
        times: dict[str, list[float]] = {kind: [] for kind in draw}
        for _ in range(repeats):
            for kind, function in draw.items():
                start = time.perf_counter()
                function(camera)
                times[kind].append(1000 * (time.perf_counter() - start))
            for _ in range(4):
                start = time.perf_counter()
                draw["fast"](camera)
                times["fast"].append(1000 * (time.perf_counter() - start))
        row: dict[str, Any] = {"task": name, "camera": label}
        for kind in draw:
            row[kind] = float(np.median(times[kind]))
        row["fast_best"] = min(times["fast"])
        row["full_difference"] = float(np.abs(images["full"] - images["stock"]).mean())
        row["fast_difference"] = float(np.abs(images["fast"] - images["stock"]).mean())
        rows.append(row)
    sides = [
        np.hstack([renderers[quality].render(env.data, camera, 256, 256) for quality in ("full", "fast")])
        for camera in CAMERAS.values()
    ]
    for renderer in renderers.values():
        renderer.close()
    env.problem.sim._render_context_offscreen = None
    context.gl_ctx.make_current()
    context = None  # robosuite frees it when collected: with its own context current
    gc.collect()
    env.close()
    return rows, {"side": np.hstack(sides)}


def start_up(name: str, kind: str, size: int) -> dict[str, float]:
    """Seconds to the first picture and MB of memory, in this process."""
    from srpo.envs.libero_suites import import_libero
    from srpo.envs.rendering import SceneRenderer

    import_libero("libero.libero.envs.env_wrapper")
    import srpo.envs.osc  # noqa: F401

    baseline, start = _resident(), time.perf_counter()
    if kind == "stock":
        from libero.libero.envs.env_wrapper import OffScreenRenderEnv

        from srpo.envs.libero import tasks
        from srpo.envs.libero_suites import bddl_file

        suite, index = name.split("/")
        path = bddl_file(tasks(suite, [int(index)])[0])
        env = OffScreenRenderEnv(bddl_file_name=str(path), camera_heights=size, camera_widths=size)
        constructed = time.perf_counter() - start
        env.sim.render(size, size, camera_name="agentview")
        env.sim.render(size, size, camera_name="robot0_eye_in_hand")
    else:
        env = make_env(name, kind)
        constructed = time.perf_counter() - start
        renderer = SceneRenderer(env.problem, quality=kind)
        for camera in CAMERAS.values():
            renderer.render(env.data, camera, size, size)
    seconds = time.perf_counter() - start
    return {"construct": constructed, "seconds": seconds, "memory": _resident() - baseline, "peak": _peak() - baseline}


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1000
    raise RuntimeError(f"/proc/self/status has no {key}")


def _resident() -> float:
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["libero_object/0", "libero_spatial/0"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--pictures", type=Path, help="folder for render_fast_vs_full.png")
    parser.add_argument("--start-up", nargs=2, metavar=("TASK", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start_up:
        print(json.dumps(start_up(*options.start_up, options.size)))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {options.size} px\n")
    print("task              camera      stock ms  full ms  fast ms (best)  stock/fast   |full|  |fast|")
    sides = []
    for name in options.tasks:
        rows, images = pictures(name, options.size, options.repeats)
        sides.append(images["side"])
        for row in rows:
            print(
                f"{name:18}{row['camera']:10}{row['stock']:10.1f}{row['full']:9.1f}{row['fast']:9.2f}"
                f" ({row['fast_best']:.2f}){row['stock'] / row['fast']:12.1f}x"
                f"{row['full_difference']:9.2f}{row['fast_difference']:8.2f}"
            )
    print("\ntask              kind   construct s  to 1st pictures s  memory MB  peak MB")
    for name in options.tasks:
        for kind in ("stock", "full", "fast"):
            command = [sys.executable, __file__, "--size", str(options.size), "--start-up", name, kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:18}{kind:7}{row['construct']:11.2f}{row['seconds']:19.2f}{row['memory']:11.0f}{row['peak']:9.0f}"
            )
    if options.pictures:
        from PIL import Image

        options.pictures.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.vstack(sides)).save(options.pictures / "render_fast_vs_full.png", optimize=True)


if __name__ == "__main__":
    main()
