"""Camera pictures of a LIBERO scene, by software OpenGL: LIBERO's own, or ten times faster ones that look the same.

``"full"`` is robosuite's picture: original meshes and textures, multisampling, reflections. ``"fast"`` draws the
simplified meshes and textures of :mod:`srpo.envs.model_cache` without multisampling and reflections. Where the
physics already runs on the wanted visuals (``fast_construction``), its own model and data are drawn; otherwise a
*visual twin* of the model is kept, which takes over poses and colours from the physics before each picture and
never gives anything back.
"""

from __future__ import annotations

import atexit
import os
import re
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from srpo.envs.model_cache import is_fast, load_model
from srpo.types import SrpoError

_GL_REMEDY = (
    "install a software OpenGL (apt install libegl1 libegl-mesa0 libgl1-mesa-dri) and set MUJOCO_GL=egl,"
    " or install libosmesa6 and set MUJOCO_GL=osmesa"
)
_MAX_GEOMS = 1000

#: What may be changed in a model after its construction and is seen in a picture.
_APPEARANCE = (
    *("body_pos", "body_quat", "geom_rgba", "geom_matid", "mat_rgba", "mat_emission", "mat_specular"),
    *("mat_shininess", "site_rgba", "site_pos", "site_quat", "site_size", "cam_pos", "cam_quat", "cam_fovy"),
    *("light_pos", "light_dir", "light_active", "light_diffuse", "light_ambient", "light_specular"),
)

_EFFECTS = ("multisampling", "reflections", "shadows")


@dataclass(frozen=True)
class Quality:
    """What a picture is made of.

    Attributes:
        simplified: draw the simplified meshes and textures.
        multisampling: smooth edges (four samples a pixel).
        reflections: of the stove, the plates and other shiny things.
        shadows: of the lights that cast them.
    """

    simplified: bool
    multisampling: bool
    reflections: bool
    shadows: bool

    @classmethod
    def parse(cls, text: str) -> Quality:
        """Read ``"full"`` (all effects), ``"fast"`` (simplified, no effects), either with effects switched on or off,
        as in ``"fast+reflections"`` or ``"full-shadows-multisampling"``, or ``"auto"``: full where a GPU draws, fast
        in software.

        Raises:
            SrpoError: the text is none of these.
        """
        words = re.fullmatch(r"(auto|full|fast)((?:[+-][a-z]+)*)", text)
        effects = re.findall(r"([+-])([a-z]+)", words[2]) if words else []
        if words is None or any(name not in _EFFECTS for _, name in effects):
            raise SrpoError(
                f"there is no picture quality {text!r}: choose full, fast or auto, and if you like"
                f" +EFFECT or -EFFECT after it, with {', '.join(_EFFECTS)}."
            )
        fast = words[1] == "fast" or (words[1] == "auto" and not hardware_devices())
        quality = cls(fast, not fast, not fast, not fast)
        return replace(quality, **{name: sign == "+" for sign, name in effects})


def hardware_devices() -> int:
    """Number of GPUs that could draw (render nodes of the kernel; 0: OpenGL is software)."""
    nvidia = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return nvidia or len(list(Path("/dev/dri").glob("renderD*")))


_context: Any = None  # one OpenGL context for all renderers of this process
_context_owner = 0  # that process; a forked child must not draw with its parent's context
_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


