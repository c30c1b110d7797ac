"""SRPO: roll out, embed, grade failures by their distance to the successes, update. `Trainer.step` is the method."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srpo import checkpoint, distributed
from srpo.algorithms import StateRecord, ValueHistory, group_advantages, group_relative_gae, informative_groups
from srpo.data.demonstrations import Demonstration
from srpo.data.episodes import CAMERA, every_nth
from srpo.data.successes import SuccessMemory
from srpo.distillation import distil
from srpo.learner import Learner, flatten
from srpo.policies.base import range_weights, token_temperatures
from srpo.rewards import ProgressRewards, ReferenceReplay, progress_rewards, sparse_rewards
from srpo.rollout.collector import Collector
from srpo.sampler import FailedStates, GroupSampler, RecentOutcomes
from srpo.sft import decisions
from srpo.step_record import StepRecord
from srpo.train_config import TrainConfig
from srpo.types import Episode, EpisodeRequest, SrpoError, Task
from srpo.world_models import WorldModel
from srpo.world_models.base import at_decisions, moments


class Trainer:
    """The loop, with every part handed in.

    Args:
        config: see `TrainConfig`.
        policy: a torch module with ``logits``, ``save_pretrained`` and ``config``; for credit by decision also
            ``features(inputs) -> (B, F)``.
        tasks: what to practise.
        collector: rolls out.
        world_model: embeds episodes (not called when the reward is sparse).
        run: run folder, for checkpoints and the own successes.
        world: the processes that share the work, see `srpo.distributed`.
    """

    def __init__(
        self,
        config: TrainConfig,
        policy: Any,
        tasks: Sequence[Task],
        collector: Collector,
        world_model: WorldModel,
        run: Path,
        world: distributed.World = distributed.ALONE,
    ) -> None:
        self.config, self.policy, self.world = config, policy, world
        self.collector, self.world_model = collector, world_model
        self.run_folder = run
        if config.credit == "decision" and not hasattr(policy, "features"):
            raise SrpoError("Credit by decision reads the policy's features, and it shows none: set --credit episode.")
        if config.train_max_steps:
            tasks = [replace(t, max_steps=config.train_max_steps) for t in tasks]
        self.sampler = GroupSampler(
            tasks, config.groups, config.group_size, config.protocol, config.seed, config.temperature,
            config.train_states, config.probes, config.gripper_temperature,
        )  # fmt: skip
        # The attempts of a group share a state, so that single ones tell more each; and there are fewer of them a step.
        self.outcomes = RecentOutcomes([t.id for t in tasks], window=16 if config.probes else 32)
        self.failed = FailedStates([t.id for t in tasks])
        self.token_weights = range_weights(policy) if config.token_weights == "range" else None
        temperature: float | torch.Tensor = config.temperature
        if config.gripper_temperature is not None:
            n_tokens, gripper = policy.chunk * policy.action_dim, config.gripper_temperature
            # The gradient of log softmax(z / T) has a factor 1 / T, by which the gripper's tokens would count less.
            self.token_weights = np.ones(policy.action_dim) if self.token_weights is None else self.token_weights
            self.token_weights[-1] *= gripper / config.temperature
            temperature = torch.from_numpy(token_temperatures(config.temperature, gripper, n_tokens, policy.action_dim))
        self.learner = Learner(policy, config.learner, temperature, config.seed, world)
        if self.learner.sharded and config.credit == "decision":
            raise SrpoError("A sharded policy has no --credit decision: leave it out.")
        if config.average and hasattr(policy, "parts"):
            raise SrpoError("A running average of so large a policy's weights is not kept: leave --average out.")
        self.replay = ReferenceReplay(config.replay) if config.replay else None
        self.value_history = ValueHistory(config.value_history) if config.credit == "decision" else None
        self.average = {k: v.clone() for k, v in policy.state_dict().items()} if config.average else None
        self.successes = None
        if config.distil.every or config.distil.keep:
            if not hasattr(policy, "untrained"):
                raise SrpoError("So large a policy is not cloned anew: leave --distil.every and --distil.keep out.")
            if world.size > 1:
                raise SrpoError("Own successes are kept by one process: leave --processes or --distil.every out.")
            self.successes = SuccessMemory(run / "successes", config.distil.successes)
        self.done = 0

    def show(self, demonstrations: Iterable[Demonstration]) -> None:
        """Keep demonstrations of the run's tasks: as references, looked at every ``chunk`` control steps, and as the
        first successes to clone. A run that does neither (the sparse reward has no use for references) reads nothing.

        Raises:
            SrpoError: they lack the third-person camera, or none is of one of the tasks.
        """
        refer = self.replay is not None and self.config.reward != "sparse"
        if not refer and self.successes is None:
            return
        wanted = {task.id for task in self.sampler.tasks}
        found = 0
        for one in demonstrations:
            if one.task.id not in wanted:
                continue
            found += 1
            if self.successes is not None:
                settings = self.config.distil
                shown = decisions(self.policy, one, found, settings.augmentations, settings.shift)
                self.successes.add_decisions(0, found, one.task, shown)
            if self.replay is None or not refer:
                continue
            if CAMERA not in one.images:
                raise SrpoError(f"The demonstrations lack the camera '{CAMERA}' that the world model looks through.")
            images = one.images[CAMERA]
            seen = every_nth(len(images), self.policy.chunk)
            features = np.stack([self.world_model.frame_features(images[t], {"state": one.states[t]}) for t in seen])
            self.replay.add(self._embed([features]), [True], [one.task.id])
        if not found:
            raise SrpoError(f"No demonstration is of {', '.join(sorted(wanted))}: give the folder that srpo sft read.")

    def step(self, on_episode: Callable[[Episode], None] = lambda e: None) -> tuple[dict[str, float], StepRecord]:
        """One RL step (paper, section 3); returns its numbers, and what they were computed from."""
        start = time.perf_counter()
        # The first two groups are filmed; the report shows how their failures were graded.
        filmed = 2 * self.config.group_size if self.config.reward == "srpo" else 0
        sampling = self.config.task_sampling
        weights = None if sampling == "even" else self.outcomes.weights(sampling)
        requests = self.sampler.requests(self.done, weights, self.failed, self.config.revisit)
        requests = [replace(r, keep_frames=i < filmed) for i, r in enumerate(requests)]
        episodes, embeddings = self._roll_out(self.world.share(requests), on_episode)
        if self.world.size > 1:
            vectors = None if embeddings is None else np.stack(self.world.gather(list(embeddings)))
            episodes, embeddings = self.world.gather(episodes), vectors
        rolled_out = time.perf_counter()

        success = np.array([e.success for e in episodes])
        task = np.array([e.request.task.id for e in episodes])
        group = np.array([e.request.group for e in episodes])
        record = self._grade(episodes, embeddings, success, task)
        advantages = self._advantages(record, group)
        informative = informative_groups(record.reward, group)

        stats: dict[str, float] = {}
        if informative.any():
            decisions = flatten(episodes, advantages, self.policy.action_dim, self.token_weights)
            stats = self.learner.update(decisions, self.done, self.config.rate(self.done))
        if self.replay is not None and record.embeddings is not None:
            self.replay.add(record.embeddings, success, task)
        self._remember(episodes, success, group)
        self._update_average()
        self.done += 1
        if self.successes is not None and (self.config.distil.keep or self.config.distil.goes_on(self.done)):
            self.successes.add(self.done, episodes, self.policy.action_dim)
        end = time.perf_counter()
        times = {"seconds_rollout": rolled_out - start, "seconds_update": end - rolled_out}
        times["seconds_total"] = end - start
        return self._row(episodes, record, group, informative) | stats | times, record

    def _roll_out(
        self, requests: Sequence[EpisodeRequest], on_episode: Callable[[Episode], None]
    ) -> tuple[list[Episode], np.ndarray | None]:
        """The episodes and, if failures are to be graded, their embeddings. An episode is embedded as soon as
        it has ended, while others still run."""
        if self.config.reward == "sparse":
            return self.collector.collect(self.learner.acting, requests, on_episode), None
        embedding: dict[int, Future[np.ndarray]] = {}
        with ThreadPoolExecutor(1) as encoder:

            def ended(episode: Episode) -> None:
                if episode.frame_features is None:
                    raise SrpoError("Grading failures needs a world model: set --rollout.world-model image.")
                embedding[id(episode)] = encoder.submit(self._embed, [episode.frame_features])
                if not episode.frames:  # of the others the report shows how they were graded
                    episode.frame_features = None
                on_episode(episode)

            episodes = self.collector.collect(self.learner.acting, requests, ended)
        return episodes, np.concatenate([embedding[id(e)].result() for e in episodes])

    def _embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        return moments(self.world_model, features) if self._covering else self.world_model.embed(features)

    @property
    def _covering(self) -> bool:
        return self.config.clustering == "coverage"

    def _advantages(self, record: StepRecord, group: np.ndarray) -> np.ndarray | list[np.ndarray]:
        if self.value_history is None:
            return group_advantages(record.reward, group, normalise_std=self.config.normalise_std)
        task = [e.request.task.index for e in record.episodes]
        reached = record.graded.reached if record.graded is not None else None
        potential = None
        if reached is not None:
            potential = [at_decisions(r, len(e.tokens)) for r, e in zip(reached, record.episodes, strict=True)]
        features = [self._features(e) for e in record.episodes]
        states = StateRecord.of(features, record.reward, task, potential)
        advantages = group_relative_gae(
            states,
            group,
            self.value_history.batches,
            gae_lambda=self.config.gae_lambda,
            normalise_std=self.config.normalise_std,
        )
        self.value_history.add(states)
        return advantages

    @torch.inference_mode()
    def _features(self, episode: Episode) -> np.ndarray:
        device = next(self.policy.parameters()).device
        inputs = {k: torch.from_numpy(v).to(device) for k, v in episode.inputs.items()}
        return self.policy.features(inputs).float().cpu().numpy()

    def _grade(
        self, episodes: Sequence[Episode], embeddings: np.ndarray | None, success: np.ndarray, task: np.ndarray
    ) -> StepRecord:
        if embeddings is None:
            return StepRecord(episodes, sparse_rewards(success), None, None)
        graded = self._progress(episodes, embeddings, success, task)
        if self.config.fade_grades:
            rates = self.outcomes.rates()  # before this step
            fade = np.array([1.0 - rates.get(str(t), 0.0) for t in task])
            reached = None if graded.reached is None else fade[:, None] * graded.reached
            graded = replace(graded, reward=np.where(success, 1.0, fade * graded.reward), reached=reached)
        return StepRecord(episodes, graded.reward, embeddings, graded)

    def _progress(
        self, episodes: Sequence[Episode], embeddings: np.ndarray, success: np.ndarray, task: np.ndarray
    ) -> ProgressRewards:
        return progress_rewards(
            embeddings,
            success,
            task,
            formula=self.config.formula,
            alpha=self.config.alpha,
            clustering=self.config.clustering,
            references=self.replay.references() if self.replay is not None else None,
            group=[e.request.group for e in episodes] if self.config.potential else None,
        )

    def _row(
        self, episodes: Sequence[Episode], record: StepRecord, group: np.ndarray, informative: np.ndarray
    ) -> dict[str, float]:
        success = np.array([e.success for e in episodes])
        failed = record.reward[~success]
        outcomes = Counter(group.tolist())
        useful = len(set(group[informative].tolist()))
        return {
            "step": self.done,
            "episodes": self.done * self.config.episodes_per_step,
            "env_steps": int(sum(e.n_steps for e in episodes)),
            "n_success": int(success.sum()),
            "n_episodes": len(episodes),
            "success_rate": float(success.mean()),
            "success_recent": self.outcomes.success(),
            "steps_to_success": float(np.mean([e.n_steps for e in episodes if e.success])) if success.any() else 0.0,
            "reward_failure_mean": float(failed.mean()) if len(failed) else 0.0,
            "reward_failure_std": float(failed.std()) if len(failed) else 0.0,
            "n_clusters": sum(record.graded.n_clusters.values()) if record.graded else 0,
            "groups_informative": useful,
            "groups_skipped": sum(n > 1 for n in outcomes.values()) - useful,
        }

    def _update_average(self) -> None:
        if self.average is not None:
            # Early on the average follows quickly, so that the start does not linger in it.
            decay = min(self.config.average, (1 + self.done) / (10 + self.done))
            for name, value in self.policy.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def _remember(self, episodes: Sequence[Episode], success: np.ndarray, group: np.ndarray) -> None:
        for number in dict.fromkeys(group.tolist()):
            members = np.flatnonzero(group == number)
            request = episodes[members[0]].request
            task, state = request.task.id, request.initial_state
            if not request.again:  # those taken up again are harder than others
                self.outcomes.add([task] * len(members), success[members])
            self.failed.add(task, state, success[members])

    @property
    def distil_due(self) -> bool:
        """Whether the policy is to be cloned anew before the next step."""
        distil = self.config.distil
        return distil.goes_on(self.done) and self.done > 0 and self.done % distil.every == 0

    def distil(self, on_step: Callable[[int], None] = lambda step: None) -> bool:
        """Practise on with a policy cloned from the own successes; its optimiser, values and average start afresh.
        False, and nothing is changed, while a task has none."""
        new = self._distilled(on_step)
        if new is None:
            return False
        self.policy.load_state_dict(new.state_dict())
        self.learner.optimizer.state.clear()
        if self.value_history is not None:  # of the old policy's features
            self.value_history.batches.clear()
        if self.average is not None:
            self.average = {k: v.clone() for k, v in new.state_dict().items()}
        return True

    def _distilled(self, on_step: Callable[[int], None]) -> Any | None:
        assert self.successes is not None
        seed = int(np.random.default_rng([self.config.seed, 7, self.done]).integers(2**31))
        return distil(self.policy, self.successes, self.sampler.tasks, self.config.distil, seed, on_step)

    def final_policy(self, on_step: Callable[[int], None] = lambda step: None) -> Any:
        """The policy to keep: one cloned from the own successes, if the run (still) does so; or one with the running
        average of the weights if there is one, else the last."""
        new = self._distilled(on_step) if self.config.distil.goes_on(self.done) else None
        if new is not None or self.average is None:
            return self.policy if new is None else new
        final = copy.deepcopy(self.policy)
        final.load_state_dict(self.average)
        return final

    def save(self) -> Path:
        """Checkpoint: weights, optimiser, replay, values, average, step. (All random draws follow from the step.)"""
        tensors: dict[str, torch.Tensor] = {}
        state: dict[str, Any] = {"outcomes": self.outcomes.state_dict(), "failed_states": self.failed.state_dict()}
        if self.replay is not None:
            state["replay"], arrays = _split(self.replay.state_dict())
            tensors |= {f"replay.{k}": torch.from_numpy(v) for k, v in arrays.items()}
        if self.value_history is not None:
            arrays = self.value_history.state_dict()
            tensors |= {f"values.{k}": torch.from_numpy(v) for k, v in arrays.items()}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.items()}
        saved = checkpoint.save(
            self.run_folder / "checkpoints",
            self.done,
            self.policy,
            self.learner.optimizer,
            state,
            tensors,
            write=self.world.first,
        )
        if self.successes is not None:  # and not before, so that a resumed run has what it needs
            self.successes.forget()
        return saved

    def resume(self) -> bool:
        """Continue from the newest checkpoint; False if there is none."""
        folder = checkpoint.latest(self.run_folder / "checkpoints")
        if folder is None:
            return False
        state, tensors = checkpoint.load(folder, self.policy, self.learner.optimizer)
        self.learner.refresh()
        self.done = int(state["step"])
        if self.successes is not None:
            self.successes.forget(self.done)
        # A part that the saved run did not have starts afresh.
        self.outcomes.load_state_dict(state.get("outcomes", {}))
        self.failed.load_state_dict(state.get("failed_states", {}))
        if self.replay is not None and "replay" in state:
            self.replay.load_state_dict(state["replay"] | _part(tensors, "replay."))
        if self.value_history is not None:
            self.value_history.load_state_dict(_part(tensors, "values."))
        if self.average is not None:
            saved = {k: torch.from_numpy(v) for k, v in _part(tensors, "average.").items()}
            self.average = saved or {k: v.clone() for k, v in self.policy.state_dict().items()}
        return True


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, np.ndarray]:
    return {k[len(prefix) :]: v.numpy() for k, v in tensors.items() if k.startswith(prefix)}


def _split(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    plain = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
    return plain, {k: v for k, v in state.items() if isinstance(v, np.ndarray)}
