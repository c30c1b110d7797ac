"""How the actions of an evaluation are chosen."""

from __future__ import annotations

import pytest

from srpo.evaluation.evaluate import evaluation_requests
from srpo.types import InitialState, SrpoError, Task

TASK = Task("suite", 0, "name", "do it", 10)


@pytest.mark.parametrize(
    ("temperature", "decoding", "expected"),
    [
        (0.0, None, (0.0, False)),
        (0.7, None, (0.7, False)),
        (0.7, "greedy", (0.0, False)),
        (0.7, "sample", (0.7, False)),
        (0.4, "median", (1.0, True)),
    ],
)
def test_decodings(temperature: float, decoding: str | None, expected: tuple[float, bool]) -> None:
    requests = evaluation_requests([TASK], "held-out", 3, temperature, 1, decoding)
    assert [(r.temperature, r.median) for r in requests] == [expected] * 3
    assert [r.keep_frames for r in requests] == [True, False, False]


def test_the_last_practised_states_newest_first() -> None:
    groups = [("suite/0", "sampled-3"), ("suite/1", "sampled-4"), ("suite/0", "published-7"), ("suite/0", "sampled-3"),
              ("suite/0", "sampled-5")]  # fmt: skip
    rows = [{"task": task, "initial_state": state} for task, state in groups]
    requests = evaluation_requests([TASK], "held-out", 2, practised=rows)
    # sampled-3 was new before published-7 was, and then taken up again.
    assert [r.initial_state for r in requests] == [InitialState("sampled", 5), InitialState("published", 7)]
    assert len(evaluation_requests([TASK], "held-out", 9, practised=rows)) == 3
    with pytest.raises(SrpoError, match=r"Nothing was practised at suite/0"):
        evaluation_requests([TASK], "held-out", 2, practised=rows[1:2])
    with pytest.raises(SrpoError, match="'elsewhere' is no initial state"):
        evaluation_requests([TASK], "held-out", 2, practised=[{"task": "suite/0", "initial_state": "elsewhere"}])


def test_what_cannot_be_decoded() -> None:
    with pytest.raises(SrpoError, match=r"'beam'.*greedy, median, sample"):
        evaluation_requests([TASK], "held-out", 3, 0.0, 0, "beam")
    with pytest.raises(SrpoError, match="--temperature"):
        evaluation_requests([TASK], "held-out", 3, 0.0, 0, "sample")
