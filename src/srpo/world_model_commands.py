"""``srpo world-model train``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from srpo import checkpoint
from srpo.config import override
from srpo.data.episodes import EpisodeSet
from srpo.policies.backbone import feature_batches
from srpo.provenance import provenance, write_json
from srpo.tracking import Console, CsvLogger
from srpo.types import SrpoError
from srpo.world_models import jepa
from srpo.world_models.compact import CompactWorldModel
from srpo.world_models.video_transformer import VideoEncoder


def train(options: argparse.Namespace, changes: dict[str, str]) -> int:
    """Train the compact world model on recorded episodes."""
    config = override(jepa.JepaConfig(seed=options.seed), changes)
    run = Path(options.run)
    if (run / "world_model").exists() and not options.resume:
        raise SrpoError(f"{run} already holds a world model: continue with --resume, or give another --run.")
    sets = [EpisodeSet(folder) for folder in options.episodes]
    console = Console()
    console.header("srpo world-model train", {"steps": config.steps, "episodes": sum(map(len, sets))})
    eye = CompactWorldModel(VideoEncoder(config.model))
    features = []
    with console.phase("features", sum(map(len, sets)), "episodes") as phase:
        for episodes in sets:
            for episode in episodes:
                maps = np.concatenate([stride16 for _, stride16 in feature_batches(episode.frames)])
                frames = zip(episode.frames, maps, strict=True)
                features.append(np.stack([eye.frame_features(f, {"agentview_s16": m}) for f, m in frames]))
                phase.advance(1)
    write_json(run / "provenance.json", {**provenance(options.seed), "episodes": [s.meta() for s in sets]})
    metrics = CsvLogger(run / "world_model.csv")
    metrics.resume(checkpoint.latest_step(run / "checkpoints") if options.resume else 0)
    with console.phase("train", config.steps, "steps") as phase:
        losses: list[float] = []

        def on_step(row: dict[str, float]) -> None:
            phase.update(int(row["step"]))
            losses.append(row["loss"])
            if "effective_rank" in row:
                metrics.log({**row, "loss": sum(losses) / len(losses)})
                console.message(
                    f"step {row['step']}: loss {sum(losses) / len(losses):.4f}, held out {row['validation_loss']:.4f}, "
                    f"effective rank {row['effective_rank']:.1f}, spread {row['spread']:.3f}"
                )
                losses.clear()

        jepa.train(features, config, run, resume=options.resume, on_step=on_step)
    console.message(f"written: {run / 'world_model'}  (use it as --rollout.world-model compact:{run / 'world_model'})")
    return 0
