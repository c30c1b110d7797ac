"""What an RL step leaves in ``groups.csv``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from srpo.step_record import StepRecord
from srpo.types import EpisodeRequest, InitialState, Task
from synthetic_training import FakeCollector, Make


def test_groups_tell_what_was_practised_and_how_it_went(tiny_policy: Make) -> None:
    task = Task("libero_object", 4, "4", "pick it up", 280)
    requests = [EpisodeRequest(task, InitialState("sampled", 70 + g), g, 0, 1.0) for g in (5, 5, 5, 6, 6)]
    won = [True, False, False, True, True]
    policy = tiny_policy(0)
    episodes = [replace(FakeCollector().episode(policy, r), success=w) for r, w in zip(requests, won, strict=True)]
    rows = StepRecord(episodes, np.array([1.0, 0.1, 0.4, 1.0, 1.0]), None, None).groups()
    assert rows == [
        {"group": 5, "task": "libero_object/4", "initial_state": "sampled-75", "episodes": 3, "successes": 1,
         "reward_failure_min": 0.1, "reward_failure_max": 0.4},
        {"group": 6, "task": "libero_object/4", "initial_state": "sampled-76", "episodes": 2, "successes": 2,
         "reward_failure_min": None, "reward_failure_max": None},
    ]  # fmt: skip
