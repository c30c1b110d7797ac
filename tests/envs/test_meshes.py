"""Simplification on shapes whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from srpo.envs.meshes import Mesh, flatten, shrink, simplify

pytest.importorskip("numba")


def _sheet(n: int = 20, seam: bool = False) -> Mesh:
    """A unit square of 2 n^2 faces, u = x and v = y; right of a seam at x = 0.5 the texture is 10 further on."""
    x, y = np.meshgrid(np.linspace(0, 1, n + 1), np.linspace(0, 1, n + 1), indexing="ij")
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    i, j = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    a, b, c, d = i * (n + 1) + j, (i + 1) * (n + 1) + j, (i + 1) * (n + 1) + j + 1, i * (n + 1) + j + 1
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    texcoords = vertices[faces][..., :2].copy()
    if seam:
        texcoords[vertices[faces][..., 0].mean(axis=1) > 0.5, :, 0] += 10.0
    return Mesh(vertices, faces, np.tile([0.0, 0.0, 1.0], (len(faces), 3, 1)), texcoords)


def _area(mesh: Mesh) -> float:
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def test_flat_sheet_becomes_few_faces_of_the_same_outline_print_and_side():
    small = simplify(_sheet(), tolerance=2e-3, max_faces=4)
    assert len(small.faces) <= 40  # of 800
    assert _area(small) == pytest.approx(1.0)
    np.testing.assert_allclose(small.texcoords, small.vertices[small.faces][..., :2], atol=1e-12)
    np.testing.assert_allclose(small.normals, np.tile([0.0, 0.0, 1.0], (len(small.faces), 3, 1)), atol=1e-12)


def test_texture_seam_stays_where_it_is():
    small = simplify(_sheet(seam=True), tolerance=2e-3, max_faces=8)
    assert len(small.faces) <= 80
    corners = small.vertices[small.faces]
    right = corners[..., 0].mean(axis=1) > 0.5
    assert (corners[right][..., 0] >= 0.5).all() and (corners[~right][..., 0] <= 0.5).all()
    expected = corners[..., :2].copy()
    expected[right, :, 0] += 10.0
    np.testing.assert_allclose(small.texcoords, expected, atol=1e-12)


def test_sphere_keeps_its_volume_its_closed_surface_and_its_radial_normals():
    n = 32
    theta = np.pi * np.arange(1, n) / n
    phi = 2 * np.pi * np.arange(2 * n) / (2 * n)
    ring = np.stack(
        [
            np.outer(np.sin(theta), np.cos(phi)),
            np.outer(np.sin(theta), np.sin(phi)),
            np.outer(np.cos(theta), np.ones(2 * n)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    vertices = 0.05 * np.concatenate([ring, [[0, 0, 1], [0, 0, -1]]])
    from scipy.spatial import ConvexHull

    hull = ConvexHull(vertices)
    faces = hull.simplices.copy()
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    inward = (np.cross(b - a, c - a) * a).sum(axis=1) < 0
    faces[inward] = faces[inward][:, ::-1]
    sphere = Mesh(vertices, faces, np.zeros((len(faces), 3, 3)))
    small = simplify(sphere, tolerance=5e-4, max_faces=300)
    assert len(small.faces) <= 300 < len(faces)
    a, b, c = np.moveaxis(small.vertices[small.faces], 1, 0)
    volume = (np.cross(a, b) * c).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.05**3, rel=0.06)
    edges = np.sort(np.concatenate([small.faces[:, [0, 1]], small.faces[:, [1, 2]], small.faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    radial = small.vertices[small.faces] / 0.05
    assert (small.normals * radial).sum(axis=-1).min() > 0.9


def test_flatten_has_one_vertex_for_each_distinct_corner():
    mesh = _sheet(1, seam=False)
    vertices, normals, faces, texcoords = flatten(mesh)
    assert len(vertices) == 4 and faces.shape == (2, 3)
    np.testing.assert_allclose(vertices[faces], mesh.vertices[mesh.faces])
    np.testing.assert_allclose(texcoords[faces], mesh.texcoords)
    np.testing.assert_allclose(normals, np.tile([0, 0, 1], (4, 1)))


def test_shrink_averages_areas_and_keeps_the_squares_of_a_cube_map_apart():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    image[:2, :2] = 200
    np.testing.assert_array_equal(shrink(image, 2)[..., 0], [[200, 0], [0, 0]])
    assert shrink(image, 4) is image
    stack = np.concatenate([np.full((4, 4, 3), 30 * k, dtype=np.uint8) for k in range(6)])
    np.testing.assert_array_equal(shrink(stack, 1, squares=6)[:, 0, 0], [0, 30, 60, 90, 120, 150])
