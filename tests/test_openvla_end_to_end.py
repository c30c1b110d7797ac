"""The whole loop with OpenVLA-OFT in a small random-weight configuration, on the real simulator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("libero")
pytest.importorskip("transformers")
pytestmark = pytest.mark.timeout(600)
HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "policies")])}
BUDGET = """
    --rollout.env easy_libero:EasyLibero --tasks 0 --steps 2 --groups 2 --group-size 3 --rollout.max-steps 24
    --evaluation-states 2 --videos 1 --rollout.world-model pixels --rollout.inference server --rollout.server-batch 4
    --learner.minibatch 8 --learner.budget 1500 --learner.fused false --learner.learning-rate 1e-3
    --save-every 1 --evaluate-every 0
""".split()  # noqa: SIM905


def srpo(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "srpo.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=ENVIRONMENT)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def weights(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {f.name: f.read_bytes() for f in files}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(HERE / "policies"))
    import openvla_small

    return openvla_small.write_checkpoint(tmp_path_factory.mktemp("openvla") / "checkpoint")


@pytest.fixture(scope="module")
def trained(checkpoint: Path) -> Path:
    run = checkpoint.parent / "run"
    srpo("train", "openvla-oft-libero-object", "--policy", checkpoint, "--run", run, "--workers", "2", *BUDGET)
    return run


def test_two_steps_change_the_weights_and_write_the_published_layout(checkpoint: Path, trained: Path) -> None:
    rows = [row.split(",") for row in (trained / "metrics.csv").read_text().splitlines()]
    assert len(rows) == 3
    assert sum(float(row[rows[0].index("groups_informative")]) for row in rows[1:]) > 0
    assert {f.name for f in (trained / "policy").iterdir()} >= {"config.json", "tokenizer.json", "srpo.json"}
    assert weights(trained / "policy") != weights(checkpoint)
    assert (trained / "report.html").stat().st_size > 10_000


def test_resumed_after_the_first_step_it_ends_the_same(checkpoint: Path, trained: Path) -> None:
    run = trained.parent / "resumed"
    shutil.copytree(trained, run)
    for name in ("checkpoints/step_000002", "policy"):
        shutil.rmtree(run / name)
    (run / "eval_after.json").unlink()
    train = ("train", "openvla-oft-libero-object", "--policy", checkpoint)
    srpo(*train, "--run", run, "--workers", "1", *BUDGET, "--resume")
    assert weights(run / "policy") == weights(trained / "policy")


def test_the_saved_policy_is_evaluated(trained: Path, tmp_path: Path) -> None:
    where = ("--suite", "libero_object", "--tasks", "0", "--states", "2", "--max-steps", "16")
    srpo("eval", trained / "policy", *where, "--out", tmp_path)
    assert json.loads((tmp_path / "eval.json").read_text())["overall"]["episodes"] == 2
    wrong = srpo("eval", trained / "policy", "--suite", "libero_goal", "--states", "2", expect=2)
    assert "libero_goal" in wrong.stderr and "--unnorm-key" in wrong.stderr


def test_lora(checkpoint: Path) -> None:
    run = checkpoint.parent / "lora"
    srpo(
        "train", "openvla-oft-libero-object-lora", "--policy", checkpoint, "--run", run, *BUDGET, "--steps", "1",
        "--videos", "0", "--model.lora-rank", "4",
    )  # fmt: skip
    from safetensors import safe_open

    with safe_open(run / "checkpoints/step_000001/model.safetensors", "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118
    assert weights(run / "policy") != weights(checkpoint)
