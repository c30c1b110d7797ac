"""A run folder made up for the tests, with numbers that are easy to check by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from srpo.report.video import write_mp4
from srpo.tracking import CsvLogger

INSTRUCTION = "pick up the <b>soup</b> & place it in the basket"
BEFORE, AFTER, STATES = 23, 47, 50


def make_run(folder: Path, steps: int = 6, videos: bool = True, instruction: str = INSTRUCTION) -> Path:
    """23 of 50 before, 47 of 50 after; rollouts of 20 episodes, 8 + k of them successful in step k."""
    folder.mkdir(parents=True)
    logger = CsvLogger(folder / "metrics.csv")
    for k in range(1, steps + 1):
        logger.log(metrics_row(k))
    _write(folder / "config.json", {"train": {"suite": "libero_object", "steps": 6, "alpha": 0.8, "seed": 7}})
    provenance = {"srpo": "0.1.0", "python": "3.11.2", "seed": 7, "cpu": "<EPYC>", "command": "srpo train libero-quick"}
    _write(folder / "provenance.json", provenance)
    _write(folder / "eval_before.json", evaluation(BEFORE, instruction))
    _write(folder / "eval_after.json", evaluation(AFTER, instruction))
    if videos:
        make_videos(folder)
        make_graded(folder)
    return folder


def metrics_row(k: int) -> dict[str, Any]:
    """RL step ``k``: 10 s each, 7 of them rollout."""
    row: dict[str, Any] = {
        "step": k,
        "episodes": 20 * k,
        "env_steps": 2000,
        "n_success": 8 + k,
        "n_episodes": 20,
        "success_rate": (8 + k) / 20,
        "reward_failure_mean": 0.4,
        "reward_failure_std": 0.1,
        "n_clusters": 2,
        "groups_informative": 4,
        "groups_skipped": 1,
        "approx_kl": 0.002 * k,
        "clip_fraction": 0.05,
        "entropy": 2.0 - 0.1 * k,
        "seconds_rollout": 7.0,
        "seconds_update": 3.0,
        "seconds_total": 10.0,
    }
    if k == 3:
        row |= {"eval_successes": 35, "eval_episodes": 50}
    return row


def evaluation(successes: int, instruction: str, task: str = "libero_object/0") -> dict[str, Any]:
    """``successes`` of 50 starts, the first ones."""
    episodes = [
        {
            "task": task,
            "instruction": instruction,
            "initial_state": {"kind": "published", "index": i},
            "success": i < successes,
            "n_steps": 100,
            "seconds": 1.0,
        }
        for i in range(STATES)
    ]
    return {"checkpoint": "policy", "suite": "libero_object", "protocol": "held-out", "episodes": episodes}


def make_videos(folder: Path) -> None:
    """Start 30: a failure before, a success after."""
    index = []
    for phase, success in (("before", False), ("after", True)):
        name = f"{phase}_libero_object-0_published-30.mp4"
        write_mp4(folder / "videos" / name, picture(6), banner="success, 48 steps" if success else "failure, 48 steps")
        index.append(
            {
                "file": name,
                "phase": phase,
                "task": "libero_object/0",
                "initial_state": {"kind": "published", "index": 30},
                "success": success,
                "n_steps": 48,
            }
        )
    _write(folder / "videos" / "index.json", index)


def make_graded(folder: Path) -> None:
    """One success and two failures, the first failure with two frames."""
    curves: list[dict[str, Any]] = [
        {"label": "success", "reward": 1.0, "progress": [0.0, 0.5, 1.0], "steps": [0, 8, 16]},
        {"label": "failure", "reward": 0.61, "progress": [0.0, 0.4, 0.6], "steps": [0, 8, 16]},
        {"label": "failure", "reward": 0.12, "progress": [0.0, 0.1, 0.1], "steps": [0, 8, 16]},
    ]
    (folder / "graded").mkdir()
    for i, frame in enumerate(picture(2)):
        Image.fromarray(frame).save(folder / "graded" / f"{i}.png")
    curves[1]["thumbnails"] = ["graded/0.png", "graded/1.png"]
    _write(folder / "graded.json", {"task": "libero_object/0", "curves": curves})


def picture(length: int, size: int = 64) -> np.ndarray:
    """(length, size, size, 3) uint8: a red square that moves right over grey."""
    frames = np.full((length, size, size, 3), 180, np.uint8)
    for t in range(length):
        left = 4 + t * (size - 24) // max(1, length - 1)
        frames[t, size // 3 : size // 3 + 16, left : left + 16] = (200, 40, 30)
    return frames


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