class SceneRenderer:
    """Draws the cameras of one environment.

    Args:
        problem: robosuite environment; its ``sim.model._model`` is the physics model.
        quality: see `Quality.parse`.
        cache_dir: where compiled models are kept; see :func:`srpo.envs.model_cache.cache_folder`.

    Software OpenGL uses all cores for each picture unless ``LP_NUM_THREADS`` says otherwise; it is set to 1 if it
    is not set, as several processes draw at the same time.

    Raises:
        SrpoError: the quality is unknown, or OpenGL is missing.
    """

    def __init__(self, problem: Any, *, quality: str = "full", cache_dir: Path | None = None) -> None:
        import mujoco

        chosen = Quality.parse(quality)
        self._physics = problem.sim.model._model
        self._twin_data: Any = None
        self._model = self._physics
        if is_fast(self._physics) != chosen.simplified:
            xml = problem.model.get_xml()
            self._model = load_model(xml, cache_dir) if chosen.simplified else mujoco.MjModel.from_xml_string(xml)
            _check_twin(self._physics, self._model)
            self._twin_data = mujoco.MjData(self._model)
        _gl_context().make_current()
        self._scene = mujoco.MjvScene(self._model, maxgeom=_MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0  # collision shapes
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._perturb = mujoco.MjvPerturb()
        self._pixels = _pixel_context(self._model, chosen)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] &= chosen.reflections
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] &= chosen.shadows
        self._cameras = {
            mujoco.mj_id2name(self._model, mujoco.mjtObj.mjOBJ_CAMERA, index): index
            for index in range(self._model.ncam)
        }
        _open.add(self)

    def render(self, data: Any, camera: str, height: int, width: int) -> np.ndarray:
        """Picture of the scene in the state of ``data``.

        Args:
            data: ``mujoco.MjData`` of the physics, with positions computed (``mj_forward``).
            camera: name of a camera of the model, for example ``"agentview"`` or ``"robot0_eye_in_hand"``.
            height: pixels.
            width: pixels.

        Returns:
            (height, width, 3) uint8 RGB, upright and not mirrored.

        Raises:
            SrpoError: no such camera, no such size, or the renderer is closed.
        """
        import mujoco

        if self._pixels is None:
            raise SrpoError("this renderer is closed: make a new SceneRenderer.")
        if camera not in self._cameras:
            raise SrpoError(f"there is no camera {camera!r}: choose from {', '.join(self._cameras)}.")
        if height < 1 or width < 1:
            raise SrpoError(f"a picture needs at least one pixel, not {height} x {width}.")
        _gl_context().make_current()
        if width > self._pixels.offWidth or height > self._pixels.offHeight:
            size = max(width, self._pixels.offWidth), max(height, self._pixels.offHeight)
            mujoco.mjr_resizeOffscreen(*size, self._pixels)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._pixels)  # other renderers have theirs
        if self._twin_data is not None:
            data = self._follow(data)
        self._camera.fixedcamid = self._cameras[camera]
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._option, self._perturb, self._camera, everything, self._scene)
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, self._scene, self._pixels)
        image = np.empty((height, width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(image, None, viewport, self._pixels)
        return np.ascontiguousarray(image[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Release what the renderer holds; closing twice does no harm."""
        if self._pixels is not None:
            _gl_context().make_current()
            self._pixels.free()
            self._pixels = None
            self._twin_data = None
            _open.discard(self)

    def _follow(self, data: Any) -> Any:
        """Bring the twin into the pose and colours of the physics."""
        import mujoco

        for name in _APPEARANCE:
            getattr(self._model, name)[:] = getattr(self._physics, name)
        twin = self._twin_data
        twin.qpos[:] = data.qpos
        twin.mocap_pos[:], twin.mocap_quat[:] = data.mocap_pos, data.mocap_quat
        mujoco.mj_kinematics(self._model, twin)
        mujoco.mj_comPos(self._model, twin)
        mujoco.mj_camlight(self._model, twin)
        return twin


def _check_twin(physics: Any, twin: Any) -> None:
    for name in ("nq", "nbody", "ngeom", "nsite", "ncam", "nlight", "nmat"):
        if getattr(physics, name) != getattr(twin, name):
            raise SrpoError(
                f"the scene has changed since its XML was written ({name} is {getattr(physics, name)}, not"
                f" {getattr(twin, name)}): construct the environment anew."
            )


def _gl_context() -> Any:
    """The OpenGL context of this process; made when first needed, released at exit."""
    global _context, _context_owner
    if _context is None or _context_owner != os.getpid():
        os.environ.setdefault("LP_NUM_THREADS", "1")
        import mujoco

        try:
            _context = mujoco.GLContext(64, 64)  # pictures go to a framebuffer of their own, of any size
            _context.make_current()
        except (ImportError, AttributeError, RuntimeError, OSError) as error:
            _context = None
            raise SrpoError(f"OpenGL cannot be started ({error}): {_GL_REMEDY}.") from error
        _context_owner = os.getpid()
        atexit.register(_free_context)
    return _context


def _free_context() -> None:
    """At exit: whatever was not closed, then the context itself."""
    global _context
    if _context is None or _context_owner != os.getpid():
        return
    from OpenGL.error import Error

    try:
        for renderer in list(_open):
            renderer.close()
        _context.free()
    except Error:  # another library has shut down OpenGL's display before us, and all that was on it
        for renderer in list(_open):
            renderer._pixels = None
        _context._context = None  # or its destructor would complain
    _context = None


def _pixel_context(model: Any, chosen: Quality) -> Any:
    """Upload a model to OpenGL; the model's own settings are left as they were."""
    import mujoco

    quality = model.vis.quality
    stock = quality.offsamples, quality.shadowsize
    quality.offsamples *= chosen.multisampling
    quality.shadowsize *= chosen.shadows
    try:
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    except mujoco.FatalError as error:
        raise SrpoError(f"OpenGL cannot draw this scene ({error}): {_GL_REMEDY}.") from error
    finally:
        quality.offsamples, quality.shadowsize = stock
