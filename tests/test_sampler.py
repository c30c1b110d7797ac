"""Which episodes are practised: groups, balance over tasks, reproducibility, and states kept apart."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpo.sampler import (
    FailedStates,
    GroupSampler,
    RecentOutcomes,
    demonstration_state,
    evaluation_states,
    train_state,
)
from srpo.types import InitialState, SrpoError, Task

TASKS = [Task("suite", i, f"task{i}", "do it", 100) for i in range(3)]
SAMPLER = GroupSampler(TASKS, groups=4, group_size=3, protocol="held-out", seed=0, temperature=1.6)


def test_a_group_shares_task_and_state_and_differs_in_seed() -> None:
    requests = SAMPLER.requests(2)
    assert [r.group for r in requests] == [8, 8, 8, 9, 9, 9, 10, 10, 10, 11, 11, 11]
    for g in range(4):
        group = requests[3 * g : 3 * g + 3]
        assert len({(r.task.id, r.initial_state) for r in group}) == 1
        assert len({r.seed for r in group}) == 3
    assert {r.temperature for r in requests} == {1.6} and not any(r.keep_frames for r in requests)


def test_steps_can_be_asked_for_in_any_order() -> None:
    again = GroupSampler(TASKS, groups=4, group_size=3, protocol="held-out", seed=0, temperature=1.6)
    later = again.requests(5)
    assert again.requests(1) == SAMPLER.requests(1) and later == SAMPLER.requests(5)
    assert SAMPLER.requests(1) != SAMPLER.requests(2)
    assert SAMPLER.requests(1) != replace(SAMPLER, seed=1).requests(1)


def test_tasks_take_turns() -> None:
    # 3 steps of 4 groups are 4 rounds of 3 tasks: each task 4 times, and once in every round.
    tasks = [r.task.index for step in range(3) for r in SAMPLER.requests(step)[::3]]
    assert Counter(tasks) == {0: 4, 1: 4, 2: 4}
    rounds = [tuple(tasks[i : i + 3]) for i in range(0, 12, 3)]
    assert all(sorted(r) == [0, 1, 2] for r in rounds) and len(set(rounds)) > 1


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3), step=st.integers(0, 50), groups=st.integers(1, 9)
)
def test_by_weight_every_task_has_its_share_up_to_rounding(weights: list[float], step: int, groups: int) -> None:
    sampler = replace(SAMPLER, groups=groups)
    requests = sampler.requests(step, np.array(weights))
    assert requests == sampler.requests(step, np.array(weights))
    assert [r.group for r in requests[::3]] == list(range(step * groups, (step + 1) * groups))
    count = Counter(r.task.index for r in requests[::3])
    for index, weight in enumerate(weights):
        share = groups * weight / sum(weights)
        assert share - 1 < count[index] < share + 1


def test_by_weight_the_share_is_right_on_average() -> None:
    count = Counter(r.task.index for step in range(400) for r in SAMPLER.requests(step, np.array([0.5, 0.3, 0.2])))
    assert [count[i] / 4800 for i in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.02)


def test_uncertain_tasks_are_practised_most() -> None:
    outcomes = RecentOutcomes(["a", "b", "c"], window=4)
    assert outcomes.weights().tolist() == [0.5, 0.5, 0.5] and outcomes.success() == 0.0
    outcomes.add(["a"] * 6 + ["b"] * 2, [False, False, True, True, True, True, True, False])
    # a: the last four of six are successes, 5 of 6 with the prior; b: one of two, 2 of 4; c: nothing.
    np.testing.assert_allclose(outcomes.weights(), [np.sqrt(5 / 36), 0.5, 0.5])
    np.testing.assert_allclose(outcomes.weights("failing"), [1 / 6, 0.5, 0.5])
    assert outcomes.rates() == {"a": 1.0, "b": 0.5}
    assert outcomes.success() == pytest.approx((1.0 + 0.5) / 2)
    again = RecentOutcomes(["b", "a", "d"], window=4)
    again.load_state_dict(json.loads(json.dumps(outcomes.state_dict())))
    np.testing.assert_allclose(again.weights(), [0.5, np.sqrt(5 / 36), 0.5])


def test_no_training_state_twice_unless_asked() -> None:
    def states(sampler: GroupSampler) -> list[InitialState]:
        return [r.initial_state for step in range(50) for r in sampler.requests(step)[::3]]

    assert len(set(states(SAMPLER))) == 200
    assert set(states(replace(SAMPLER, train_states=5))) == {train_state("held-out", i) for i in range(5)}


def test_states_that_failed_are_taken_up_again_by_the_spread_of_their_outcomes() -> None:
    failed = FailedStates(["a", "b"], capacity=3)
    rng = np.random.default_rng(0)
    half, seven, never, solved = (InitialState("sampled", i) for i in range(4))
    assert failed.draw("a", rng) is None
    failed.add("a", half, [True, False])
    failed.add("a", seven, [True] * 7 + [False])
    failed.add("a", never, [False] * 8)
    failed.add("a", solved, [True] * 8)
    count = Counter(failed.draw("a", rng) for _ in range(4000))
    # sqrt(p (1 - p)) with p = (1 + 1) / 4, (7 + 1) / 10 and (0 + 1) / 10: 0.5, 0.4 and 0.3.
    total = 0.5 + 0.4 + 0.3
    assert count[half] / 4000 == pytest.approx(0.5 / total, abs=0.03)
    assert count[never] / 4000 == pytest.approx(0.3 / total, abs=0.03)
    assert count[solved] == 0 and failed.draw("b", rng) is None
    assert failed.draw("a", rng, {half, seven}) == never and failed.draw("a", rng, {half, seven, never}) is None
    failed.add("a", seven, [True] * 8)  # solved by now
    failed.add("a", half, [False, False])
    again = FailedStates(["a", "c"], capacity=3)
    again.load_state_dict(json.loads(json.dumps(failed.state_dict())))
    assert {again.draw("a", rng) for _ in range(50)} == {half, never}
    new = [InitialState("sampled", i) for i in (7, 8)]
    for state in new:  # one more than there is room for; `never` was practised before `half`
        again.add("a", state, [False])
    assert {again.draw("a", rng) for _ in range(100)} == {half, *new}


def test_a_share_of_the_groups_takes_up_states_that_failed() -> None:
    failed = FailedStates([t.id for t in TASKS])
    known = [train_state("held-out", 10**5 + i) for i in range(3)]
    for state in known:
        failed.add(TASKS[0].id, state, [True, False])
    groups = [r for step in range(100) for r in SAMPLER.requests(step, None, failed, 0.5)[::3]]
    share = {t.index: np.mean([r.initial_state in known for r in groups if r.task is t]) for t in TASKS}
    assert share[0] == pytest.approx(0.5, abs=0.12) and share[1] == share[2] == 0
    # The others are those that the step would have had anyway, and no state twice in a step.
    plain = [r for step in range(100) for r in SAMPLER.requests(step)[::3]]
    assert all(
        r in (p, replace(p, initial_state=r.initial_state, again=True)) for r, p in zip(groups, plain, strict=True)
    )
    assert all(r.again == (r.initial_state in known) for r in groups)
    once = replace(SAMPLER, tasks=TASKS[:1], groups=3).requests(0, None, failed, 1.0)
    assert {r.initial_state for r in once} == set(known)
    assert SAMPLER.requests(4, None, failed, 0.0) == SAMPLER.requests(4)


def test_probes_are_single_attempts_at_new_states() -> None:
    sampler = replace(SAMPLER, probes=5)
    failed = FailedStates([t.id for t in TASKS])
    known = [train_state("held-out", 10**5 + i) for i in range(20)]
    for task in TASKS:
        for state in known:
            failed.add(task.id, state, [False])
    steps = [sampler.requests(step, np.array([0.98, 0.01, 0.01]), failed, 1.0) for step in range(30)]
    assert [r.group for r in steps[2]] == [18, 18, 18, 19, 19, 19, 20, 20, 20, 21, 21, 21, 22, 23, 24, 25, 26]
    groups = [r for step in steps for r in step[:12]]
    probes = [r for step in steps for r in step[12:]]
    assert all(r.again and r.initial_state in known for r in groups)
    # 150 probes: every task 50 times, whatever the weights of the groups, each at a state of its own.
    assert Counter(r.task.index for r in probes) == {0: 50, 1: 50, 2: 50}
    assert len({r.initial_state for r in probes}) == 150 and not any(r.again for r in probes)
    assert steps[7] == sampler.requests(7, np.array([0.98, 0.01, 0.01]), failed, 1.0)


def test_held_out_protocol_keeps_all_purposes_apart() -> None:
    training = {train_state("held-out", i) for i in (*range(2000), 999_999, 1_000_000)}
    evaluation = set(evaluation_states("held-out", 2000))
    demonstrations = {demonstration_state(i) for i in range(2000)}
    assert len(evaluation) == 2000
    assert not training & evaluation and not training & demonstrations and not evaluation & demonstrations
    assert {s.kind for s in training | demonstrations} == {"sampled"}


def test_evaluation_begins_with_the_published_states() -> None:
    states = evaluation_states("held-out", 52)
    assert states[:50] == [InitialState("published", i) for i in range(50)]
    assert [s.kind for s in states[50:]] == ["sampled", "sampled"] and states[50] != states[51]
    assert evaluation_states("paper", 3) == states[:3]


def test_paper_protocol_trains_on_the_published_states() -> None:
    assert train_state("paper", 53) == InitialState("published", 3)
    sampler = replace(SAMPLER, protocol="paper")
    states = {r.initial_state for step in range(100) for r in sampler.requests(step)}
    assert states == set(evaluation_states("paper", 50))


def test_impossible_wishes_are_refused() -> None:
    with pytest.raises(SrpoError, match="51 were asked for"):
        evaluation_states("paper", 51)
    for call in (lambda: train_state("train", 0), lambda: evaluation_states("train", 1)):
        with pytest.raises(SrpoError, match="held-out or paper"):
            call()
