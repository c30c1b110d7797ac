"""How the actions of an evaluation are chosen."""

from __future__ import annotations

import pytest

from srpo.evaluation.evaluate import evaluation_requests
from srpo.types import SrpoError, Task

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


def test_what_cannot_be_decoded() -> None:
    with pytest.raises(SrpoError, match=r"'beam'.*greedy, median, sample"):
        evaluation_requests([TASK], "held-out", 3, 0.0, 0, "beam")
    with pytest.raises(SrpoError, match="--temperature"):
        evaluation_requests([TASK], "held-out", 3, 0.0, 0, "sample")
