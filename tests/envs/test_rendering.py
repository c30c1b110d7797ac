"""Pictures and compiled models: against robosuite's own, and on a scene small enough to know by heart."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")
mujoco = pytest.importorskip("mujoco")

from srpo.envs import model_cache, rendering  # noqa: E402
from srpo.envs.rendering import Quality, SceneRenderer  # noqa: E402
from srpo.types import InitialState, SrpoError  # noqa: E402

_TINY = """
<mujoco>
  <asset><mesh name="stone" file="{mesh}"/></asset>
  <worldbody>
    <light pos="0 0 3" dir="0 0 -1"/>
    <camera name="above" pos="0 0 2" fovy="45"/>
    <camera name="aside" pos="2 0 0" xyaxes="0 1 0 0 0 1"/>
    <body name="stone" pos="0.4 0.4 0">
      <freejoint/>
      <geom name="shape" type="box" size=".1 .1 .1" mass="1" group="0"/>
      <geom name="look" type="mesh" mesh="stone" mass="0" contype="0" conaffinity="0" group="1" rgba="1 0 0 1"/>
    </body>
  </worldbody>
</mujoco>
"""
_CUBE = """
v -.1 -.1 -.1\nv .1 -.1 -.1\nv .1 .1 -.1\nv -.1 .1 -.1\nv -.1 -.1 .1\nv .1 -.1 .1\nv .1 .1 .1\nv -.1 .1 .1
f 1 4 3 2\nf 5 6 7 8\nf 1 2 6 5\nf 2 3 7 6\nf 3 4 8 7\nf 4 1 5 8
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRPO_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def tiny_xml(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scene") / "stone.obj"
    path.write_text(_CUBE.replace("\\n", "\n"))
    return _TINY.format(mesh=path)


def _problem(model: Any, xml: str) -> Any:
    return SimpleNamespace(
        sim=SimpleNamespace(model=SimpleNamespace(_model=model)), model=SimpleNamespace(get_xml=lambda: xml)
    )


@pytest.fixture
def tiny(tiny_xml: str) -> Any:
    return _problem(mujoco.MjModel.from_xml_string(tiny_xml), tiny_xml)


def _data(problem: Any) -> Any:
    model = problem.sim.model._model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data


def _coloured(image: np.ndarray, channel: int) -> np.ndarray:
    return image[..., channel].astype(int) - image[..., 1 - channel] > 60


@pytest.mark.parametrize("quality", ["full", "fast"])
def test_picture_is_upright_unmirrored_and_follows_the_physics(tiny, quality):
    data = _data(tiny)
    renderer = SceneRenderer(tiny, quality=quality)
    image = renderer.render(data, "above", 40, 60)
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8
    red = _coloured(image, 0)
    rows, columns = np.nonzero(red)
    # 45 degrees over 40 rows from 2 m: 24 pixels a metre in the object's plane, so centred near (10, 40)
    assert abs(rows.mean() - 9.5) < 2 and abs(columns.mean() - 39.5) < 2
    data.qpos[:2] = -0.4
    mujoco.mj_forward(tiny.sim.model._model, data)
    moved = renderer.render(data, "above", 40, 60)
    rows, columns = np.nonzero(_coloured(moved, 0))
    assert abs(rows.mean() - 29.5) < 2 and abs(columns.mean() - 19.5) < 2
    unchanged = ~red & ~_coloured(moved, 0)
    assert np.abs(moved[unchanged].astype(int) - image[unchanged]).mean() < 2
    renderer.close()


def test_changed_colours_are_seen_and_the_physics_model_is_not_touched(tiny):
    model, data = tiny.sim.model._model, _data(tiny)
    renderer = SceneRenderer(tiny, quality="fast")
    renderer.render(data, "above", 40, 40)
    assert model.vis.quality.offsamples == 4 and model.vis.quality.shadowsize == 4096
    model.geom_rgba[1] = [0, 1, 0, 1]
    image = renderer.render(data, "above", 40, 40)
    renderer.close()
    assert _coloured(image, 1).sum() > 10 and not _coloured(image, 0).any()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("full", Quality(False, True, True, True)),
        ("fast", Quality(True, False, False, False)),
        ("fast+reflections", Quality(True, False, True, False)),
        ("full-shadows-multisampling", Quality(False, False, True, False)),
        ("full-shadows+shadows", Quality(False, True, True, True)),
    ],
)
def test_quality_as_text(text, expected):
    assert Quality.parse(text) == expected


@pytest.mark.parametrize(("gpus", "meant"), [(0, "fast"), (2, "full")])
def test_automatic_quality_is_full_only_where_a_gpu_draws(monkeypatch, gpus, meant):
    monkeypatch.setattr(rendering, "hardware_devices", lambda: gpus)
    assert Quality.parse("auto") == Quality.parse(meant)
    assert Quality.parse("auto-shadows") == Quality.parse(meant + "-shadows")


