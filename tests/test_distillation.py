"""A new policy cloned from own successes: what it imitates, and a run that goes on from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srpo import distributed
from srpo.data.successes import SuccessMemory
from srpo.distillation import DistilConfig, _join, distil, relabelled
from srpo.trainer import Trainer
from srpo.types import EpisodeRequest, SrpoError, Task
from synthetic_training import CONFIG, TASKS, FakeCollector, LastFrame, Make, trainer
from test_trainer import numbers, probability_of_success
from test_trainer_demonstrations import EndOfPicture, demonstration

CLONE = DistilConfig(every=2, steps=30, batch=32, cloning_rate=1e-2)


def memory_of(folder: Path, policy: Any, count: int = 30) -> SuccessMemory:
    """Successes of both tasks by the policy, whose deciding token is 128 or more."""
    memory = SuccessMemory(folder, 100)
    requests = trainer(policy, folder).sampler.requests(0) * (count // 6)
    requests = [EpisodeRequest(r.task, r.initial_state, r.group, seed) for seed, r in enumerate(requests)]
    memory.add(1, [FakeCollector().episode(policy, r) for r in requests], 7)
    return memory


def test_the_clone_does_what_has_succeeded(tmp_path: Path, tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    memory = memory_of(tmp_path / "m", policy)
    steps: list[int] = []
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in policy.state_dict().items()}
    new = distil(policy, memory, TASKS, CLONE, 3, steps.append)
    assert steps == list(range(1, 31)) and not new.training
    assert probability_of_success(policy) < 0.7 < 0.8 < probability_of_success(new)
    assert torch.equal(torch.get_rng_state(), state)  # nothing else of the run notices
    assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items())
    again, other = (distil(policy, memory, TASKS, CLONE, seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(v, again[k]) for k, v in new.state_dict().items())
    assert not all(torch.equal(v, other[k]) for k, v in new.state_dict().items())


def test_nothing_is_cloned_while_a_task_has_no_success(tmp_path: Path, tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    memory = memory_of(tmp_path / "m", policy)
    for file in (tmp_path / "m/1").iterdir():
        file.unlink()
    assert distil(policy, memory, TASKS, CLONE, 0) is None
    loop = trainer(policy, tmp_path, lambda request, tokens: request.task.index == 0, distil=CLONE, average=0.5)
    for _ in range(2):
        loop.step()
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    assert loop.distil_due and not loop.distil()
    assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items())
    average = loop.final_policy().state_dict()
    assert all(torch.equal(v, average[k]) for k, v in loop.average.items())


def test_the_clone_is_corrected_where_it_gets_to(tmp_path: Path, tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    memory = memory_of(tmp_path / "m", policy)
    steps: list[int] = []
    calls: list[tuple[int, int, float]] = []

    def attempts(clone: Any, number: int) -> list[tuple[Task, dict[str, torch.Tensor]]]:
        assert not clone.training
        calls.append((number, len(steps), probability_of_success(clone)))
        made = memory.own(TASKS[0])
        low = [{**e, "tokens": torch.full_like(e["tokens"], 10), "mask": torch.ones_like(e["mask"])} for e in made]
        return [(replace(TASKS[0], max_steps=3), e) for e in low * 3]  # practised with another step limit

    corrected = distil(policy, memory, TASKS, replace(CLONE, rounds=2), 3, steps.append, attempts=attempts)
    assert steps == list(range(1, 31))
    assert [c[:2] for c in calls] == [(1, 10), (2, 20)]
    # What the attempts show, that low tokens are right at task 0, outweighs the successes there from then on.
    assert probability_of_success(corrected) < calls[1][2] < calls[0][2]
    # Rounds are of those who attempt.
    alone = distil(policy, memory, TASKS, replace(CLONE, rounds=2), 3)
    plain = distil(policy, memory, TASKS, CLONE, 3)
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in alone.state_dict().items())


def test_a_clone_can_start_from_a_policy(tmp_path: Path, tiny_policy: Make) -> None:
    policy, other = tiny_policy(0), tiny_policy(1)
    memory, short = memory_of(tmp_path / "m", policy), replace(CLONE, steps=1, cloning_rate=1e-5)

    def distance(new: Any, to: Any) -> float:
        return max(float((v - to.state_dict()[k]).abs().max()) for k, v in new.state_dict().items())

    before = {k: v.clone() for k, v in other.state_dict().items()}
    assert distance(distil(policy, memory, TASKS, short, 3, start=other), other) < 1e-4
    assert distance(distil(policy, memory, TASKS, short, 3), other) > 1e-2
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_a_run_goes_on_from_the_clone(tmp_path: Path, tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    loop = trainer(policy, tmp_path, distil=CLONE, average=0.5, credit="decision")
    due = []
    for _ in range(5):
        due.append(loop.distil_due)
        if loop.distil_due:
            final = loop.final_policy()
            assert loop.distil()
            for weights in (policy.state_dict(), loop.average):
                assert all(torch.equal(v, weights[k]) for k, v in final.state_dict().items())
            assert not loop.learner.optimizer.state and not loop.value_history.batches
        loop.step()
    assert due == [False, False, True, False, True]
    assert policy is loop.learner.policy and len(loop.value_history.batches) == 1


def test_after_the_last_step_nothing_is_cloned(tmp_path: Path, tiny_policy: Make) -> None:
    loop = trainer(tiny_policy(0), tmp_path, distil=replace(CLONE, last=2), average=0.5)
    due, clones = [], []
    for _ in range(5):
        due.append(loop.distil_due)
        loop.step()
        final, average = loop.final_policy().state_dict(), loop.average
        clones.append(not all(torch.equal(v, average[k]) for k, v in final.items()))
    assert due == [False, False, True, False, False]
    assert clones == [True, True, False, False, False]
    assert {p.name[:6] for p in (tmp_path / "successes").rglob("*.safetensors")} == {"000001", "000002"}


def test_successes_are_kept_for_later_where_nothing_is_cloned(tmp_path: Path, tiny_policy: Make) -> None:
    for every, last in ((0, 0), (2, 1)):
        settings = replace(CLONE, every=every, last=last, keep=True)
        loop = trainer(tiny_policy(0), tmp_path / str(every), distil=settings, average=0.5)
        for _ in range(3):
            assert not loop.distil_due
            loop.step()
        final = loop.final_policy().state_dict()
        assert all(torch.equal(v, loop.average[k]) for k, v in final.items())
        files = (tmp_path / str(every) / "successes").rglob("*.safetensors")
        assert {p.name[:6] for p in files} == {"000001", "000002", "000003"}


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_resumed_run_with_distillation_equals_an_uninterrupted_one(tmp_path: Path, tiny_policy: Make, cut: int) -> None:
    def go(loop: Trainer, steps: int) -> list[dict[str, float]]:
        rows = []
        for _ in range(steps):
            if loop.distil_due:
                loop.distil()
            rows.append(numbers(loop.step()[0]))
            loop.save()
        return rows

    changes: dict[str, Any] = {"distil": replace(CLONE, successes=12, steps=10), "average": 0.9}
    whole = trainer(tiny_policy(0), tmp_path / "whole", **changes)
    expected = go(whole, 5)
    first = trainer(tiny_policy(0), tmp_path / "cut", **changes)
    go(first, cut)
    first.distil()  # killed in the middle of a step, whose successes are on disk already
    first.step()
    second = trainer(tiny_policy(5), tmp_path / "cut", **changes)
    assert second.resume()
    assert go(second, 5 - cut) == expected[cut:]
    ours = second.final_policy().state_dict()
    assert all(torch.equal(v, ours[k]) for k, v in whole.final_policy().state_dict().items())


def shown(loop: Trainer, tasks: Sequence[Task] = TASKS) -> None:
    """Demonstrations in pictures of the tiny policy's size; every action is 0."""
    loop.world_model = EndOfPicture()  # type: ignore[assignment]
    demonstrations = [demonstration(t) for t in tasks]
    for one in demonstrations:
        one.images["agentview"] = np.zeros((5, 32, 32, 3), np.uint8)
        one.images["agentview"][:, :10, :10] = 250
    loop.show(demonstrations)


