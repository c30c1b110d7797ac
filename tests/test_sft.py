"""Behaviour cloning of the tiny policy on synthetic demonstrations."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srpo import checkpoint
from srpo.algorithms import behaviour_cloning_loss
from srpo.data.demonstrations import Demonstration, DemonstrationSet
from srpo.policies.compact import CompactConfig, CompactPolicy
from srpo.sft import SftConfig, decisions, fit, moved, recolour, train
from srpo.types import InitialState, SrpoError, Task

pytestmark = pytest.mark.usefixtures("one_thread")
TASK = Task("synthetic", 0, "follow", "follow the light", 20)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> DemonstrationSet:
    """Move right while the light is on the left of the picture, then left."""
    demos = DemonstrationSet(tmp_path_factory.mktemp("demos"))
    demos.create(("agentview",), 32, seed=0)
    for number in range(4):
        rng = np.random.default_rng(number)
        left = np.arange(12) < 6
        images = rng.integers(60, 90, (12, 32, 32, 3), dtype=np.uint8)
        for image, on_the_left in zip(images, left, strict=True):
            image[8:20, 0:12] = 250 if on_the_left else 70
            image[8:20, 20:32] = 70 if on_the_left else 250
        actions = rng.uniform(-0.1, 0.1, (12, 7)).astype(np.float32)
        actions[:, 0] = np.where(left, 0.8, -0.8)
        states = rng.normal(2.0, 3.0, (12, 8)).astype(np.float32)
        demo = Demonstration(TASK, InitialState("sampled", number), {"agentview": images}, states, actions)
        demos.add(number, TASK, demo)
    return demos


@pytest.fixture
def config(tiny_config: CompactConfig) -> SftConfig:
    return SftConfig(
        steps=40, batch=16, learning_rate=1e-2, augmentations=1, validation=0.25, validate_every=20, save_every=15,
        policy=tiny_config,
    )  # fmt: skip


def test_learns_what_was_demonstrated(demonstrations: DemonstrationSet, config: SftConfig, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    told: list[tuple[int, int]] = []
    config = replace(config, steps=100)
    policy = train(demonstrations, config, tmp_path, on_features=lambda *a: told.append(a), on_step=rows.append)
    assert [r["step"] for r in rows] == list(range(1, 101))
    loss = [r["loss"] for r in rows]
    assert np.mean(loss[-10:]) < np.mean(loss[:10]) - 1.0
    validation = {r["step"]: r["validation_loss"] for r in rows if "validation_loss" in r}
    assert list(validation) == [20, 40, 60, 80, 100] and validation[100] < validation[20]
    assert told == [(1, 3), (2, 3), (3, 3)]  # one of four is held out

    # Statistics of the demonstrations: states of mean 2 and std 3; the first action between -0.8 and 0.8.
    np.testing.assert_allclose(policy.config.state_mean, 2, atol=1.5)
    np.testing.assert_allclose(policy.config.state_std, 3, atol=1)
    assert policy.config.action_scale.low[0] == pytest.approx(-0.8) and policy.config.action_scale.high[-1] == 1.0

    demo = next(iter(demonstrations))
    inputs = policy.prepare_batch(demo.images, demo.states, TASK.instruction)
    with torch.no_grad():
        tokens = policy.logits({k: torch.from_numpy(v) for k, v in inputs.items()}).argmax(-1).numpy()
    first = policy.actions(tokens)[:, 0, 0]
    assert (first[:6] > 0.3).all() and (first[6:] < -0.3).all()

    again = CompactPolicy.from_pretrained(tmp_path / "policy")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in policy.state_dict().items())


def weights(policy: CompactPolicy) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in policy.state_dict().items()}


def test_resumed_run_equals_an_uninterrupted_one(
    demonstrations: DemonstrationSet, config: SftConfig, tmp_path: Path
) -> None:
    whole = weights(train(demonstrations, config, tmp_path / "whole"))

    class Killed(Exception):
        pass

    rows: list[dict[str, float]] = []

    def kill_at_22(row: dict[str, float]) -> None:
        rows.append({**row, "saved": checkpoint.latest_step(tmp_path / "cut/checkpoints")})
        if row["step"] == 22:
            raise Killed

    with pytest.raises(Killed):
        train(demonstrations, config, tmp_path / "cut", on_step=kill_at_22)
    assert not (tmp_path / "cut" / "policy").exists()
    assert [r["saved"] for r in rows if r["step"] in (15, 16)] == [0, 15]  # a step is told of before it is saved
    rows.clear()
    torch.rand(7)  # whatever else used the global generator
    resumed = weights(train(demonstrations, config, tmp_path / "cut", resume=True, on_step=rows.append))
    assert rows[0]["step"] == 16  # after the checkpoint of step 15
    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())


def test_seed_decides(demonstrations: DemonstrationSet, config: SftConfig, tmp_path: Path) -> None:
    config = replace(config, steps=2, validation=0.0)
    runs = [weights(train(demonstrations, replace(config, seed=s), tmp_path / str(i))) for i, s in enumerate((0, 0, 1))]
    name = "head.out.weight"
    assert torch.equal(runs[0][name], runs[1][name]) and not torch.equal(runs[0][name], runs[2][name])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"cameras": ("agentview", "wrist")}, "lack the camera.*wrist"), ({"image_size": 64}, "64 x 64 images")],
)
def test_unfit_demonstrations_are_refused(
    demonstrations: DemonstrationSet, config: SftConfig, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SrpoError, match=message):
        train(demonstrations, replace(config, policy=replace(config.policy, **change)), tmp_path)


def test_no_demonstrations(config: SftConfig, tmp_path: Path) -> None:
    empty = DemonstrationSet(tmp_path / "demos")
    empty.create(("agentview",), 32, seed=0)
    with pytest.raises(SrpoError, match="no demonstrations"):
        train(empty, config, tmp_path / "run")


def test_recolouring_changes_colours_not_places() -> None:
    images = np.zeros((3, 16, 16, 3), np.uint8) + 60
    images[:, :8] = 200
    new = recolour(images, np.random.default_rng(0))
    assert new.shape == images.shape and new.dtype == np.uint8
    means = new.astype(float).mean((1, 2))
    assert len(np.unique(means.round(3))) == 9  # every frame and colour of its own
    # The bright half stays the bright half: (200 - 60) times at least 0.8 * 0.93, less clipping at 255.
    assert (new[:, :8].mean((1, 2)) - new[:, 8:].mean((1, 2)) > 80).all()
    np.testing.assert_array_equal(new, recolour(images, np.random.default_rng(0)))
    assert (new != recolour(images, np.random.default_rng(1))).any()


def test_every_member_of_an_ensemble_is_cloned_by_itself(tiny_config: CompactConfig, tiny_inputs: Any) -> None:
    torch.manual_seed(0)
    policy = CompactPolicy(replace(tiny_config, members=2))
    data = tiny_inputs(8) | {"tokens": torch.randint(256, (8, 14)), "mask": torch.ones(8, 14, dtype=torch.bool)}
    data["state"] = policy.state_mean.repeat(8, 1)
    alone = [copy.deepcopy(m) for m in policy.members]
    config = SftConfig(steps=1, batch=8, learning_rate=1e-2, weight_decay=0.0, bin_sigma=0.0)
    (row,) = fit(policy, data, config)
    rng = np.random.default_rng([0, 2, 0])
    index = rng.integers(8, size=8)
    batch = {k: v[index] for k, v in data.items()}
    batch["state"] = batch["state"] + 0.05 * torch.from_numpy(rng.standard_normal((8, 8), dtype=np.float32))
    losses = [behaviour_cloning_loss(m.own_logits(batch), batch["tokens"], batch["mask"]).loss for m in alone]
    assert row["loss"] == pytest.approx(float(sum(losses).detach()) / 2, rel=1e-4) and losses[0] != losses[1]  # type: ignore[union-attr]
    for one, loss, now in zip(alone, losses, policy.members, strict=True):
        loss.backward()  # Adam's first step is one learning rate (1e-2 / 50 in the warm-up) against the gradient's sign
        grad, moved = one.head.out.weight.grad, now.head.out.weight - one.head.out.weight  # type: ignore[union-attr]
        clear = grad.abs() > 1e-4  # type: ignore[union-attr]
        assert clear.any() and torch.equal(moved[clear].sign(), -grad[clear].sign())  # type: ignore[index]


def test_moved_pictures_keep_what_is_beside_what() -> None:
    images = np.zeros((40, 16, 16, 3), np.uint8)
    images[:, 7, 8], images[:, 9, 5] = 200, 100  # two things, two rows and three columns apart
    new = moved(images, 3, np.random.default_rng(0))
    assert new.shape == images.shape and new.dtype == np.uint8
    bright, dim = (np.array([np.argwhere(i[..., 0] == value)[0] for i in new]) for value in (200, 100))
    np.testing.assert_array_equal(dim - bright, np.tile([2, -3], (40, 1)))
    by = bright - [7, 8]
    assert by.min(0).tolist() == [-3, -3] and by.max(0).tolist() == [3, 3]  # every picture by a step of its own
    assert len(np.unique(by, axis=0)) > 10


def test_edges_of_moved_pictures_are_repeated() -> None:
    images = np.repeat(np.arange(16, dtype=np.uint8)[None, :, None, None], 3, 3) + np.zeros((9, 1, 16, 1), np.uint8)
    for image in moved(images, 2, np.random.default_rng(1))[..., 5, 0].astype(int):
        down = 5 - image[5]
        np.testing.assert_array_equal(image, np.clip(np.arange(16) - down, 0, 15))


def test_no_shift_leaves_pictures_and_random_numbers_alone() -> None:
    images, rng = np.ones((2, 8, 8, 3), np.uint8), np.random.default_rng(0)
    assert moved(images, 0, rng) is images and rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("setting", ["augmentations", "shift"])
def test_impossible_copies_are_refused(setting: str) -> None:
    with pytest.raises(SrpoError, match="--augmentations and --shift are 0 or more"):
        SftConfig(**{setting: -1})


def test_only_copies_are_moved(demonstrations: DemonstrationSet, config: SftConfig) -> None:
    torch.manual_seed(0)
    policy, demo = CompactPolicy(config.policy), next(iter(demonstrations))
    still, shifted = (decisions(policy, demo, 3, augmentations=1, shift=s)["agentview_s16"] for s in (0, 8))
    assert len(still) == len(shifted) == 24
    assert torch.equal(still[:12], shifted[:12])
    assert (still[12:] - shifted[12:]).float().abs().amax((1, 2, 3)).min() > 0.05
