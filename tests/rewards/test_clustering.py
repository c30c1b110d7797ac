"""Centres: two clear modes give two, one mode gives one, in 64 and in 1,408 dimensions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group
from sklearn.cluster import DBSCAN
from sklearn.metrics import silhouette_score

from srpo.rewards import success_centres
from srpo.rewards.clustering import _mean_silhouette, dbscan_labels, medoids
from srpo.types import SrpoError

SIZES = [(2, 2), (3, 9), (10, 40), (4, 4), (30, 30), (2, 20)]
DIMS = [64, 1408]
# Exponent of the variances' power-law decay: 0 is isotropic, 1 has about 14 effective dimensions in 64.
DECAYS = [0.0, 0.5, 1.0]


def mode(rng: np.random.Generator, n: int, dims: int, decay: float = 0.0) -> np.ndarray:
    """(n, dims) normal points with RMS radius 1: E |x|^2 = 1."""
    scale = np.arange(1, dims + 1) ** (-decay / 2)
    return rng.standard_normal((n, dims)) * scale / np.linalg.norm(scale)


def two_modes(seed: int, sizes: tuple[int, int], dims: int, decay: float, separation: float) -> np.ndarray:
    """(a + b, dims); the means of the two modes are ``separation`` RMS radii apart."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(dims)
    direction *= separation / np.linalg.norm(direction)
    return np.concatenate([mode(rng, sizes[0], dims, decay), mode(rng, sizes[1], dims, decay) + direction])


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("decay", DECAYS)
def test_one_mode_is_one_cluster(dims: int, decay: float) -> None:
    for n in (4, 5, 7, 12, 30, 60):
        for seed in range(6):
            points = mode(np.random.default_rng([seed, n]), n, dims, decay)
            assert dbscan_labels(points).tolist() == [0] * n, (n, seed)


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("sizes", SIZES)
def test_two_clear_modes_are_two_clusters(dims: int, decay: float, sizes: tuple[int, int]) -> None:
    for separation in (4.0, 8.0, 50.0):
        for seed in range(3):
            labels = dbscan_labels(two_modes(seed, sizes, dims, decay, separation))
            a, b = labels[: sizes[0]], labels[sizes[0] :]
            assert set(labels) == {0, 1} and len(set(a)) == len(set(b)) == 1, (separation, seed)


@pytest.mark.parametrize("dims", DIMS)
def test_overlapping_modes_stay_one_cluster(dims: int) -> None:
    # At 1 RMS radius the distance between the modes is sqrt(2 + 1) = 1.73 against sqrt(2) = 1.41 within:
    # silhouette 1 - 1.41 / 1.73 = 0.18.
    for sizes in SIZES:
        for seed in range(3):
            assert dbscan_labels(two_modes(seed, sizes, dims, 0.0, 1.0)).max() == 0


def test_three_modes_of_different_width() -> None:
    rng = np.random.default_rng(0)
    shift = np.eye(64)
    points = np.concatenate(
        [mode(rng, 5, 64), 0.3 * mode(rng, 7, 64) + 6 * shift[0], 2 * mode(rng, 6, 64) + 12 * shift[1]]
    )
    assert dbscan_labels(points).tolist() == [0] * 5 + [1] * 7 + [2] * 6


def test_an_outlier_joins_the_nearest_cluster() -> None:
    # Single-linkage heights: 0.1 (four times), 9.8, 19.8. The cut below 9.8 leaves the point at 30 alone;
    # with the second three the mean silhouette is 0.61 (about 0.99 for the first three, 0.33 for the others).
    points = np.array([0.0, 0.1, 0.2, 10.0, 10.1, 10.2, 30.0])[:, None]
    assert dbscan_labels(points).tolist() == [0, 0, 0, 1, 1, 1, 1]
    # Centres: 0.1 and (10 + 10.1 + 10.2 + 30) / 4 = 15.075.
    np.testing.assert_allclose(success_centres(points), [[0.1], [15.075]])


def test_a_gap_must_be_clear() -> None:
    # Eight points on a line, 1 apart, with a wider step in the middle. Silhouettes of a half with the step
    # 1.2, from its end inwards: (5.7 - 2) / 5.7, (4.7 - 4/3) / 4.7, (3.7 - 4/3) / 3.7, (2.7 - 2) / 2.7; mean
    # 0.57. So the halves are placed well enough, but 1.2 is no clear gap, and 1.3 is one.
    line = np.array([0.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0])[:, None]
    right = (np.arange(8) >= 4)[:, None]
    assert dbscan_labels(line + 1.2 * right).tolist() == [0] * 8
    assert dbscan_labels(line + 1.3 * right).tolist() == [0] * 4 + [1] * 4


