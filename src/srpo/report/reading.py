"""The report explained in plain language."""

from __future__ import annotations

from srpo.report.run import Run
from srpo.tracking.csv import number

_STARTS = {
    "held-out": "The evaluation starts from initial states that were kept out of training, so it measures what "
    "the policy can do in new situations.",
    "paper": "The evaluation starts from the benchmark's published initial states, which training used too, as "
    "in the paper: it can be higher than on new states.",
}
_SPARSE = "Failures were rewarded 0 and successes 1 (the sparse reward)."
_INTERVALS = (
    "Every success rate comes from a limited number of attempts. The Wilson 95 % interval says which true "
    "rates fit with what was seen; where the intervals before and after do not overlap, chance hardly "
    "explains the change. It covers the choice of episodes, not of the random seed of training: another "
    "seed can end higher or lower."
)


def reading(run: Run) -> list[str]:
    """Paragraphs for somebody who sees such a page for the first time."""
    grading = _SPARSE if run.training.get("reward") == "sparse" else _progress_reward(run)
    return [
        "The policy practised in the simulator: in every RL step it attempted the task several times from the "
        f"same starts, and made the actions of the better attempts more likely. {grading}",
        "The blue line is the success of these practice attempts, in which actions are drawn at random from "
        "the policy, so it usually lies lower than an evaluation with the most likely actions. The marks are "
        f"evaluations. {_STARTS.get(run.protocol, '')}".rstrip(),
        _INTERVALS,
    ]


def _progress_reward(run: Run) -> str:
    alpha = number(run.training.get("alpha"))
    most = "" if alpha is None else f" (at most {alpha:g})"
    return (
        "A success is rewarded 1. A failure is rewarded by how near it came to the policy's own successes in "
        f"the latent space of a world model{most}, so that even a group of failures can show which attempt "
        "was better."
    )
