"""Action tokens against OpenVLA's published rule, and the un-normalisation of actions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpo.policies import action_tokens
from srpo.policies.action_tokens import ActionScale
from srpo.types import SrpoError

BINS = np.linspace(-1, 1, 256)


def test_decoding_follows_openvla() -> None:
    # OpenVLA: token ids 31744..31999; bin = 32000 - id - 1 clipped to 0..254, its centre is the action.
    ids = np.arange(31744, 32000)
    centres = (BINS[:-1] + BINS[1:]) / 2
    published = centres[np.clip(32000 - ids - 1, 0, 254)]
    tokens = action_tokens.vocabulary_ids(ids)
    assert sorted(tokens) == list(range(256))
    np.testing.assert_array_equal(action_tokens.decode(tokens), published)
    np.testing.assert_array_equal(action_tokens.vocabulary_ids(tokens), ids)


def test_encoding_follows_openvla() -> None:
    actions = np.concatenate([np.linspace(-1.5, 1.5, 4001), BINS, [0.0, -1.0, 1.0]])
    published_ids = 32000 - np.digitize(np.clip(actions, -1, 1), BINS)
    tokens = action_tokens.encode(actions)
    np.testing.assert_array_equal(action_tokens.vocabulary_ids(tokens), published_ids)
    assert tokens.dtype == np.int16 and tokens.min() == 0 and tokens.max() == 255


def test_ends_of_the_range() -> None:
    # 255 intervals of width 2/255; the centres of the first and the last are 1/255 from the ends.
    np.testing.assert_array_equal(action_tokens.encode(np.array([-1.0, 1.0])), [0, 255])
    np.testing.assert_allclose(action_tokens.decode(np.array([0, 254, 255])), [-254 / 255, 254 / 255, 254 / 255])


@given(st.floats(-1, 1))
def test_round_trip_loses_at_most_half_a_bin(action: float) -> None:
    decoded = float(action_tokens.decode(action_tokens.encode(np.array(action))))
    assert abs(decoded - action) <= 1 / 255 + 1e-12


def test_scale_maps_bounds_to_plus_and_minus_one() -> None:
    scale = ActionScale((0.0, -2.0), (4.0, 2.0))
    np.testing.assert_allclose(scale.normalise(np.array([[0.0, 2.0], [1.0, 0.0]])), [[-1, 1], [-0.5, 0]])
    np.testing.assert_allclose(scale.unnormalise(np.array([-0.5, 1.5])), [1.0, 3.0])


def test_scale_from_actions() -> None:
    # 0, 0.01, .., 1: percentiles 1 and 99 are 0.01 and 0.99. The second column never moves: widened to 0.1 about 0.3.
    column = np.arange(101) / 100
    actions = np.stack([column, np.full(101, 0.3), np.sign(column - 0.5)], 1)
    scale = ActionScale.from_actions(actions)
    np.testing.assert_allclose(scale.low, [0.01, 0.25, -1.0])
    np.testing.assert_allclose(scale.high, [0.99, 0.35, 1.0])


@pytest.mark.parametrize(("low", "high"), [((0.0,), (0.0,)), ((0.0, 1.0), (1.0,))])
def test_impossible_scale_is_refused(low: tuple[float, ...], high: tuple[float, ...]) -> None:
    with pytest.raises(SrpoError, match="upper bound must exceed"):
        ActionScale(low, high)
