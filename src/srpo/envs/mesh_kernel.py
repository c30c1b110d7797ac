"""Edge collapse by quadric error (Garland and Heckbert, SIGGRAPH 1997), compiled with numba.

A vertex is only ever merged into a neighbour, so every corner keeps a texture coordinate of the original. Borders
and texture seams collapse along themselves alone, and pull with planes that stand upright on them, so that prints
neither smear nor tear.
"""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit

_MOST = 8  # faces at one edge


@njit(cache=True)
def collapse(points, faces, corners, tolerance, limit, max_faces, loose):
    """Collapse edges, cheapest first, in place.

    An edge is collapsed while its error, the root mean square distance (m) of the remaining vertex from the planes
    that the vanishing one stood for, is below ``tolerance``, or while there are more than ``max_faces`` faces and
    the error is below ``limit``.

    Args:
        points: (V, 3) float64.
        faces: (F, 3) int64 into ``points``; rewritten.
        corners: (F, 3) int64 labels; two corners at one point have the same label if and only if they have the
            same texture coordinate; rewritten.
        tolerance: m.
        limit: m.
        max_faces: see above.
        loose: let holes close and sheets merge, for untextured meshes whose edges have more than two faces.

    Returns:
        (F,) bool, which faces are left.
    """
    n_points, n_faces = len(points), len(faces)
    alive = np.ones(n_faces, dtype=np.bool_)
    head, following, owner = _adjacency(n_points, faces)
    quadrics, weights = _face_quadrics(points, faces)
    seams = _mark_seams(points, faces, corners, head, following, owner, quadrics, weights)
    stamp = np.zeros(n_points, dtype=np.int64)
    heap = [(0.0, -1, -1, 0, 0)]
    for face in range(n_faces):
        for k in range(3):
            _offer(heap, faces[face, k], faces[face, (k + 1) % 3], points, quadrics, weights, stamp)
            _offer(heap, faces[face, (k + 1) % 3], faces[face, k], points, quadrics, weights, stamp)
    left = n_faces
    while len(heap) > 0:
        error, gone, kept, stamp_gone, stamp_kept = heapq.heappop(heap)
        if gone < 0 or stamp[gone] != stamp_gone or stamp[kept] != stamp_kept:
            continue
        if error > limit or (error > tolerance and left <= max_faces):
            break
        if not _allowed(gone, kept, points, faces, corners, alive, head, following, owner, seams, loose):
            continue
        left -= _merge(gone, kept, faces, corners, alive, head, following, owner)
        quadrics[kept] += quadrics[gone]
        weights[kept] += weights[gone]
        stamp[gone] = -1
        stamp[kept] += 1
        slot = head[kept]
        while slot >= 0:
            face = owner[slot]
            if alive[face]:
                for k in range(3):
                    other = faces[face, k]
                    if other != kept:
                        _offer(heap, kept, other, points, quadrics, weights, stamp)
                        _offer(heap, other, kept, points, quadrics, weights, stamp)
            slot = following[slot]
    return alive


@njit(cache=True)
def _adjacency(n_points, faces):
    """Linked list of the faces around each vertex: head[v] -> slot, following[slot] -> slot or -1."""
    head = np.full(n_points, -1, dtype=np.int64)
    following = np.full(3 * len(faces), -1, dtype=np.int64)
    owner = np.empty(3 * len(faces), dtype=np.int64)
    for face in range(len(faces)):
        for k in range(3):
            slot = 3 * face + k
            owner[slot] = face
            following[slot] = head[faces[face, k]]
            head[faces[face, k]] = slot
    return head, following, owner


@njit(cache=True)
def _normal(a, b, c):
    """Unnormalised normal of a triangle: twice its area long."""
    u, v = b - a, c - a
    return np.array([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])


@njit(cache=True)
def _add_plane(quadric, normal, point, weight):
    plane = np.empty(4)
    plane[:3] = normal
    plane[3] = -(normal * point).sum()
    for i in range(4):
        for j in range(4):
            quadric[i, j] += weight * plane[i] * plane[j]


@njit(cache=True)
def _face_quadrics(points, faces):
    quadrics = np.zeros((len(points), 4, 4))
    weights = np.zeros(len(points))
    for face in range(len(faces)):
        a, b, c = points[faces[face, 0]], points[faces[face, 1]], points[faces[face, 2]]
        normal = _normal(a, b, c)
        length = np.sqrt((normal * normal).sum())
        if length > 1e-14:
            for k in range(3):
                _add_plane(quadrics[faces[face, k]], normal / length, a, length)
                weights[faces[face, k]] += length
    return quadrics, weights


@njit(cache=True)
def _mark_seams(points, faces, corners, head, following, owner, quadrics, weights):
    """Count the seam edges at each vertex, (V,) int, and add the upright planes on them to the quadrics."""
    seams = np.zeros(len(points), dtype=np.int64)
    alive = np.ones(len(faces), dtype=np.bool_)
    for face in range(len(faces)):
        for k in range(3):
            a, b = faces[face, k], faces[face, (k + 1) % 3]
            if not _is_seam(a, b, faces, corners, alive, head, following, owner):
                continue
            edge = points[b] - points[a]
            length = np.sqrt((edge * edge).sum())
            normal = _normal(points[faces[face, 0]], points[faces[face, 1]], points[faces[face, 2]])
            upright = _normal(np.zeros(3), edge, normal)
            size = np.sqrt((upright * upright).sum())
            single = _shared(a, b, faces, head, following, owner) == 1
            for vertex in (a, b):
                seams[vertex] += 2 if single else 1  # an edge between two faces is met twice
                if size > 1e-20:
                    _add_plane(quadrics[vertex], upright / size, points[a], length * length)
    return seams // 2


