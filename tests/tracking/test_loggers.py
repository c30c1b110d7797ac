from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from srpo.tracking import TensorboardLogger, WandbLogger
from srpo.tracking.tensorboard import tag
from srpo.types import SrpoError


def test_tensorboard_forgets_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    logger = TensorboardLogger(tmp_path)
    for step, rate in ((1, 0.25), (2, 0.5), (3, 0.75)):
        logger.log({"step": step, "success_rate": rate, "loss": float("nan"), "note": "x"})
    logger.resume(1)
    logger.log({"step": 2, "success_rate": 1.0, "eval_successes": 3, "eval_episodes": 4})
    logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("rollout/success_rate")] == [(1, 0.25), (2, 1.0)]
    assert events.Scalars("evaluation/eval_success_rate")[0].value == 0.75
    assert "update/loss" not in events.Tags()["scalars"]


def test_tags() -> None:
    assert [tag(c) for c in ("n_clusters", "seconds_rollout", "approx_kl")] == [
        "reward/n_clusters", "time/seconds_rollout", "update/approx_kl",
    ]  # fmt: skip


def test_wandb_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SrpoError, match=r"srpo\[wandb\]"):
        WandbLogger("project", tmp_path)


def test_wandb_continues_under_the_name_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list = []
    run = SimpleNamespace(log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("end"))

    def init(**options: object) -> SimpleNamespace:
        calls.append((options["id"], options["resume"]))
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    logger = WandbLogger("project", tmp_path / "quick")
    logger.log({"step": 4, "success_rate": 0.5, "note": "x"})
    logger.close()
    assert calls == [("quick", "allow"), (4, {"rollout/success_rate": 0.5}), "end"]
