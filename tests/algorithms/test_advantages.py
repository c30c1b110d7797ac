"""Group advantages by hand, and what must hold for any rewards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srpo.algorithms import group_advantages, informative_groups
from srpo.types import SrpoError

# Two interleaved groups. Group 5: rewards 1, 0, 0, 1: mean 1/2, std 1/2. Group 9: 0.2, 0.4, 0.6: mean 0.4,
# variance (0.04 + 0 + 0.04) / 3, std 0.163299. Group 2: constant.
REWARD = np.array([1.0, 0.2, 0.0, 0.4, 0.0, 0.6, 1.0, 0.3, 0.3])
GROUP = np.array([5, 9, 5, 9, 5, 9, 5, 2, 2])


def test_by_hand() -> None:
    z = 0.2 / np.sqrt(0.08 / 3)  # 1.224745
    expected = [1.0, -z, -1.0, 0.0, -1.0, z, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(group_advantages(REWARD, GROUP), expected, atol=1e-12)
    plain = [0.5, -0.2, -0.5, 0.0, -0.5, 0.2, 0.5, 0.0, 0.0]
    np.testing.assert_allclose(group_advantages(REWARD, GROUP, normalise_std=False), plain, atol=1e-12)
    assert informative_groups(REWARD, GROUP).tolist() == [True] * 7 + [False] * 2


def test_groups_without_information_get_exactly_zero() -> None:
    # 0.1 + 0.2 and 0.3 differ by one rounding: no information. A group of one has nothing to compare with.
    reward, group = np.array([0.1 + 0.2, 0.3, 1.0]), np.array([0, 0, 1])
    for normalise_std in (True, False):
        assert group_advantages(reward, group, normalise_std=normalise_std).tolist() == [0.0, 0.0, 0.0]
    assert not informative_groups(reward, group).any()


rewards_and_groups = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=32).map(
    lambda rows: (np.array([r for r, _ in rows]), np.array([g for _, g in rows]))
)


@settings(max_examples=200, deadline=None)
@given(rewards_and_groups)
def test_mean_zero_and_std_one_in_every_informative_group(data: tuple[np.ndarray, np.ndarray]) -> None:
    reward, group = data
    advantage, informative = group_advantages(reward, group), informative_groups(reward, group)
    for g in set(group):
        of_group = advantage[group == g]
        if informative[group == g].all():
            assert of_group.mean() == pytest.approx(0, abs=1e-8)
            assert of_group.std() == pytest.approx(1, abs=1e-8)
            order = np.argsort(reward[group == g])
            assert (np.diff(of_group[order]) >= 0).all()
        else:
            assert not informative[group == g].any() and (of_group == 0.0).all()


@settings(max_examples=100, deadline=None)
@given(rewards_and_groups, st.randoms(use_true_random=False))
def test_order_of_episodes_does_not_matter(data: tuple[np.ndarray, np.ndarray], random) -> None:
    reward, group = data
    order = np.array(random.sample(range(len(reward)), len(reward)))
    shuffled = group_advantages(reward[order], group[order])
    np.testing.assert_allclose(shuffled, group_advantages(reward, group)[order], atol=1e-6)


def test_bad_input() -> None:
    with pytest.raises(SrpoError, match="one of each per episode"):
        group_advantages([1.0, 0.0], [0])
    with pytest.raises(SrpoError, match="episode 1 is not finite"):
        group_advantages([1.0, float("nan")], [0, 0])