@njit(cache=True)
def _shared(a, b, faces, head, following, owner):
    count = 0
    slot = head[a]
    while slot >= 0:
        face = owner[slot]
        if faces[face, 0] == b or faces[face, 1] == b or faces[face, 2] == b:
            count += 1
        slot = following[slot]
    return count


@njit(cache=True)
def _corner(face, vertex, faces, corners):
    for k in range(3):
        if faces[face, k] == vertex:
            return corners[face, k]
    return -1


@njit(cache=True)
def _is_seam(a, b, faces, corners, alive, head, following, owner):
    """Whether an edge lies on a border, between two pieces of the texture, or between more than two faces."""
    count = 0
    first_a, first_b = -1, -1
    differs = False
    slot = head[a]
    while slot >= 0:
        face = owner[slot]
        if alive[face]:
            corner_b = _corner(face, b, faces, corners)
            if corner_b >= 0:
                corner_a = _corner(face, a, faces, corners)
                if count == 0:
                    first_a, first_b = corner_a, corner_b
                elif corner_a != first_a or corner_b != first_b:
                    differs = True
                count += 1
        slot = following[slot]
    return differs or count != 2


@njit(cache=True)
def _offer(heap, gone, kept, points, quadrics, weights, stamp):
    position = np.ones(4)
    position[:3] = points[kept]
    quadric = quadrics[gone]
    cost = 0.0
    for i in range(4):
        for j in range(4):
            cost += position[i] * quadric[i, j] * position[j]
    edge = points[gone] - points[kept]
    error = np.sqrt(max(cost, 0.0) / max(weights[gone], 1e-14)) + 1e-3 * np.sqrt((edge * edge).sum())
    heapq.heappush(heap, (error, gone, kept, stamp[gone], stamp[kept]))


@njit(cache=True)
def _allowed(gone, kept, points, faces, corners, alive, head, following, owner, seams, loose):
    """No corner of a seam moves, no hole opens, no face turns over, every corner has a successor."""
    if (
        not loose
        and seams[gone] > 0
        and (seams[gone] != 2 or not _is_seam(gone, kept, faces, corners, alive, head, following, owner))
    ):
        return False
    common, edge_faces = 0, 0
    labels = np.full(4, -1, dtype=np.int64)
    slot = head[gone]
    while slot >= 0:
        face = owner[slot]
        if alive[face] and _corner(face, kept, faces, corners) >= 0:
            if edge_faces < 4:
                labels[edge_faces] = _corner(face, gone, faces, corners)
            edge_faces += 1
        slot = following[slot]
    if edge_faces == 0 or edge_faces > (_MOST if loose else 2):
        return False
    seen = np.empty(2, dtype=np.int64)
    slot = head[gone]
    while slot >= 0:
        face = owner[slot]
        if alive[face]:
            has_kept = _corner(face, kept, faces, corners) >= 0
            label = _corner(face, gone, faces, corners)
            if not has_kept:
                if label != labels[0] and label != labels[1]:
                    return False
                if _turns(face, gone, kept, points, faces):
                    return False
            for k in range(0 if loose else 3):
                vertex = faces[face, k]
                known = vertex in (gone, kept)
                for i in range(common):
                    known = known or seen[i] == vertex
                if not known and _linked(vertex, kept, faces, corners, alive, head, following, owner):
                    if common >= edge_faces:
                        return False
                    seen[common] = vertex
                    common += 1
        slot = following[slot]
    return loose or common == edge_faces


@njit(cache=True)
def _linked(a, b, faces, corners, alive, head, following, owner):
    slot = head[a]
    while slot >= 0:
        face = owner[slot]
        if alive[face] and _corner(face, b, faces, corners) >= 0:
            return True
        slot = following[slot]
    return False


@njit(cache=True)
def _turns(face, gone, kept, points, faces):
    """Whether a face turns by more than about 75 degrees, or collapses, when ``gone`` moves to ``kept``."""
    before = _normal(points[faces[face, 0]], points[faces[face, 1]], points[faces[face, 2]])
    moved = faces[face].copy()
    for k in range(3):
        if moved[k] == gone:
            moved[k] = kept
    after = _normal(points[moved[0]], points[moved[1]], points[moved[2]])
    sizes = np.sqrt((before * before).sum() * (after * after).sum())
    return (before * after).sum() <= 0.25 * sizes


@njit(cache=True)
def _merge(gone, kept, faces, corners, alive, head, following, owner):
    """Rewrite the faces around ``gone``; returns how many vanished."""
    old = np.full(_MOST, -1, dtype=np.int64)
    new = np.full(_MOST, -1, dtype=np.int64)
    vanished = 0
    slot = head[gone]
    while slot >= 0:
        face = owner[slot]
        if alive[face] and _corner(face, kept, faces, corners) >= 0:
            old[vanished] = _corner(face, gone, faces, corners)
            new[vanished] = _corner(face, kept, faces, corners)
            alive[face] = False
            vanished += 1
        slot = following[slot]
    last = -1
    slot = head[gone]
    while slot >= 0:
        face = owner[slot]
        for k in range(3):
            if alive[face] and faces[face, k] == gone:
                faces[face, k] = kept
                corners[face, k] = new[0] if corners[face, k] == old[0] else new[1]
        last = slot
        slot = following[slot]
    if last >= 0:
        following[last] = head[kept]
        head[kept] = head[gone]
        head[gone] = -1
    return vanished