def test_demonstrations_are_cloned_with_the_successes(tmp_path: Path, tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    loop = trainer(policy, tmp_path, lambda request, tokens: request.task.index == 0, reward="sparse", distil=CLONE)
    shown(loop)
    assert loop.final_policy() is policy  # there is no own success yet
    (kept,) = loop.successes.shown(TASKS[0])
    # Each of five control steps in three colours; at the last the chunk's second action is missing.
    assert kept["mask"].tolist() == 3 * [*4 * [[True] * 14], [True] * 7 + [False] * 7]
    loop.step()
    assert loop.final_policy() is not policy  # task 1 has no success, but a demonstration
    alone = replace(CLONE, demonstration_weight=0.0)
    assert distil(policy, loop.successes, TASKS, alone, 0) is None
    assert distil(policy, loop.successes, TASKS[:1], alone, 0) is not None
    trainer(tiny_policy(0), tmp_path, reward="sparse").show([])  # has no use for them


def test_demonstrations_are_cloned_in_moved_copies(tmp_path: Path, tiny_policy: Make) -> None:
    maps = []
    for shift in (0, 6):
        changes: dict[str, Any] = {"distil": replace(CLONE, augmentations=4, shift=shift)}
        loop = trainer(tiny_policy(0), tmp_path / str(shift), **changes)
        shown(loop)
        (kept,) = loop.successes.shown(TASKS[0])
        maps.append(kept["agentview_s8"])
    assert len(maps[0]) == len(maps[1]) == 5 * 5
    assert torch.equal(maps[0][:5], maps[1][:5]) and not torch.equal(maps[0][5:], maps[1][5:])


def test_a_label_is_what_the_policy_decides_by_the_median() -> None:
    class Fixed:
        """Four bins with probabilities by hand, of two tokens; the inputs shift them."""

        def logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            first = [[0.4, 0.2, 0.3, 0.1], [0.6, 0.2, 0.1, 0.1]]
            second = [[0.1, 0.1, 0.1, 0.7], [0.2, 0.2, 0.3, 0.3]]
            return torch.tensor([first, second]).log()[inputs["which"]]

    episode = {
        "which": torch.tensor([1, 0, 0]),
        "tokens": torch.full((3, 2), 3, dtype=torch.int16),
        "mask": torch.tensor([[True, True], [True, True], [True, False]]),
    }
    new = relabelled(Fixed(), episode)
    # Cumulative 0.4, 0.6: bin 1; 0.6: bin 0; 0.1, 0.2, 0.3, 1: bin 3; 0.2, 0.4, 0.7: bin 2.
    assert new["tokens"].tolist() == [[3, 2], [1, 0], [1, 0]] and new["tokens"].dtype == torch.int16
    assert new["mask"].all() and new["which"] is episode["which"]
    assert episode["tokens"].unique().tolist() == [3] and not episode["mask"].all()


def test_half_of_the_mass_lies_on_either_side_of_a_label(tmp_path: Path, tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    (episode, *_) = memory_of(tmp_path / "m", policy).own(TASKS[0])
    inputs = {k: v for k, v in episode.items() if k not in ("tokens", "mask")}
    upto = policy.logits(inputs).detach().double().softmax(-1).cumsum(-1)
    labels = relabelled(policy, episode)["tokens"].long()[..., None]
    below = torch.where(labels > 0, upto.gather(-1, (labels - 1).clamp(min=0)), 0.0)
    assert (below <= 0.5 + 1e-6).all() and (upto.gather(-1, labels) >= 0.5 - 1e-6).all()
    assert not torch.equal(labels[..., 0], episode["tokens"].long())  # which were sampled


def test_how_often_a_decision_is_drawn() -> None:
    def episodes(*lengths: int) -> list[dict[str, torch.Tensor]]:
        return [{"tokens": torch.full((n, 1), n)} for n in lengths]

    data, weights = _join([episodes(2, 2), episodes(1)], [episodes(9), episodes(16)], 0.5)
    assert data["tokens"].flatten().tolist() == [2, 2, 2, 2, 1] + [9] * 9 + [16] * 16
    # Own tasks count sqrt(4) : sqrt(1), demonstrated ones sqrt(9) : sqrt(16); two of
    # weight 0.5 beside three successes are a quarter in all.
    sums = [weights[:4].sum(), weights[4], weights[5:14].sum(), weights[14:].sum()]
    np.testing.assert_allclose(sums, [0.75 * 2 / 3, 0.75 / 3, 0.25 * 3 / 7, 0.25 * 4 / 7])
    assert weights[0] == weights[3] and weights[5] == weights[13]
    np.testing.assert_allclose(_join([episodes(2, 2), episodes(1)], [], 0.5)[1].sum(), 1)


def test_policies_that_cannot_be_cloned_in_a_run(tmp_path: Path, tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    two = distributed.World(0, 2)
    with pytest.raises(SrpoError, match="kept by one process"):
        Trainer(
            trainer(policy, tmp_path, distil=CLONE).config, policy, TASKS, FakeCollector(), LastFrame(), tmp_path, two
        )  # type: ignore[arg-type]
    closed = type("Closed", (torch.nn.Module,), {})()
    closed.inner = policy
    with pytest.raises(SrpoError, match=r"leave --distil\.every and --distil\.keep out"):
        trainer(closed, tmp_path, distil=CLONE)
    assert not CONFIG.distil.every
