"""Settings that make no sense are refused with the remedy."""

from __future__ import annotations

import pytest

from srpo.distillation import DistilConfig
from srpo.train_config import TrainConfig
from srpo.types import SrpoError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "dense"}, "No reward named 'dense': choose srpo or sparse"),
        ({"credit": "token"}, "choose episode or decision"),
        ({"revisit": 1.5}, "from 0 to 1"),
        ({"probes": -1}, "0 or more"),
        ({"schedule": "cosine"}, "choose constant, linear or sqrt"),
        ({"task_sampling": "hard"}, "choose even, uncertain or failing"),
        ({"token_weights": "some"}, "No token weights named 'some': choose equal or range"),
        ({"gae_lambda": 1.5}, "--gae-lambda from 0 to 1"),
        ({"value_history": -1}, "--value-history 0 or more"),
        ({"demonstrations": "demos", "replay": 0}, "set --replay 1 or more"),
        ({"distil": DistilConfig(every=-1)}, "last are 0 or more"),
        ({"distil": DistilConfig(last=-1)}, "last are 0 or more"),
        ({"distil": DistilConfig(successes=0)}, "batch 1 or more"),
        ({"distil": DistilConfig(rounds=-1)}, "rounds is 0 or more"),
        ({"distil": DistilConfig(rounds=5, steps=5)}, "below --distil.steps"),
        ({"distil": DistilConfig(rounds=1, attempts=0)}, "attempts 1 or more"),
        ({"distil": DistilConfig(augmentations=-1)}, "shift are 0 or more"),
        ({"distil": DistilConfig(shift=-1)}, "shift are 0 or more"),
        ({"distil": DistilConfig(demonstration_weight=-1.0)}, "number of successes"),
        ({"group_size": 1}, "set --group-size 2 or more"),
        ({"temperature": 0.0}, "set --temperature above 0"),
        ({"gripper_temperature": 0.0}, "set --gripper-temperature above 0, or none"),
    ],
)
def test_refused(settings: dict, message: str) -> None:
    with pytest.raises(SrpoError, match=message):
        TrainConfig(**settings)


def test_schedules() -> None:
    assert [TrainConfig(steps=4).rate(k) for k in (0, 3)] == [1, 1]
    assert [TrainConfig(steps=4, schedule="linear").rate(k) for k in (0, 1, 3)] == [1, 0.75, 0.25]
    # 1 / sqrt(1), 1 / sqrt(4), 1 / sqrt(16), however long the run.
    assert [TrainConfig(steps=4, schedule="sqrt").rate(k) for k in (0, 30, 150)] == [1, 0.5, 0.25]


def test_episodes_per_step() -> None:
    assert TrainConfig(groups=3, group_size=4, probes=5).episodes_per_step == 17
