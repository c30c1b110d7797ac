"""The update: which tokens it reads, and its gradient worked out by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from srpo.learner import Decisions, Learner, LearnerConfig, flatten
from srpo.policies.base import token_log_probs
from srpo.policies.compact import CompactPolicy
from srpo.types import Episode, EpisodeRequest, InitialState, SrpoError, Task

pytestmark = pytest.mark.usefixtures("one_thread")
TASK = Task("suite", 0, "name", "do it", 10)


class Table(nn.Module):
    """A policy of L = 2 tokens of K = 3 bins: the logits of situation s are row s of a table."""

    def __init__(self, situations: int = 2) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(situations * 6, dtype=torch.float32).reshape(situations, 2, 3) / 10)

    def logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.table[inputs["situation"].long()]


def episode(tokens: list[list[int]], executed: list[int], situation: int = 0) -> Episode:
    t = len(tokens)
    return Episode(
        request=EpisodeRequest(TASK, InitialState("sampled", 0), 0, 0),
        success=False,
        n_steps=sum(executed),
        inputs={"situation": np.full(t, situation, np.int32)},
        tokens=np.array(tokens, np.int16),
        log_probs=-np.arange(1, 2 * t + 1, dtype=np.float32).reshape(t, 2),
        executed=np.array(executed, np.int16),
    )


def on_policy(policy: nn.Module, inputs: dict, tokens: torch.Tensor, advantage: list[float], mask=None, t=1.0):
    """Decisions as if the policy itself had just sampled them."""
    with torch.no_grad():
        log_prob, _ = token_log_probs(policy.logits(inputs), tokens, t)  # type: ignore[operator]
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    return Decisions(inputs, tokens, log_prob, torch.tensor(advantage, dtype=torch.float32), mask)


def table_decisions(policy: Table, temperature: float = 1.0) -> Decisions:
    return on_policy(
        policy,
        {"situation": torch.tensor([0, 1, 0])},
        torch.tensor([[0, 1], [2, 2], [1, 0]]),
        [1.0, -2.0, 0.5],
        torch.tensor([[True, True], [True, False], [True, True]]),
        temperature,
    )


def test_flatten_leaves_out_what_teaches_nothing() -> None:
    episodes = [episode([[0, 1], [2, 0]], [2, 1]), episode([[1, 1]], [1]), episode([[2, 2]], [2], situation=1)]
    d = flatten(episodes, np.array([0.5, 0.0, -1.5]), action_dim=1)
    assert len(d) == 3
    assert d.tokens.tolist() == [[0, 1], [2, 0], [2, 2]]
    assert d.inputs["situation"].tolist() == [0, 0, 1]
    assert d.old_log_prob.tolist() == [[-1, -2], [-3, -4], [-1, -2]]
    assert d.advantage.tolist() == [0.5, 0.5, -1.5]
    assert d.mask.tolist() == [[True, True], [True, False], [True, True]]
    part = d.take(torch.tensor([2, 0]))
    assert part.tokens.tolist() == [[2, 2], [0, 1]] and part.advantage.tolist() == [-1.5, 0.5]
    assert part.inputs["situation"].tolist() == [1, 0] and part.mask.all() and part.old_log_prob[0, 1] == -2


def test_mask_covers_whole_actions() -> None:
    # Chunks of 3 actions of 2 dims; one action carried out: its two tokens count.
    e = episode([[0, 0]], [1])
    e.tokens, e.log_probs = np.zeros((1, 6), np.int16), np.zeros((1, 6), np.float32)
    d = flatten([e], np.array([1.0]), action_dim=2)
    assert d.mask.tolist() == [[True, True, False, False, False, False]]


def test_tokens_weigh_what_their_dimension_does() -> None:
    # Chunks of 3 actions of 2 dims; two actions carried out.
    e = episode([[0, 0]], [2])
    e.tokens, e.log_probs = np.zeros((1, 6), np.int16), np.zeros((1, 6), np.float32)
    d = flatten([e], np.array([1.0]), action_dim=2, weights=np.array([1.0, 0.25]))
    assert d.mask.tolist() == [[1.0, 0.25, 1.0, 0.25, 0.0, 0.0]]


def test_gradient_of_weighted_tokens_by_hand() -> None:
    """d loss / d logits = -w A (onehot - p) / sum of w: the second token weighs a quarter, 0.2 of both."""
    policy = Table()
    learner = Learner(policy, LearnerConfig(epochs=1, minibatch=8, grad_clip=100.0), temperature=1.0, seed=0)
    inputs, tokens = {"situation": torch.tensor([0])}, torch.tensor([[1, 2]])
    p = policy.logits(inputs)[0].softmax(-1).detach()
    batch = on_policy(policy, inputs, tokens, [2.0], torch.tensor([[1.0, 0.25]]))
    learner._minibatch(batch, 1.0, 0)
    onehot = nn.functional.one_hot(tokens[0], 3)
    assert policy.table.grad is not None
    torch.testing.assert_close(policy.table.grad[0], -2.0 * torch.tensor([[0.8], [0.2]]) * (onehot - p))


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(SrpoError, match="nothing to learn from"):
        flatten([episode([[0, 0]], [1])], np.array([0.0]), action_dim=1)


@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_first_gradient_is_the_plain_policy_gradient(temperature: float) -> None:
    """With one minibatch and one epoch all ratios are 1, so d loss / d logits = -A (onehot - p) / (T N)."""
    policy = Table()
    p = torch.softmax(policy.table.detach() / temperature, -1).numpy()
    expected = np.zeros((2, 2, 3))
    counted = [(0, 0, 0, 1.0), (0, 1, 1, 1.0), (1, 0, 2, -2.0), (0, 0, 1, 0.5), (0, 1, 0, 0.5)]
    for situation, place, token, advantage in counted:  # N = 5: one of the six tokens was not carried out
        onehot = np.eye(3)[token]
        expected[situation, place] -= advantage * (onehot - p[situation, place]) / temperature / 5
    learner = Learner(policy, LearnerConfig(epochs=1, minibatch=3, grad_clip=1e9), temperature, seed=0)
    stats = learner.update(table_decisions(policy, temperature), step=0)
    np.testing.assert_allclose(policy.table.grad, expected, atol=1e-7)
    assert stats["ratio_min"] == stats["ratio_max"] == 1.0
    assert stats["approx_kl"] == stats["clip_fraction"] == 0.0
    assert stats["policy_loss"] == pytest.approx(-(1.0 * 2 - 2.0 + 0.5 * 2) / 5)
    assert stats["grad_norm"] == pytest.approx(np.linalg.norm(expected), rel=1e-5)
    assert (stats["decisions"], stats["gradient_steps"]) == (3, 1)


def test_first_step_of_adam_moves_every_logit_by_the_learning_rate_against_its_gradient() -> None:
    policy = Table()
    before = policy.table.detach().clone()
    Learner(policy, LearnerConfig(learning_rate=0.01, epochs=1, minibatch=3, warmup=0), 1.0, seed=0).update(
        table_decisions(policy), step=0
    )
    moved = (policy.table.detach() - before).numpy()
    gradient = policy.table.grad.numpy()
    assert (gradient[1, 1] == 0).all() and (moved[1, 1] == 0).all()  # that token was not carried out
    used = gradient != 0
    np.testing.assert_allclose(moved[used], -0.01 * np.sign(gradient[used]), rtol=1e-3)


def test_compact_policy_meets_the_same_gradient(
    tiny_policy: Callable[[int], CompactPolicy], tiny_inputs: Callable[..., dict[str, torch.Tensor]]
) -> None:
    policy, inputs = tiny_policy(0), tiny_inputs(6)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 14)))
    advantage = [1.0, -1.0, 0.5, 2.0, -0.3, -0.7]
    by_hand = copy.deepcopy(policy)
    log_prob = torch.log_softmax(by_hand.logits(inputs) / 1.2, -1).gather(-1, tokens[..., None])[..., 0]
    (-(torch.tensor(advantage)[:, None] * log_prob).sum() / (6 * 14)).backward()
    learner = Learner(policy, LearnerConfig(epochs=1, minibatch=6, grad_clip=1e9), 1.2, seed=0)
    stats = learner.update(on_policy(policy, inputs, tokens, advantage, t=1.2), step=0)
    assert stats["ratio_min"] == pytest.approx(1, abs=1e-4) and stats["ratio_max"] == pytest.approx(1, abs=1e-4)
    for (name, ours), theirs in zip(policy.named_parameters(), by_hand.parameters(), strict=True):
        np.testing.assert_allclose(ours.grad, theirs.grad, atol=2e-5, err_msg=name)


def test_rewarded_tokens_become_likelier_and_punished_ones_rarer() -> None:
    policy = Table()
    decisions = table_decisions(policy)
    learner = Learner(policy, LearnerConfig(learning_rate=0.02, epochs=3, minibatch=2), 1.0, seed=0)
    stats = learner.update(decisions, step=0)
    with torch.no_grad():
        new, _ = token_log_probs(policy.logits(decisions.inputs), decisions.tokens, 1.0)
    change = (new - decisions.old_log_prob).numpy()
    assert change[0, 0] > 0 and change[0, 1] > 0 and change[1, 0] < 0 and change[1, 1] == 0
    assert stats["gradient_steps"] == 6 and stats["ratio_max"] > 1 > stats["ratio_min"]
    assert not policy.training


def test_clip_stops_a_token_whose_ratio_has_left_the_range() -> None:
    policy = Table(1)
    tokens = torch.tensor([[0, 1]])
    decisions = on_policy(policy, {"situation": torch.tensor([0])}, tokens, [1.0])
    # The policy already gives the first token 1.3 times its old probability (beyond 1.28), the second 1.2 times.
    decisions.old_log_prob -= torch.log(torch.tensor([[1.3, 1.2]]))
    learner = Learner(policy, LearnerConfig(epochs=1, minibatch=1, grad_clip=1e9), 1.0, seed=0)
    stats = learner.update(decisions, step=0)
    assert (policy.table.grad[0, 0] == 0).all()
    p = torch.softmax(torch.tensor([0.3, 0.4, 0.5]), -1)
    np.testing.assert_allclose(policy.table.grad[0, 1], -1.2 / 2 * (torch.tensor([0, 1, 0]) - p), rtol=1e-4)
    assert stats["clip_fraction"] == 0.5 and stats["ratio_max"] == pytest.approx(1.3)


def test_gradient_is_clipped_to_its_norm() -> None:
    policy = Table()
    learner = Learner(policy, LearnerConfig(epochs=1, minibatch=3, grad_clip=0.01), 1.0, seed=0)
    stats = learner.update(table_decisions(policy), step=0)
    assert stats["grad_norm"] > 0.1
    assert float(policy.table.grad.norm()) == pytest.approx(0.01, rel=1e-3)


def test_reference_is_the_policy_before_rl() -> None:
    policy = Table()
    learner = Learner(policy, LearnerConfig(learning_rate=0.05, epochs=1, minibatch=3, kl_weight=0.1), 1.0, seed=0)
    start = policy.table.detach().clone()
    assert learner.update(table_decisions(policy), step=0)["reference_kl"] == 0.0
    assert learner.update(table_decisions(policy), step=1)["reference_kl"] > 0.0
    assert torch.equal(learner.reference.table, start)


def test_epochs_end_early_at_the_kl_limit() -> None:
    def steps(limit: float | None) -> float:
        policy = Table()
        config = LearnerConfig(learning_rate=0.3, epochs=4, minibatch=3, target_kl=limit)
        return Learner(policy, config, 1.0, seed=0).update(table_decisions(policy), step=0)["gradient_steps"]

    # The first minibatch is on-policy (KL 0); the second sees what a large step did and is the last.
    assert (steps(None), steps(1e-6), steps(1e6)) == (4, 2, 4)


def test_order_of_minibatches_follows_from_seed_and_step() -> None:
    def weights(seed: int, step: int) -> torch.Tensor:
        policy = Table()
        config = LearnerConfig(learning_rate=0.1, epochs=2, minibatch=1)
        Learner(policy, config, 1.0, seed).update(table_decisions(policy), step)
        return policy.table.detach()

    assert torch.equal(weights(0, 5), weights(0, 5))
    assert any(not torch.equal(weights(0, 5), weights(0, step)) for step in range(6, 10))
    assert any(not torch.equal(weights(0, 5), weights(seed, 5)) for seed in range(1, 5))


def test_not_a_number_stops_the_run_and_leaves_the_weights() -> None:
    policy = Table()
    decisions = table_decisions(policy)
    decisions.advantage[0] = float("nan")
    before = policy.table.detach().clone()
    with pytest.raises(SrpoError, match=r"smaller learning rate|NaN or infinity"):
        Learner(policy, LearnerConfig(minibatch=3), 1.0, seed=0).update(decisions, step=0)
    assert torch.equal(policy.table.detach(), before)


def test_a_minibatch_that_is_not_full_weighs_less() -> None:
    def gradient(minibatch: int) -> torch.Tensor:
        policy = Table()
        config = LearnerConfig(epochs=1, minibatch=minibatch, grad_clip=1e9)
        Learner(policy, config, 1.0, seed=0).update(table_decisions(policy).take(torch.tensor([0])), step=0)
        return policy.table.grad

    torch.testing.assert_close(gradient(4), gradient(1) / 4)


def test_warm_up_and_schedule_set_the_learning_rate(tiny_policy) -> None:
    config = LearnerConfig(learning_rate=1.0, warmup=4)
    learner = Learner(tiny_policy(0), config, temperature=1.0, seed=0)
    learner._set_learning_rate(0.5)  # first of 4 warm-up steps, half-way through the run: 1 * 0.5 * 1/4
    assert learner.optimizer.param_groups[0]["lr"] == 0.125
    for _ in range(3):
        for p in learner.parameters:
            p.grad = torch.zeros_like(p)
        learner.optimizer.step()
    learner._set_learning_rate(0.5)  # three steps taken, this is the fourth: fully warm
    assert learner.optimizer.param_groups[0]["lr"] == 0.5


class Sized(Table):
    """The table, whose situation s is s + 1 tokens long."""

    def sizes(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs["situation"].long() + 1


def test_parts_of_a_minibatch_keep_to_the_budget_and_put_like_with_like() -> None:
    policy = Sized(4)
    tokens = torch.zeros(6, 2, dtype=torch.long)
    batch = on_policy(policy, {"situation": torch.tensor([3, 0, 2, 0, 3, 1])}, tokens, [1.0] * 6)
    parts = Learner(policy, LearnerConfig(budget=5), 1.0, 0)._parts(batch)
    sizes = [(p.inputs["situation"] + 1).tolist() for p in parts]
    # In order of length 1 1 2 3 4 4: two of one token would fit with the two (3 x 2 > 5: no), and so on.
    assert sizes == [[1, 1], [2], [3], [4], [4]]
    assert [len(p) for p in Learner(Table(), LearnerConfig(budget=4), 1.0, 0)._parts(batch)] == [4, 2]


@pytest.mark.parametrize("budget", [1, 3, 4])
def test_parts_add_up_to_the_gradient_of_the_whole(budget: int) -> None:
    whole, parted = Sized(3), Sized(3)
    tokens = torch.tensor([[0, 1], [2, 0], [1, 1], [0, 2], [2, 2]])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 1], [1, 1]], dtype=torch.bool)
    inputs = {"situation": torch.tensor([0, 1, 2, 1, 0])}
    batch = on_policy(whole, inputs, tokens, [1.0, -0.5, 2.0, 0.3, -1.0], mask)
    one = Learner(whole, LearnerConfig(grad_clip=100.0), 1.0, 0)._minibatch(batch, 1.0, 0)
    other = Learner(parted, LearnerConfig(grad_clip=100.0, budget=budget), 1.0, 0)._minibatch(batch, 1.0, 0)
    torch.testing.assert_close(parted.table.grad, whole.table.grad)
    assert other == pytest.approx(one, abs=1e-6)


def test_frozen_parts_have_no_gradient_and_unknown_ones_are_named(tiny_policy: Callable[[int], CompactPolicy]) -> None:
    policy = tiny_policy(0)
    learner = Learner(policy, LearnerConfig(frozen=("head", "trunk.0")), 1.0, seed=0)
    trained = {n for n, p in policy.named_parameters() if p.requires_grad}
    assert len(learner.parameters) == len(trained) > 0
    assert "trunk.1.net.1.weight" in trained and not any(n.startswith(("head.", "trunk.0.")) for n in trained)
    two = CompactPolicy(replace(policy.config, members=2))
    Learner(two, LearnerConfig(frozen=("head",)), 1.0, seed=0)
    still = {n for n, p in two.named_parameters() if not p.requires_grad}
    assert still == {f"{m}head.out.{w}" for m in ("", "others.0.") for w in ("weight", "bias")}
    with pytest.raises(SrpoError, match=r"no part 'tru'.*instruction, eyes, trunk, head"):
        Learner(tiny_policy(0), LearnerConfig(frozen=("tru",)), 1.0, seed=0)
    with pytest.raises(SrpoError, match="All of the policy is frozen"):
        Learner(Table(), LearnerConfig(frozen=("table",)), 1.0, seed=0)
