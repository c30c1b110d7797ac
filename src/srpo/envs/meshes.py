"""Fewer triangles and smaller textures that look the same: what the fast pictures are made of.

Meshes are simplified by :mod:`srpo.envs.mesh_kernel` until they would leave the original by more than a tolerance.
The vertices that remain keep their places and texture coordinates, so the print stays as it is; normals are computed
anew, as those of many small triangles at a rounded edge would shade a large one wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array

from srpo.types import SrpoError

_CREASE = 0.75  # cosine of the angle between faces above which an edge is drawn sharp


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh; every face corner has its own normal and texture coordinate.

    Attributes:
        vertices: (V, 3) float, metres.
        faces: (F, 3) int, indices into ``vertices``.
        normals: (F, 3, 3) float, unit normal of each corner.
        texcoords: (F, 3, 2) float, texture coordinate of each corner, or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    texcoords: np.ndarray | None = None


def simplify(mesh: Mesh, tolerance: float, max_faces: int) -> Mesh:
    """A mesh with fewer faces; textures keep their seams.

    Args:
        mesh: the original.
        tolerance: error (m, see :func:`srpo.envs.mesh_kernel.collapse`) below which every edge is collapsed.
        max_faces: aim; above it, errors up to five times the tolerance are accepted.

    Raises:
        SrpoError: numba is missing.
    """
    try:
        from srpo.envs.mesh_kernel import collapse
    except ImportError as error:
        raise SrpoError(
            f'fast pictures need numba ({error}): pip install "srpo[libero]", or use quality="full".'
        ) from error
    vertices, faces, kept = _weld(mesh)
    texcoords = None if mesh.texcoords is None else mesh.texcoords[kept].reshape(-1, 2)
    labels, first = _corner_labels(faces, texcoords)
    for loose in (False, True):
        alive = collapse(vertices, faces, labels, tolerance, 5.0 * tolerance, max_faces, loose)
        faces, labels = faces[alive], labels[alive]
        if texcoords is not None or len(faces) <= 1.1 * max_faces:
            break
    return Mesh(
        vertices,
        faces,
        _normals(vertices, faces),
        None if texcoords is None else texcoords[first][labels],
    )


def shrink(image: np.ndarray, limit: int, squares: int = 1) -> np.ndarray:
    """Reduce a texture to at most ``limit`` pixels in width, by area averaging.

    Args:
        image: (H, W, C) uint8.
        limit: pixels.
        squares: number of square images stacked in ``image`` (6 for a cube map), which must not mix.

    Returns:
        (h, w, C) uint8; the image itself if it is small enough.
    """
    from PIL import Image

    height, width, channels = image.shape
    if width <= limit and height <= limit * squares:
        return image
    scale = min(limit / width, limit * squares / height)
    size = max(1, round(width * scale)), max(1, round(height / squares * scale))
    parts = image.reshape(squares, height // squares, width, channels)
    small = [np.asarray(Image.fromarray(part.squeeze()).resize(size, Image.Resampling.BOX)) for part in parts]
    return np.concatenate(small).reshape(squares * size[1], size[0], channels)


def flatten(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """One vertex for each distinct (position, normal, texture coordinate), as ``mujoco.MjSpec`` wants it.

    Returns:
        vertices (N, 3), normals (N, 3), faces (F, 3) and texture coordinates (N, 2) or None.
    """
    columns = [mesh.vertices[mesh.faces].reshape(-1, 3), mesh.normals.reshape(-1, 3)]
    if mesh.texcoords is not None:
        columns.append(mesh.texcoords.reshape(-1, 2))
    rows, index = np.unique(np.round(np.hstack(columns), 6), axis=0, return_inverse=True)
    return rows[:, :3], rows[:, 3:6], index.reshape(-1, 3), rows[:, 6:] if mesh.texcoords is not None else None


def _weld(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge vertices at one place (files split them along texture seams) and drop collapsed faces.

    Returns:
        vertices (V, 3), faces (F', 3) int64 and the (F,) mask of the faces kept.
    """
    _, first, index = np.unique(np.round(mesh.vertices, 6), axis=0, return_index=True, return_inverse=True)
    faces = index.reshape(-1)[mesh.faces].astype(np.int64)
    kept = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return np.ascontiguousarray(mesh.vertices[first], dtype=np.float64), faces[kept], kept


def _corner_labels(faces: np.ndarray, texcoords: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct (vertex, texture coordinate) pairs.

    Returns:
        labels (F, 3) int64 and, for each label, the index of a corner that has it.
    """
    if texcoords is None:
        return faces.copy(), np.arange(0)
    keys = np.column_stack([faces.reshape(-1), np.round(texcoords, 5)])
    _, first, index = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return index.reshape(faces.shape).astype(np.int64), first


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals of the corners, (F, 3, 3): area-weighted mean of the faces there that turn by less than the crease."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = cross / np.maximum(np.linalg.norm(cross, axis=1), 1e-15)[:, None]
    incidence = coo_array(
        (np.ones(faces.size), (np.arange(faces.size), faces.reshape(-1))), shape=(faces.size, len(vertices))
    ).tocsr()
    first, second = (incidence @ incidence.T).nonzero()  # pairs of corners at one vertex
    near = (facing[first // 3] * facing[second // 3]).sum(axis=1) > _CREASE
    first, second = first[near], second[near]
    normals = np.zeros((faces.size, 3))
    np.add.at(normals, first, cross[second // 3])
    return (normals / np.maximum(np.linalg.norm(normals, axis=1), 1e-15)[:, None]).reshape(-1, 3, 3)
