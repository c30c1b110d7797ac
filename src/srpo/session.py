"""One run of ``srpo train``: its evaluations and RL steps, shown and logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from srpo import distributed
from srpo.evaluation import evaluate as evaluation
from srpo.provenance import write_json
from srpo.report.graded import write_graded
from srpo.rollout.collector import Collector
from srpo.tracking import Console, CsvLogger, TensorboardLogger
from srpo.train_config import TrainConfig
from srpo.trainer import Trainer
from srpo.types import Episode, Task


class Session:
    """One run of ``srpo train``: evaluations and steps, shown and logged."""

    def __init__(
        self,
        config: TrainConfig,
        tasks: Sequence[Task],
        collector: Collector,
        run: Path,
        console: Console,
        start: str,
        world: distributed.World,
    ) -> None:
        self.config, self.tasks, self.collector, self.world = config, tasks, collector, world
        self.run, self.console, self.start = run, console, start

    def evaluate(self, policy: Any, phase: str, videos: int) -> dict[str, Any]:
        requests = evaluation.evaluation_requests(
            self.tasks,
            self.config.protocol,
            self.config.evaluation_states,
            self.config.temperature,
            videos,
            self.config.decoding,
        )
        own = self.world.share(requests)
        with self.console.phase(f"evaluate ({phase})", len(own), "episodes") as progress:
            episodes = self.world.gather(evaluation.evaluate(self.collector, policy, own, counting(progress)))
        result = evaluation.result(
            episodes,
            checkpoint=self.start if phase == "before" else str(self.run / "policy"),
            suite=self.config.suite,
            protocol=self.config.protocol,
        )
        if phase in ("before", "after"):
            write_json(self.run / f"eval_{phase}.json", result)
            evaluation.write_videos(self.run / "videos", phase, episodes)
        low, high = result["overall"]["wilson_95"]
        self.console.message(
            f"success {phase}: {result['overall']['success_rate']:.1%} "
            f"[{low:.1%}, {high:.1%}] of {len(episodes)} held-out attempts"
            if self.config.protocol == "held-out"
            else f"success {phase}: {result['overall']['success_rate']:.1%} [{low:.1%}, {high:.1%}]"
        )
        return result

    def distil(self, trainer: Trainer) -> dict[str, float]:
        """Go on with a clone of the own successes; the seconds it took."""
        with self.console.phase("distil", self.config.distil.steps, "steps") as progress:
            if not trainer.distil(progress.update):
                self.console.warning("not distilled: no success yet, or a task has neither one nor --demonstrations")
        return {"seconds_distil": progress.seconds}

    def final_policy(self, trainer: Trainer) -> Any:
        """`Trainer.final_policy`, its cloning shown as a phase."""
        if not self.config.distil.goes_on(trainer.done):
            return trainer.final_policy()
        with self.console.phase("distil", self.config.distil.steps, "steps") as progress:
            return trainer.final_policy(progress.update)

    def practise(self, trainer: Trainer) -> None:
        metrics = CsvLogger(self.run / "metrics.csv")
        metrics.resume(trainer.done)
        groups = CsvLogger(self.run / "groups.csv")
        groups.resume(trainer.done)
        self.console.resume(metrics.rows())
        board = TensorboardLogger(self.run / "tensorboard")
        board.resume(trainer.done)
        config = self.config
        for _ in range(trainer.done, config.steps):
            distilled = self.distil(trainer) if trainer.distil_due else {}
            own = len(self.world.share(range(config.episodes_per_step)))
            with self.console.phase("roll out", own, "episodes") as progress:
                row, record = trainer.step(counting(progress))
            row |= distilled
            row["episodes_per_s"] = row["n_episodes"] / row["seconds_rollout"]
            if config.evaluate_every and trainer.done % config.evaluate_every == 0 and trainer.done < config.steps:
                deciding = trainer.learner.acting if trainer.learner.sharded else self.final_policy(trainer)
                overall = self.evaluate(deciding, f"step {trainer.done}", 0)["overall"]
                row |= {"eval_successes": overall["successes"], "eval_episodes": overall["episodes"]}
            for group in record.groups():
                groups.log({"step": trainer.done, **group})
            metrics.log(row)
            board.log(row)
            self.console.step_table(row)
            if self.world.first and record.embeddings is not None and not (self.run / "graded.json").is_file():
                write_graded(
                    self.run, list(record.episodes), record.reward, record.embeddings, trainer.world_model,
                    clustering=config.clustering,
                )  # fmt: skip
            # Last, as a resumed run begins after its checkpoint: rows that are too many it drops, missing ones stay so.
            if trainer.done % config.save_every == 0 or trainer.done == config.steps:
                trainer.save()
        board.close()


def counting(progress: Any) -> Callable[[Episode], None]:
    """Advance a progress line by one episode."""

    def count(episode: Episode) -> None:
        progress.advance(1)

    return count