def test_a_gap_within_long_rows_is_no_split() -> None:
    # Two rows of six points, 1 apart, lie 2 apart: the gap is twice the step, but the ends of a row are
    # farther from each other than from the other row. End of a row: a = 3, b = mean of sqrt(4 + k^2), k =
    # 0..5, = 3.42: silhouette 0.12. With the rows 20 apart it is above (20 - 3) / 20 = 0.85.
    row = np.stack([np.arange(6.0), np.zeros(6)], axis=1)
    assert dbscan_labels(np.concatenate([row, row + np.array([0, 2])])).tolist() == [0] * 12
    assert dbscan_labels(np.concatenate([row, row + np.array([0, 20])])).tolist() == [0] * 6 + [1] * 6


def test_identical_successes_are_one_cluster() -> None:
    points = np.full((6, 3), 2.0)
    np.testing.assert_allclose(success_centres(points), [[2.0, 2.0, 2.0]])


def test_up_to_three_successes_are_used_as_they_are() -> None:
    for n in (1, 2, 3):
        points = np.arange(2.0 * n).reshape(n, 2)
        np.testing.assert_array_equal(success_centres(points), points)


def test_nearest_and_mean() -> None:
    points = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 6.0], [2.0, 2.0]])
    np.testing.assert_array_equal(success_centres(points, "nearest"), points)
    np.testing.assert_array_equal(success_centres(points, "mean"), [[2.0, 2.0]])


def test_an_unknown_clustering_names_the_known_ones() -> None:
    with pytest.raises(SrpoError, match="dbscan, nearest, mean"):
        success_centres(np.ones((5, 2)), "kmeans")


def test_a_fixed_radius_finds_nothing_in_many_dimensions() -> None:
    # Why the radius is chosen from the data: with eps = 0.5 two modes 50 radii apart are all noise.
    points = two_modes(0, (10, 10), 1408, 0.0, 50.0)
    assert (DBSCAN(eps=0.5, min_samples=2).fit_predict(points / points.std(0)) == -1).all()
    assert dbscan_labels(points).max() == 1


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(4, 25),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    separation=st.sampled_from([0.0, 4.0, 8.0]),
)
def test_labels_do_not_depend_on_order_unit_offset_or_rotation(
    seed: int, n: int, scale: float, separation: float
) -> None:
    points = two_modes(seed, (n // 2, n - n // 2), 8, 0.0, separation)
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    turn = ortho_group.rvs(8, random_state=seed)
    labels = dbscan_labels(points)
    moved = dbscan_labels(scale * (points[order] @ turn + rng.standard_normal(8)))
    same = labels[:, None] == labels[None, :]
    assert (same[np.ix_(order, order)] == (moved[:, None] == moved[None, :])).all()
    # Every success belongs to a cluster, and every cluster has two members or more.
    assert labels.min() == 0 and (np.bincount(labels) >= 2).all()


def test_silhouette_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((30, 5))
    labels = np.arange(30) % 4
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert _mean_silhouette(distances, labels) == pytest.approx(silhouette_score(points, labels))


def test_medoids_by_hand() -> None:
    line = np.array([[0.0], [1], [2], [10], [11], [12], [30]])
    assert medoids(line, 3).tolist() == [1, 4, 6]
    assert medoids(line, 1).tolist() == [3]  # the median
    assert medoids(line, 7).tolist() == medoids(line, 9).tolist() == list(range(7))
    np.testing.assert_array_equal(success_centres(line[:4], "k-medoids"), line[:4])
    assert len(success_centres(line, "k-medoids")) == 4


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 4))
def test_no_single_swap_improves_medoids(seed: int, n: int, k: int) -> None:
    points = np.random.default_rng(seed).standard_normal((n, 3))
    chosen = medoids(points, k).tolist()

    def cost(rows: list[int]) -> float:
        return float(cdist(points, points[rows]).min(1).sum())

    for place in range(len(chosen)):
        for other in range(n):
            assert cost([*chosen[:place], other, *chosen[place + 1 :]]) >= cost(chosen) - 1e-6
