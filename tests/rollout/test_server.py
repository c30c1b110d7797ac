"""One policy for all workers: the same decisions, whoever else is waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_runner import CONFIG, request, same

from srpo.policies.base import Inputs
from srpo.policies.compact import CompactPolicy
from srpo.rollout.collector import Collector
from srpo.rollout.runner import RolloutConfig
from srpo.rollout.server import PolicyServer
from srpo.types import SrpoError


def _questions(policy: CompactPolicy, count: int) -> list[Inputs]:
    rng = np.random.default_rng(0)
    images = {c: rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8) for c in policy.config.cameras}
    inputs = policy.prepare_batch(images, rng.standard_normal((count, 8)), "go to the right")
    return [{k: v[i] for k, v in inputs.items()} for i in range(count)]


def test_answers_are_the_policys_logits_in_order(tiny_policy: Callable[[int], CompactPolicy]) -> None:
    server = PolicyServer(batch=4)
    server.policy = tiny_policy(0)
    questions = _questions(server.policy, 6)
    answers = list(server(questions))
    assert (server.forwards, server.decisions) == (2, 6)
    for question, answer in zip(questions, answers, strict=True):
        with torch.no_grad():
            expected = server.policy.logits({k: torch.from_numpy(v[None]) for k, v in question.items()})[0].numpy()
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected, atol=1e-4)


def test_a_decision_does_not_depend_on_who_else_waits(
    one_thread: None, tiny_policy: Callable[[int], CompactPolicy]
) -> None:
    server = PolicyServer(batch=4)
    server.policy = tiny_policy(0)
    questions = _questions(server.policy, 3)
    together = list(server(questions))
    for question, answer in zip(questions, together, strict=True):
        np.testing.assert_array_equal(next(server([question])), answer)


def test_episodes_are_those_of_local_decisions_on_any_number_of_workers(
    tiny_policy: Callable[[int], CompactPolicy],
) -> None:
    requests = [request(seed=s, solved_after=s % 4 + 2) for s in range(6)]
    collected = {}
    for inference, workers in (("worker", 1), ("server", 1), ("server", 3)):
        with Collector(tiny_policy(0), replace(CONFIG, inference=inference, server_batch=2), workers) as collector:
            collector.collect(tiny_policy(1), requests[:1])
            collected[inference, workers] = collector.collect(tiny_policy(0), requests)
            assert not collector.pool.stats.restarts
            if collector.server is not None:  # the first call's and the second's
                answered = [len(e.tokens) for e in collected[inference, workers]]
                assert collector.server.decisions == sum(answered) + answered[0]
    one, three = collected["server", 1], collected["server", 3]
    assert all(same(a, b) for a, b in zip(one, three, strict=True))
    for a, b in zip(one, collected["worker", 1], strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(a.log_probs, b.log_probs, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"), [({"inference": "cloud"}, "worker or server"), ({"server_batch": 0}, "at least 1")]
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(SrpoError, match=message):
        RolloutConfig(**settings)


def test_a_policy_on_the_cpu_goes_to_the_workers(tiny_policy: Callable[[int], CompactPolicy]) -> None:
    with Collector(tiny_policy(0), CONFIG, workers=1) as collector:
        assert collector.server is None