@pytest.mark.parametrize("text", ["", "medium", "fast+", "fast shadows", "full-fog", "fast+Reflections"])
def test_unknown_quality_names_the_choices(text):
    with pytest.raises(SrpoError, match=r"full, fast or auto.*multisampling, reflections, shadows"):
        Quality.parse(text)


_SHINY = """
<mujoco>
  <asset><material name="mirror" reflectance="0.8" rgba=".5 .5 .5 1"/></asset>
  <worldbody>
    <light pos="1 0 3" dir="-.3 0 -1" directional="true"/>
    <camera name="aside" pos="2 0 1" xyaxes="0 1 0 -.45 0 .9"/>
    <geom name="floor" type="plane" group="1" size="3 3 .1" material="mirror"/>
    <geom name="look" type="box" size=".2 .2 .2" pos="0 0 .5" euler="0 0 20" group="1" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>
"""


def test_each_effect_is_seen_and_can_be_left_out():
    scene = _problem(mujoco.MjModel.from_xml_string(_SHINY), _SHINY)
    data, pictures = _data(scene), {}
    for quality in ("full", "full-shadows", "full-reflections", "full-multisampling"):
        renderer = SceneRenderer(scene, quality=quality)
        pictures[quality] = renderer.render(data, "aside", 96, 96).astype(int)
        renderer.close()
    full = pictures["full"]
    assert pictures["full-shadows"].mean() > full.mean() + 0.1
    red = {name: _coloured(image, 0).sum() for name, image in pictures.items()}
    assert red["full-reflections"] < 0.8 * red["full"]  # the box's mirror image is gone
    jagged = pictures["full-multisampling"]
    assert len(np.unique(jagged.reshape(-1, 3), axis=0)) < len(np.unique(full.reshape(-1, 3), axis=0))


def test_sizes_change_freely_and_the_picture_does_not_depend_on_their_order(tiny):
    data = _data(tiny)
    renderer = SceneRenderer(tiny, quality="fast")
    before = renderer.render(data, "above", 64, 64)
    assert renderer.render(data, "aside", 1000, 700).shape == (1000, 700, 3)
    np.testing.assert_array_equal(renderer.render(data, "above", 64, 64), before)
    renderer.close()


def test_two_renderers_at_once_do_not_draw_over_each_other(tiny):
    data = _data(tiny)
    one, two = SceneRenderer(tiny, quality="full"), SceneRenderer(tiny, quality="fast")
    images = [one.render(data, "above", 40, 60), two.render(data, "above", 80, 80), one.render(data, "above", 40, 60)]
    assert _coloured(images[0], 0).any() and _coloured(images[1], 0).any()
    np.testing.assert_array_equal(images[0], images[2])
    two.close()
    np.testing.assert_array_equal(one.render(data, "above", 40, 60), images[0])
    one.close()


def test_errors_are_sentences_and_closing_twice_is_harmless(tiny):
    data = _data(tiny)
    renderer = SceneRenderer(tiny)
    with pytest.raises(SrpoError, match=r"'front'.*above, aside"):
        renderer.render(data, "front", 8, 8)
    with pytest.raises(SrpoError, match="at least one pixel"):
        renderer.render(data, "above", 0, 8)
    renderer.close()
    renderer.close()
    with pytest.raises(SrpoError, match="closed"):
        renderer.render(data, "above", 8, 8)
    with pytest.raises(SrpoError, match="full, fast or auto"):
        SceneRenderer(tiny, quality="medium")


