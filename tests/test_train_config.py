"""Settings that make no sense are refused with the remedy."""

from __future__ import annotations

import pytest

from srpo.train_config import TrainConfig
from srpo.types import SrpoError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "dense"}, "No reward named 'dense': choose srpo or sparse"),
        ({"credit": "token"}, "choose episode or decision"),
        ({"revisit": 1.5}, "from 0 to 1"),
        ({"probes": -1}, "0 or more"),
        ({"task_sampling": "hard"}, "choose even, uncertain or failing"),
        ({"token_weights": "some"}, "No token weights named 'some': choose equal or range"),
        ({"gae_lambda": 1.5}, "--gae-lambda from 0 to 1"),
        ({"value_history": -1}, "--value-history 0 or more"),
        ({"demonstrations": "demos", "replay": 0}, "set --replay 1 or more"),
        ({"group_size": 1}, "set --group-size 2 or more"),
        ({"temperature": 0.0}, "set --temperature above 0"),
    ],
)
def test_refused(settings: dict, message: str) -> None:
    with pytest.raises(SrpoError, match=message):
        TrainConfig(**settings)
