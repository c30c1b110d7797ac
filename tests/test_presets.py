"""The named experiments: sound, seeded as one, and found by nearly their name."""

from __future__ import annotations

import pytest

from srpo import presets
from srpo.config import field_names, override
from srpo.types import SrpoError


@pytest.mark.parametrize("name", presets.PRESETS)
def test_parts_of_a_preset_fit_together(name: str) -> None:
    chosen = presets.preset(name)
    assert "\n" not in chosen.description and chosen.description
    # The policy reads what the demonstrations record and what the rollouts show.
    assert set(chosen.sft.policy.cameras) <= set(chosen.collect.cameras)
    assert chosen.sft.policy.image_size == chosen.collect.image_size
    assert chosen.collect.env == chosen.train.rollout.env
    assert chosen.collect.render == chosen.train.rollout.render
    assert chosen.train.groups * chosen.train.group_size > 1 and chosen.train.temperature > 0
    # The world model reads the third-person camera.
    assert "agentview" in chosen.sft.policy.cameras


@pytest.mark.parametrize("name", presets.PRESETS)
@pytest.mark.parametrize("part", ["collect", "sft", "train"])
def test_every_setting_survives_being_set_to_its_own_value(name: str, part: str) -> None:
    config = getattr(presets.preset(name), part)
    for field in field_names(config):
        value = config
        for step in field.split("."):
            value = getattr(value, step)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert override(config, {field.replace("_", "-"): text}) == config, field


def test_one_seed_for_everything() -> None:
    seeded = presets.with_seed(presets.preset("debug"), 7)
    assert (seeded.collect.seed, seeded.sft.seed, seeded.train.seed) == (7, 7, 7)
    assert presets.with_seed(seeded, 0) == presets.with_seed(presets.preset("debug"), 0)


@pytest.mark.parametrize(
    ("name", "near"), [("libero-quik", "libero-quick"), ("Debug", "debug"), ("spatial", "libero-spatial")]
)
def test_did_you_mean(name: str, near: str) -> None:
    with pytest.raises(SrpoError) as caught:
        presets.preset(name)
    message = str(caught.value)
    assert message.startswith(f"There is no preset '{name}'; did you mean '{near}'?")
    assert all(known in message for known in presets.PRESETS)
