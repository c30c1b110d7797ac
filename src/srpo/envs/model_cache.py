"""Compiled MuJoCo models on disk: the same physics with visual meshes and textures that are cheap to draw.

Compiling a LIBERO scene takes seconds and its 4K textures and scanned meshes take gigabytes; neither touches the
physics, whose masses come from the collision shapes. :func:`load_model` compiles a scene once, replaces what is
only looked at, checks that everything that moves is the same to the last bit, and keeps the result in
``$SRPO_CACHE`` (or ``~/.cache/srpo``) as a file that loads in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from srpo.types import SrpoError

#: Bumped whenever the simplification changes, so that old files are not used.
_FORMAT = 3
_MAGIC = b"srpo-mjb\n"
_MARK = "srpo_visuals"
_TOLERANCE = 0.0005  # m
_MAX_FACES = 600
_TEXTURE_LIMIT = 512  # pixels

#: Arrays that describe what is looked at; for geoms, only those that do not collide.
_VISUAL = re.compile(r"^(mesh_|tex_|text_|name|bvh_|paths|body_bvh|signature)")
_GEOM_SHAPE = ("geom_pos", "geom_quat", "geom_size", "geom_aabb", "geom_rbound", "geom_sameframe")


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Where compiled models are kept: ``cache_dir``, else ``$SRPO_CACHE``, else ``~/.cache/srpo``."""
    if cache_dir is not None:
        return Path(cache_dir)
    return Path(os.environ.get("SRPO_CACHE", Path.home() / ".cache" / "srpo"))


@contextlib.contextmanager
def fast_construction(cache_dir: Path | None = None) -> Iterator[None]:
    """While active, robosuite's environments get their models from :func:`load_model`.

    The physics is that of the stock model to the last bit; the visual meshes and textures are the fast ones.

    Raises:
        SrpoError: robosuite is missing.
    """
    try:
        from robosuite.utils.binding_utils import MjSim
    except ImportError as error:
        raise SrpoError('robosuite is missing: pip install "srpo[libero]".') from error
    stock = MjSim.__dict__["from_xml_string"]
    MjSim.from_xml_string = classmethod(lambda cls, xml: cls(load_model(xml, cache_dir)))
    try:
        yield
    finally:
        MjSim.from_xml_string = stock


def is_fast(model: Any) -> bool:
    """Whether a model came from :func:`load_model`."""
    import mujoco

    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXT, _MARK) >= 0


