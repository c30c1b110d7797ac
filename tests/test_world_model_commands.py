"""``srpo world-model train`` from recorded episodes to a model that grades them."""

from __future__ import annotations

from pathlib import Path

import pytest

from srpo.cli import main
from srpo.tracking.csv import CsvLogger
from test_reward_commands import episodes  # noqa: F401


def test_train_then_bench(episodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    run = tmp_path / "run"
    command = ["world-model", "train", str(episodes), "--run", str(run), "--steps", "4", "--batch", "4"]
    small = ["--check-every", "2", "--model.depth", "1", "--model.width", "48", "--model.heads", "2"]
    assert main([*command, *small]) == 0
    assert "effective rank" in capsys.readouterr().out
    assert len(CsvLogger(run / "world_model.csv").rows()) == 2
    assert main([*command, *small]) == 2
    assert "already holds a world model" in capsys.readouterr().err
    # From its checkpoint after step 2 on, as if killed at the end: what comes again replaces its row.
    (run / "world_model").rename(tmp_path / "first")
    whole = (run / "world_model.csv").read_text()
    assert main([*command, *small, "--resume"]) == 0
    assert (run / "world_model.csv").read_text() == whole
    name = f"compact:{run / 'world_model'}"
    assert main(["reward", "bench", str(episodes), "--world-models", name, "--resamples", "20"]) == 0
    assert "| compact:" in capsys.readouterr().out


def test_what_is_no_set_of_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["world-model", "train", str(tmp_path), "--run", str(tmp_path / "run")]) == 2
    assert "holds no recorded episodes" in capsys.readouterr().err
