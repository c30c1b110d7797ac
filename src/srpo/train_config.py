"""Settings of an RL run."""

from __future__ import annotations

from dataclasses import dataclass, field

from srpo.distillation import DistilConfig
from srpo.learner import LearnerConfig
from srpo.policies.loading import ModelOptions
from srpo.rollout.runner import RolloutConfig
from srpo.types import SrpoError


@dataclass(frozen=True)
class TrainConfig:
    """An RL run.

    Attributes:
        suite: benchmark suite.
        tasks: task numbers in it; empty: all.
        steps: RL steps.
        groups: groups per step (same task and initial state).
        group_size: episodes per group (M in the paper: 8).
        task_sampling: ``"even"``: tasks take turns; ``"uncertain"``: those whose outcome is least certain are practised
            most; ``"failing"``: those that fail most are; see `RecentOutcomes.weights`.
        revisit: share of the groups that take up again an initial state at which not every attempt succeeded, see
            `FailedStates`; the others have new ones.
        probes: single attempts per step at new initial states, beside the groups. They tell how often the policy
            succeeds, and which states are worth a group: one all of whose attempts succeed teaches nothing.
        temperature: sampling temperature of the rollouts.
        gripper_temperature: of the tokens of the gripper, an action's last dimension; None: as the others. It opens or
            it closes: at a low temperature the rarer of the two is hardly ever tried.
        reward: ``"srpo"`` (failures graded by progress) or ``"sparse"`` (0/1; with credit by episode it is GRPO).
        formula: ``"paper"`` or ``"siirl"`` (the public implementation's numbers).
        alpha: largest reward of a failure.
        fade_grades: failures of a task are graded by alpha (1 - p), p the share of successes among its recent attempts:
            grades lead where nothing succeeds, and are out of the way of the outcomes where much does.
        clustering: ``"coverage"``, or the paper's distance to a centre of the successes, ``"dbscan"``, ``"nearest"``,
            ``"mean"`` or ``"k-medoids"``, see `progress_rewards`.
        credit: ``"episode"`` (the paper's: every decision has the advantage of its episode) or ``"decision"``
            (see `group_relative_gae`).
        gae_lambda: of ``credit="decision"``.
        potential: credit by decision knows the grade that an episode has reached so far, see `srpo.algorithms.values`;
            with ``clustering="coverage"``, which alone tells it.
        token_weights: ``"equal"`` (the paper's), or ``"range"``: the tokens of an action dimension count by how far the
            policy can move in it. One in which it hardly moves decides no episode, and adds noise like any other.
        value_history: earlier RL steps that the state value is fitted to as well.
        normalise_std: divide a group's advantages by their standard deviation.
        replay: recent successes kept per task as references (0: none).
        demonstrations: folder whose demonstrations are the first references, for tasks at which nothing succeeds yet,
            pushed out of the replay by the policy's own successes; and cloned with these (see `DistilConfig`).
        protocol: ``"held-out"`` or ``"paper"`` (train and evaluate on the same published initial states).
        train_max_steps: step limit of the training episodes; None: the suite's. (Evaluations keep the suite's.)
        train_states: different training initial states a task; None: always new ones.
        evaluation_states: initial states per task of the evaluations before and after.
        decoding: of the evaluations: ``"greedy"``, ``"median"`` or ``"sample"``, see `evaluation_requests`.
        evaluate_every: RL steps between evaluations on the way (0: none).
        videos: filmed evaluation episodes per task.
        schedule: of the learning rate: ``"constant"``, ``"linear"`` or ``"sqrt"``, see `rate`.
        save_every: RL steps between checkpoints; the last step always makes one.
        average: decay per RL step of the running average of the weights that becomes the final policy (0: the last).
        seed: of the whole run.
        workers: rollout processes; None: one a core.
        distil: see `DistilConfig`.
        rollout: see `RolloutConfig`.
        learner: see `LearnerConfig`.
        model: see `ModelOptions`.
    """

    suite: str = "libero_object"
    tasks: tuple[int, ...] = ()
    steps: int = 20
    groups: int = 8
    group_size: int = 8
    task_sampling: str = "even"
    revisit: float = 0.0
    probes: int = 0
    temperature: float = 1.0
    gripper_temperature: float | None = None
    reward: str = "srpo"
    formula: str = "paper"
    alpha: float = 0.8
    fade_grades: bool = False
    clustering: str = "coverage"
    credit: str = "episode"
    gae_lambda: float = 0.7
    potential: bool = False
    token_weights: str = "equal"
    value_history: int = 4
    normalise_std: bool = True
    replay: int = 16
    demonstrations: str | None = None
    protocol: str = "held-out"
    train_max_steps: int | None = None
    train_states: int | None = None
    evaluation_states: int = 50
    decoding: str = "greedy"
    evaluate_every: int = 0
    videos: int = 4
    schedule: str = "constant"
    save_every: int = 1
    average: float = 0.0
    seed: int = 0
    workers: int | None = None
    distil: DistilConfig = field(default_factory=DistilConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    model: ModelOptions = field(default_factory=ModelOptions)

    def __post_init__(self) -> None:
        if self.reward not in ("srpo", "sparse"):
            raise SrpoError(f"No reward named '{self.reward}': choose srpo or sparse.")
        if self.credit not in ("episode", "decision"):
            raise SrpoError(f"No credit assignment named '{self.credit}': choose episode or decision.")
        if self.potential and (self.reward, self.credit, self.clustering) != ("srpo", "decision", "coverage"):
            raise SrpoError("--potential is for --reward srpo, --credit decision and --clustering coverage: set them.")
        if self.task_sampling not in ("even", "uncertain", "failing"):
            raise SrpoError(f"No task sampling named '{self.task_sampling}': choose even, uncertain or failing.")
        if not 0.0 <= self.revisit <= 1.0:
            raise SrpoError("--revisit is a share of the groups: from 0 to 1.")
        if self.probes < 0:
            raise SrpoError("--probes is a number of attempts: 0 or more.")
        if self.schedule not in ("constant", "linear", "sqrt"):
            raise SrpoError(f"No schedule named '{self.schedule}': choose constant, linear or sqrt.")
        if self.token_weights not in ("equal", "range"):
            raise SrpoError(f"No token weights named '{self.token_weights}': choose equal or range.")
        if self.value_history < 0 or not 0.0 <= self.gae_lambda <= 1.0:
            raise SrpoError("Credit by decision needs --value-history 0 or more and --gae-lambda from 0 to 1.")
        if self.demonstrations and not self.replay and not (self.distil.every or self.distil.keep):
            raise SrpoError("Demonstrations as references are kept in the replay: set --replay 1 or more.")
        least_one = min(self.distil.successes, self.distil.steps, self.distil.batch)
        if min(self.distil.every, self.distil.last) < 0 or least_one < 1:
            raise SrpoError("--distil.every and .last are 0 or more, --distil.successes, .steps and .batch 1 or more.")
        if self.distil.rounds < 0 or self.distil.attempts < 1 or self.distil.rounds >= self.distil.steps:
            raise SrpoError("--distil.rounds is 0 or more, below --distil.steps, and --distil.attempts 1 or more.")
        if min(self.distil.augmentations, self.distil.shift) < 0:
            raise SrpoError("--distil.augmentations and --distil.shift are 0 or more.")
        if not 0.0 <= self.distil.demonstration_weight < float("inf"):
            raise SrpoError("--distil.demonstration-weight is a number of successes: 0 or more.")
        if self.group_size < 2:
            raise SrpoError("A group needs at least 2 episodes to be compared: set --group-size 2 or more.")
        if self.temperature <= 0:
            raise SrpoError("Training samples its actions: set --temperature above 0 (srpo eval decodes greedily).")
        if self.gripper_temperature is not None and self.gripper_temperature <= 0:
            raise SrpoError("Training samples the gripper too: set --gripper-temperature above 0, or none.")

    @property
    def episodes_per_step(self) -> int:
        """Attempts of an RL step."""
        return self.groups * self.group_size + self.probes

    def rate(self, step: int) -> float:
        """Factor of the learning rate in RL step ``step`` (from 0).

        ``"linear"`` falls to zero over the run. ``"sqrt"`` is 1 / sqrt(1 + step / 10), whatever the length of the run:
        the updates' noise goes to zero in the end, and yet the rates add up to any distance (after Robbins and Monro,
        1951; a power below 1 with averaged weights: Polyak and Juditsky, 1992).
        """
        if self.schedule == "linear":
            return 1.0 - step / self.steps
        return (1.0 + step / 10.0) ** -0.5 if self.schedule == "sqrt" else 1.0