def load_model(xml: str, cache_dir: Path | None = None) -> Any:
    """The model of ``xml`` with simplified visuals, from the cache if it is there.

    Args:
        xml: MJCF with absolute paths, as robosuite makes it.
        cache_dir: see :func:`cache_folder`.

    Returns:
        ``mujoco.MjModel``. Masses, inertias, collision shapes, joints and all numbering equal those of
        ``mujoco.MjModel.from_xml_string(xml)`` bit for bit.
    """
    path = cache_folder(cache_dir) / f"model-{_key(xml)}.mjb"
    model = _read(path)
    if model is None:
        with _alone(path):
            model = _read(path)  # another process may have built it meanwhile
            if model is None:
                model = build_fast_model(xml)
                _write(path, model)
    return model


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process at a time builds a model; without locks or a writable folder each builds its own."""
    try:
        import fcntl

        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except (ImportError, OSError):
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_fast_model(xml: str) -> Any:
    """Compile ``xml`` with simplified visual meshes and small textures (takes about ten seconds).

    Raises:
        SrpoError: the result would not have the same physics.
    """
    import mujoco

    full = mujoco.MjModel.from_xml_string(xml)
    spec = mujoco.MjSpec.from_string(xml)
    colliding = _colliding(full)
    kept = set(full.geom_dataid[colliding & (full.geom_type == mujoco.mjtGeom.mjGEOM_MESH)].tolist())
    for index in range(full.nmesh):
        if index not in kept:
            _replace_mesh(spec, full, index)
    for index, texture in enumerate(spec.textures):
        _replace_texture(texture, full, index)
    mark = spec.add_text()
    mark.name, mark.data = _MARK, "fast"
    fast = spec.compile()
    different = physics_differences(full, fast)
    if different:
        raise SrpoError(
            f'simplified pictures would change the physics of this scene ({", ".join(different)}): use quality="full".'
        )
    return fast


def physics_differences(a: Any, b: Any) -> list[str]:
    """Names of the ``mujoco.MjModel`` arrays that differ between two models and that motion depends on."""
    import mujoco

    different = []
    colliding = _colliding(a)
    for name in dir(mujoco.MjModel):
        if name.startswith("_") or _VISUAL.match(name):
            continue
        one, two = getattr(a, name, None), getattr(b, name, None)
        if not isinstance(one, np.ndarray) or not isinstance(two, np.ndarray):
            continue
        if one.shape == two.shape and name in _GEOM_SHAPE:
            one, two = one[colliding], two[colliding]
        if not np.array_equal(one, two):
            different.append(name)
    for body in range(min(a.nbody, b.nbody)):
        if not np.array_equal(_boxes(a, body), _boxes(b, body)):
            different.append(f"bvh of body {body}")
    return different


def _boxes(model: Any, body: int) -> np.ndarray:
    start, count = model.body_bvhadr[body], model.body_bvhnum[body]
    return model.bvh_aabb[start : start + count]


def _colliding(model: Any) -> np.ndarray:
    return (model.geom_contype | model.geom_conaffinity) != 0


def _replace_mesh(spec: Any, full: Any, index: int) -> None:
    import mujoco

    from srpo.envs import meshes

    name = mujoco.mj_id2name(full, mujoco.mjtObj.mjOBJ_MESH, index)
    simple = meshes.simplify(_mesh(full, index), _TOLERANCE, _MAX_FACES)
    vertices, normals, faces, texcoords = meshes.flatten(simple)
    mesh = spec.mesh(name)
    mesh.file = ""
    mesh.scale, mesh.refpos, mesh.refquat = [1, 1, 1], [0, 0, 0], [1, 0, 0, 0]
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL  # its frame is of no consequence, but must exist
    mesh.uservert, mesh.userface = vertices.ravel(), faces.ravel()
    mesh.usernormal = normals.ravel()
    if texcoords is not None:
        mesh.usertexcoord = texcoords.ravel()


def _mesh(model: Any, index: int) -> Any:
    """A :class:`srpo.envs.meshes.Mesh` of a compiled model, in the coordinates of its file."""
    import mujoco

    from srpo.envs import meshes

    def part(array: np.ndarray, address: np.ndarray, count: np.ndarray) -> np.ndarray:
        return array[address[index] : address[index] + count[index]]

    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.mesh_quat[index])
    turn = rotation.reshape(3, 3).T
    vertices = part(model.mesh_vert, model.mesh_vertadr, model.mesh_vertnum).astype(np.float64)
    normals = part(model.mesh_normal, model.mesh_normaladr, model.mesh_normalnum) @ turn
    corners = part(model.mesh_facenormal, model.mesh_faceadr, model.mesh_facenum)
    texcoords = None
    if model.mesh_texcoordadr[index] >= 0:
        values = part(model.mesh_texcoord, model.mesh_texcoordadr, model.mesh_texcoordnum)
        texcoords = values[part(model.mesh_facetexcoord, model.mesh_faceadr, model.mesh_facenum)]
    return meshes.Mesh(
        vertices @ turn + model.mesh_pos[index],
        part(model.mesh_face, model.mesh_faceadr, model.mesh_facenum),
        normals[corners],
        texcoords,
    )


def _replace_texture(texture: Any, full: Any, index: int) -> None:
    import mujoco

    from srpo.envs import meshes

    height, width, channels = full.tex_height[index], full.tex_width[index], full.tex_nchannel[index]
    start = full.tex_adr[index]
    pixels = full.tex_data[start : start + height * width * channels].reshape(height, width, channels)
    flat = full.tex_type[index] == mujoco.mjtTexture.mjTEXTURE_2D
    small = meshes.shrink(pixels, _TEXTURE_LIMIT, 1 if flat else height // width)
    if small is pixels and not texture.file:
        return  # generated, and small
    texture.file = ""
    texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_NONE
    texture.height, texture.width, texture.nchannel = small.shape
    texture.data = small.tobytes()


def _key(xml: str) -> str:
    """Hash of everything that the compiled model depends on."""
    import mujoco

    digest = hashlib.sha256()
    settings = (_FORMAT, mujoco.__version__, _TOLERANCE, _MAX_FACES, _TEXTURE_LIMIT)
    digest.update(repr(settings).encode() + xml.encode())
    for file in sorted(set(re.findall(r'file="([^"]+)"', xml))):
        path = Path(file)
        if path.is_file():
            status = path.stat()
            digest.update(f"{file} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _read(path: Path) -> Any:
    """The model in a file of the cache, or None if there is none or it is damaged."""
    import mujoco

    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    head = len(_MAGIC)
    body = content[head + 32 :]
    if content[:head] != _MAGIC or hashlib.sha256(body).digest() != content[head : head + 32]:
        return None
    return mujoco.MjModel.from_binary_path("model.mjb", {"model.mjb": body})


def _write(path: Path, model: Any) -> None:
    """Write under a temporary name and rename, so that other processes see all of the file or nothing."""
    import mujoco

    body = np.zeros(mujoco.mj_sizeModel(model), dtype=np.uint8)
    mujoco.mj_saveModel(model, None, body)
    content = body.tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(content).digest() + content)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise SrpoError(
            f"compiled models cannot be kept in {path.parent} ({error}): set SRPO_CACHE to a writable folder."
        ) from error
