"""Fewer triangles and smaller textures that look the same: what the fast pictures are made of.

Meshes are simplified by quadric error (Garland and Heckbert, SIGGRAPH 1997, as in ``fast-simplification``) until
they would leave the original by more than a tolerance. Normals and texture coordinates are then taken over from
the nearest corner of the original, so that shading and print stay although the triangles are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from srpo.types import SrpoError

_NEIGHBOURS = 12  # corners of the original that are candidates for a corner's normal or texture coordinate


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


def simplify(mesh: Mesh, tolerance: float, max_faces: int, min_faces: int = 40) -> Mesh:
    """The coarsest of a ladder of simplifications that stays within ``tolerance`` of the original.

    Args:
        mesh: the original.
        tolerance: largest allowed distance (m) from the original's vertices to the new surface.
        max_faces: upper limit of the number of faces, which wins over the tolerance.
        min_faces: meshes with no more faces than this are returned as they are.

    Raises:
        SrpoError: ``fast-simplification`` is missing.
    """
    try:
        import fast_simplification
    except ImportError as error:
        raise SrpoError(
            'fast pictures need fast-simplification: pip install "srpo[libero]", or use quality="full".'
        ) from error
    if len(mesh.faces) <= min_faces:
        return mesh
    vertices, faces = _weld(mesh)
    probes = vertices[:: max(1, len(vertices) // 4000)]
    best: tuple[np.ndarray, np.ndarray] | None = None
    target = max_faces
    while target >= min_faces:
        if target < len(faces):
            points, triangles = fast_simplification.simplify(
                vertices.astype(np.float32), faces.astype(np.int32), target_count=target
            )
            if len(triangles) < 4 or len(triangles) == len(faces):
                break
            if best is not None and distance(probes, points, triangles).max() > tolerance:
                break
            best = np.asarray(points, dtype=np.float64), np.asarray(triangles)
        target = int(target / 1.5)
    if best is None:
        return mesh
    return _dress(best[0], best[1], mesh)


def distance(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Distance (m) of (N, 3) points to a triangle surface, searched among the triangles with the nearest samples.

    Returns:
        (N,) float.
    """
    corners = vertices[faces]  # (F, 3, 3)
    weights = np.array([(i, j, 3 - i - j) for i in range(4) for j in range(4 - i)], dtype=float) / 3.0
    samples = np.einsum("sk,fkd->fsd", weights, corners).reshape(-1, 3)
    owner = np.repeat(np.arange(len(faces)), len(weights))
    _, nearest = cKDTree(samples).query(points, k=min(6, len(samples)))
    candidates = corners[owner[nearest]]  # (N, 6, 3, 3)
    return _to_triangle(points[:, None], candidates).min(axis=1)


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


def _weld(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Merge vertices at one place (files split them along texture seams) and drop collapsed faces."""
    _, first, index = np.unique(np.round(mesh.vertices, 6), axis=0, return_index=True, return_inverse=True)
    faces = index.reshape(-1)[mesh.faces]
    distinct = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    )
    return mesh.vertices[first], faces[distinct]


def _dress(vertices: np.ndarray, faces: np.ndarray, original: Mesh) -> Mesh:
    """Give a simplified surface the original's normals and texture coordinates."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    solid = area > 1e-12
    faces, corners = faces[solid], corners[solid]
    face_normals = cross[solid] / area[solid, None]
    places = original.vertices[original.faces].reshape(-1, 3)
    normals = original.normals.reshape(-1, 3)
    tree = cKDTree(places)
    count = min(_NEIGHBOURS, len(places))
    gaps, near = tree.query(corners.reshape(-1, 3), k=count)
    agreement = np.einsum("nkd,nd->nk", normals[near], np.repeat(face_normals, 3, axis=0))
    scale = np.sqrt(area[solid].mean()) + 1e-9
    choice = (agreement - 0.5 * (gaps - gaps[:, :1]) / scale).argmax(axis=1)[:, None]
    taken = np.take_along_axis(near, choice, axis=1)[:, 0]
    dressed = normals[taken]
    against = np.take_along_axis(agreement, choice, axis=1)[:, 0] < 0.2
    dressed[against] = np.repeat(face_normals, 3, axis=0)[against]
    texcoords = None
    if original.texcoords is not None:
        texcoords = _texcoords(corners, face_normals, original)
    return Mesh(vertices, faces, dressed.reshape(-1, 3, 3), texcoords)


def _texcoords(corners: np.ndarray, face_normals: np.ndarray, original: Mesh) -> np.ndarray:
    """Texture coordinates of (F, 3, 3) corners, each face within one chart (piece of the texture's layout)."""
    assert original.texcoords is not None
    charts = _charts(original)
    centres = original.vertices[original.faces].mean(axis=1)
    facing = original.normals.mean(axis=1)
    count = min(_NEIGHBOURS, len(centres))
    gaps, near = cKDTree(centres).query(corners.mean(axis=1), k=count)
    agreement = np.einsum("nkd,nd->nk", facing[near], face_normals)
    scale = gaps[:, -1:] + 1e-9
    best = (agreement - 0.5 * gaps / scale).argmax(axis=1)[:, None]
    chart = charts[np.take_along_axis(near, best, axis=1)[:, 0]]
    result = np.zeros((len(corners), 3, 2))
    for label in np.unique(chart):
        mine, source = chart == label, charts == label
        places = original.vertices[original.faces[source]].reshape(-1, 3)
        values = original.texcoords[source].reshape(-1, 2)
        _, index = cKDTree(places).query(corners[mine].reshape(-1, 3))
        result[mine] = values[index].reshape(-1, 3, 2)
    return result


def _charts(mesh: Mesh) -> np.ndarray:
    """Label each face with its connected piece of the texture layout, (F,) int."""
    assert mesh.texcoords is not None
    keys = np.hstack([mesh.vertices[mesh.faces].reshape(-1, 3), mesh.texcoords.reshape(-1, 2)])
    _, node = np.unique(np.round(keys, 5), axis=0, return_inverse=True)
    node = node.reshape(-1, 3)
    links = np.concatenate([node[:, [0, 1]], node[:, [1, 2]]])
    size = int(node.max()) + 1
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1][node[:, 0]]


def _to_triangle(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Distance of (N, 1, 3) points to (N, K, 3, 3) triangles, (N, K)."""
    a, b, c = triangles[..., 0, :], triangles[..., 1, :], triangles[..., 2, :]
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = normal / np.maximum(length, 1e-15)
    height = ((points - a) * normal).sum(axis=-1)
    foot = points - height[..., None] * normal
    inside = np.ones(height.shape, dtype=bool)
    edges = np.full(height.shape, np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        inside &= (np.cross(edge, foot - start) * normal).sum(axis=-1) >= 0
        along = ((points - start) * edge).sum(axis=-1) / np.maximum((edge * edge).sum(axis=-1), 1e-15)
        nearest = start + np.clip(along, 0.0, 1.0)[..., None] * edge
        edges = np.minimum(edges, np.linalg.norm(points - nearest, axis=-1))
    return np.where(inside, np.abs(height), edges)
