"""Named, typed configurations. A preset holds the settings of a whole experiment: demonstrations, cloning, RL."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace

from srpo.collect import CollectConfig
from srpo.distillation import DistilConfig
from srpo.learner import LearnerConfig
from srpo.policies.loading import ModelOptions
from srpo.rollout.runner import RolloutConfig
from srpo.sft import SftConfig
from srpo.train_config import TrainConfig
from srpo.types import SrpoError


@dataclass(frozen=True)
class Preset:
    """One experiment.

    Attributes:
        description: one line for ``srpo presets``.
        collect: demonstrations.
        sft: behaviour cloning.
        train: RL.
    """

    description: str
    collect: CollectConfig = field(default_factory=CollectConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


# What worked on one task (docs/results.md), for policies of one million parameters on frozen features.
_COMPACT_RL = TrainConfig(
    temperature=0.4,
    credit="decision",
    decoding="median",
    average=0.8,
    rollout=RolloutConfig(noise_correlation=0.7),
    learner=LearnerConfig(learning_rate=5e-5, epochs=4, minibatch=256, target_kl=0.1),
)
# Whole suites (docs/results.md): groups are not blown up to the same spread, or one in which all fail would weigh as
# much as one in which some succeed. Tasks that fail most are practised most, and grades count most there. Groups are
# at initial states that failed before, which single attempts find: in the end most groups elsewhere succeed
# throughout. Tokens of axes in which the demonstrations hardly move (the rotations) would be more than half of the
# gradient's noise. Noise that lasts over decisions tells more, and disturbs more: hence the low temperature. At it
# the gripper, which opens or closes, hardly ever does what is less likely: it has a temperature of its own. A step has
# a tenth as many episodes of a task as the demo's: its update is noisier, and must be shorter. The rate falls, but not
# to zero: runs stood still at a rate that stayed high, and at one that reached zero. After 15 steps a new policy is
# cloned from what has succeeded; a second one brought nothing, and a third did worse than the weights it replaced.
_COMPACT_SUITE = replace(
    _COMPACT_RL, steps=200, groups=8, probes=16, revisit=1.0, task_sampling="failing", fade_grades=True,
    schedule="sqrt", normalise_std=False, temperature=0.15, gripper_temperature=1.0, token_weights="range",
    value_history=16,
    distil=DistilConfig(every=15, last=15),
    rollout=replace(_COMPACT_RL.rollout, noise_persistence=0.8),
    learner=replace(_COMPACT_RL.learner, learning_rate=3e-5, target_kl=0.05, frozen=("head",)),
)  # fmt: skip
# Cloned so, a policy for a whole suite solves about half of its attempts.
_COMPACT_CLONE = SftConfig(steps=300, validation=0.0)


def _openvla(suite: str, steps: int, lora: bool) -> TrainConfig:
    """The paper's settings (docs/method.md), RL steps to its result; adapters learn at a higher rate."""
    return TrainConfig(
        suite=suite,
        steps=steps,
        groups=64,
        group_size=8,
        temperature=1.6,
        clustering="dbscan",
        replay=64,
        train_max_steps=512,
        evaluate_every=10,
        save_every=10,
        rollout=RolloutConfig(world_model="vjepa2-vitg-384", max_environments=3, server_batch=16),
        learner=LearnerConfig(
            learning_rate=1e-4 if lora else 5e-6, epochs=1, minibatch=4096, budget=16_384, warmup=0, fused=True
        ),
        model=ModelOptions(train="lora" if lora else "full"),
    )


PRESETS: dict[str, Preset] = {
    "libero-quick": Preset(
        "one LIBERO-Object task on two CPU cores, in minutes",
        collect=CollectConfig(demos=(2,)),
        sft=SftConfig(steps=250, validation=0.0, augmentations=2),
        train=replace(
            _COMPACT_RL,
            suite="libero_object",
            tasks=(3,),
            steps=12,
            train_max_steps=128,
            evaluation_states=100,
            clustering="dbscan",
            replay=64,
        ),
    ),
    "libero-object": Preset(
        "all ten LIBERO-Object tasks, one language-conditioned compact policy, two demonstrations a task",
        collect=CollectConfig(demos=(2,)),
        sft=_COMPACT_CLONE,
        train=replace(_COMPACT_SUITE, suite="libero_object", train_max_steps=160),
    ),
    "libero-spatial": Preset(
        "all ten LIBERO-Spatial tasks, one language-conditioned compact policy, twelve demonstrations",
        collect=CollectConfig(demos=(1, 1, 1, 1, 2, 1, 1, 1, 2, 1)),
        sft=replace(_COMPACT_CLONE, steps=350, augmentations=4, shift=6),
        train=replace(
            _COMPACT_SUITE,
            suite="libero_spatial",
            train_max_steps=192,
            distil=replace(_COMPACT_SUITE.distil, augmentations=4, shift=6),
        ),
    ),
    **{
        f"openvla-oft-libero-{name}{'-lora' if lora else ''}": Preset(
            f"OpenVLA-OFT on {suite.replace('libero_', 'LIBERO-').title()}, as published"
            + (", adapters alone: one 80 GB GPU" if lora else ": all weights, several GPUs"),
            train=_openvla(suite, steps, lora),
        )
        for name, suite, steps in (
            ("spatial", "libero_spatial", 80),
            ("object", "libero_object", 60),
            ("goal", "libero_goal", 104),
            ("long", "libero_10", 220),
        )
        for lora in (False, True)
    },
    "debug": Preset(
        "a tiny budget that touches everything (for tests; learns nothing)",
        collect=CollectConfig(demos=(2,)),
        sft=SftConfig(steps=4, batch=8, augmentations=1, validate_every=2, save_every=2, stride=8),
        train=TrainConfig(
            suite="libero_object",
            tasks=(0,),
            credit="decision",
            steps=2,
            groups=2,
            group_size=2,
            evaluation_states=2,
            videos=1,
            distil=DistilConfig(every=1, steps=2, batch=8),
            rollout=RolloutConfig(max_steps=24),
            learner=LearnerConfig(epochs=1, minibatch=8),
        ),
    ),
}


def preset(name: str) -> Preset:
    """A preset by name; SrpoError names the nearest one."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.0)[0]
        raise SrpoError(f"There is no preset '{name}'; did you mean '{near}'? (All: {', '.join(PRESETS)})")
    return PRESETS[name]


def with_seed(base: Preset, seed: int) -> Preset:
    """The preset with one seed for everything."""
    return replace(
        base,
        collect=replace(base.collect, seed=seed),
        sft=replace(base.sft, seed=seed),
        train=replace(base.train, seed=seed),
    )
