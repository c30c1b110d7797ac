"""What ``libero_suite.py``, ``specialists.py`` and ``hard_start.py`` run: presets, starts, and methods as options."""

from __future__ import annotations

from pathlib import Path

PRESET = {"libero_spatial": "libero-spatial", "libero_object": "libero-object"}
#: Gradient steps of cloning, where not the preset's. (A clone that was stopped early gains from the demonstrations when
#: they are cloned again: compare with one that was not, or set --distil.demonstration-weight 0.)
STARTS: dict[str, dict[str, int]] = {"easy": {}, "hard": {"libero_spatial": 200, "libero_object": 150}}
_DEMOS = ["--demonstrations", "DEMOS"]  # the folder is put in
_EPISODE = ["--credit", "episode", "--normalise-std", "True"]
_NO_DISTIL = ["--distil.every", "0"]
_PAPER = [*_DEMOS, "--clustering", "dbscan", "--replay", "64", "--normalise-std", "True", "--fade-grades", "False"]
_SPARSE = ["--reward", "sparse", "--task-sampling", "uncertain"]
_POTENTIAL = ["--potential", "True"]
METHODS: dict[str, list[str]] = {
    "srpo": _DEMOS,
    "grpo": [*_DEMOS, *_SPARSE, *_EPISODE],
    "sparse": [*_DEMOS, *_SPARSE],  # GRPO with credit by decision
    "srpo-no-distil": [*_DEMOS, *_NO_DISTIL],
    "grpo-no-distil": [*_SPARSE, *_EPISODE, *_NO_DISTIL],
    # Nothing but new policies, to the end.
    "clone-only": [*_DEMOS, *_SPARSE, "--learner.learning-rate", "0", "--distil.last", "0"],
    "paper": _PAPER,
    "paper-siirl": [*_PAPER, "--formula", "siirl"],
    "paper-nearest": [*_PAPER, "--clustering", "nearest"],
    "srpo-pixels": [*_DEMOS, "--rollout.world-model", "pixels"],
    "srpo-random": [*_DEMOS, "--rollout.world-model", "image-random"],
    "srpo-image-proprio": [*_DEMOS, "--rollout.world-model", "image-proprio"],
    "srpo-true": [*_DEMOS, "--rollout.true-progress", "True"],
    "srpo-potential": [*_DEMOS, *_POTENTIAL],
    "srpo-image-proprio-potential": [*_DEMOS, "--rollout.world-model", "image-proprio", *_POTENTIAL],
    "srpo-true-potential": [*_DEMOS, "--rollout.true-progress", "True", *_POTENTIAL],
    "srpo-ungraded": [*_DEMOS, "--reward", "sparse"],  # everything else as in SRPO
    "srpo-dbscan": [*_DEMOS, "--clustering", "dbscan"],
    "srpo-siirl": [*_DEMOS, "--formula", "siirl"],
    "srpo-alpha-0.3": [*_DEMOS, "--alpha", "0.3"],
    "srpo-no-fade": [*_DEMOS, "--fade-grades", "False"],
    "srpo-new-states": [*_DEMOS, "--revisit", "0", "--probes", "0", "--groups", "10"],
    "srpo-constant-rate": [*_DEMOS, "--schedule", "constant"],
    "srpo-uncertain": [*_DEMOS, "--task-sampling", "uncertain"],
    "srpo-fresh-noise": [*_DEMOS, "--rollout.noise-persistence", "0", "--temperature", "0.25"],
    "srpo-all-weights": [*_DEMOS, "--learner.frozen", ""],
    "srpo-no-replay": [*_DEMOS, "--replay", "0"],
    "srpo-std": [*_DEMOS, "--normalise-std", "True"],
    "srpo-lambda-1": [*_DEMOS, "--gae-lambda", "1"],
    "srpo-equal-tokens": [*_DEMOS, "--token-weights", "equal"],
    "srpo-one-temperature": [*_DEMOS, "--gripper-temperature", "none"],
}
CLI = ("-m", "srpo.cli")
#: What runs ``srpo train`` of a method, where not the command itself.
PROGRAMS = dict.fromkeys(("srpo-true", "srpo-true-potential"), (str(Path(__file__).with_name("true_grades.py")),))