def test_a_renderer_left_open_ends_quietly_with_the_interpreter(tiny_xml):
    code = f"""
import mujoco
from types import SimpleNamespace as N
from srpo.envs.rendering import SceneRenderer
xml = {tiny_xml!r}
model = mujoco.MjModel.from_xml_string(xml)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
problem = N(sim=N(model=N(_model=model)), model=N(get_xml=lambda: xml))
renderer = SceneRenderer(problem)
print(renderer.render(data, "above", 8, 8).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(8, 8, 3)\n", "")


def test_cache_is_used_rebuilt_when_damaged_and_keyed_by_files(tiny_xml, tmp_path, monkeypatch):
    built = []
    build = model_cache.build_fast_model
    monkeypatch.setattr(model_cache, "build_fast_model", lambda xml: built.append(xml) or build(xml))
    first = model_cache.load_model(tiny_xml, tmp_path)
    again = model_cache.load_model(tiny_xml, tmp_path)
    assert len(built) == 1 and model_cache.is_fast(again)
    assert model_cache.physics_differences(first, again) == []
    (file,) = tmp_path.glob("*.mjb")
    content = bytearray(file.read_bytes())
    for damage in (content[:-5], b"", content[:200] + bytes([content[200] ^ 255]) + content[201:]):
        file.write_bytes(bytes(damage))
        model = model_cache.load_model(tiny_xml, tmp_path)
        assert model_cache.physics_differences(first, model) == []
    assert len(built) == 4
    mesh = Path(tiny_xml.split('file="')[1].split('"')[0])
    os.utime(mesh, (1, 1))
    model_cache.load_model(tiny_xml, tmp_path)
    assert len(built) == 5
    assert not list(tmp_path.glob("*.tmp"))


def test_a_model_is_built_by_one_process_while_others_wait(tiny_xml, tmp_path, monkeypatch):
    built = []

    def build(xml):
        built.append(time.perf_counter())
        time.sleep(0.3)
        return original(xml)

    original = model_cache.build_fast_model
    monkeypatch.setattr(model_cache, "build_fast_model", build)
    with ThreadPoolExecutor(3) as threads:  # flock keeps apart open files, so threads do for processes
        models = list(threads.map(lambda _: model_cache.load_model(tiny_xml, tmp_path), range(3)))
    assert len(built) == 1 and all(model_cache.is_fast(m) for m in models)


def test_unwritable_cache_says_what_to_do(tiny_xml, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SrpoError, match="SRPO_CACHE"):
        model_cache.load_model(tiny_xml, tmp_path / "file" / "below")


def test_physics_differences_name_what_differs(tiny_xml):
    stock = mujoco.MjModel.from_xml_string(tiny_xml)
    heavier = mujoco.MjModel.from_xml_string(tiny_xml.replace('mass="1"', 'mass="2"'))
    assert "body_mass" in model_cache.physics_differences(stock, heavier)
    assert model_cache.physics_differences(stock, model_cache.build_fast_model(tiny_xml)) == []


libero = pytest.mark.skipif(importlib.util.find_spec("libero") is None, reason="needs LIBERO")


def _env(suite: str, fast: bool) -> Any:
    from srpo.envs.libero import LiberoEnv, tasks

    env = LiberoEnv(tasks(suite, [0])[0], cameras=(), quality="fast" if fast else "full", settle_steps=0)
    env.reset(InitialState("published", 0))
    return env


@libero
def test_object_task_full_is_robosuites_picture_and_fast_physics_is_stock_physics():
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    stock, fast = _env("libero_object", fast=False), _env("libero_object", fast=True)
    assert model_cache.is_fast(fast.model) and not model_cache.is_fast(stock.model)
    assert model_cache.physics_differences(stock.model, fast.model) == []
    context = MjRenderContextOffscreen(stock.problem.sim, device_id=-1)
    context.vopt.geomgroup[0] = 0
    pictures = {}
    for camera in ("agentview", "robot0_eye_in_hand"):
        pictures[camera] = stock.problem.sim.render(64, 64, camera_name=camera)[::-1]
    # robosuite frees its context when collected, under whichever one is current then: before ours exists
    stock.problem.sim._render_context_offscreen = None
    del context
    gc.collect()
    full, quick = SceneRenderer(stock.problem), SceneRenderer(fast.problem, quality="fast")
    for camera, picture in pictures.items():
        image = full.render(stock.data, camera, 64, 64)
        assert np.abs(image.astype(int) - picture).max() <= 2
        assert np.abs(quick.render(fast.data, camera, 64, 64).astype(int) - image).mean() < 6
    full.close()
    _same_rollout(stock, fast)
    fast.problem.sim.forward()
    before = quick.render(fast.data, "agentview", 64, 64)
    joint = fast.problem.objects_dict["basket_1"].joints[0]
    pose = fast.problem.sim.data.get_joint_qpos(joint).copy()
    pose[2] += 1.0  # out of the picture
    fast.problem.sim.data.set_joint_qpos(joint, pose)
    fast.problem.sim.forward()
    changed = np.abs(quick.render(fast.data, "agentview", 64, 64).astype(int) - before).max(axis=2) > 12
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 50 and columns.min() > 38 and 20 < rows.mean() < 40  # the basket stands on the right
    quick.close()
    stock.close()
    fast.close()


def _same_rollout(one: Any, two: Any) -> None:
    """200 substeps of random torques give the same positions and velocities to the last bit."""
    random = np.random.default_rng(0)
    for env in (one, two):
        mujoco.mj_resetData(env.model, env.data)
        env.problem.sim.set_state_from_flattened(env._published[0])
    for _ in range(200):
        torques = random.uniform(-20, 20, one.model.nu)
        for env in (one, two):
            env.data.ctrl[:] = torques
            mujoco.mj_step(env.model, env.data)
    assert one.data.ncon > 0
    np.testing.assert_array_equal(one.data.qpos, two.data.qpos)
    np.testing.assert_array_equal(one.data.qvel, two.data.qvel)


@libero
def test_spatial_task_looks_alike_in_both_qualities():
    env = _env("libero_spatial", fast=True)
    full, fast = SceneRenderer(env.problem, quality="full"), SceneRenderer(env.problem, quality="fast")
    for camera in ("agentview", "robot0_eye_in_hand"):
        images = [r.render(env.data, camera, 128, 128).astype(int) for r in (full, fast)]
        assert 0 < np.abs(images[0] - images[1]).mean() < 5  # measured: 3.8 and 3.3
        assert np.abs(images[0] - np.roll(images[1], 32, axis=1)).mean() > 12
    full.close()
    fast.close()
    env.close()
