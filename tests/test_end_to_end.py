"""Every command against the real simulator, on a budget too small to learn anything."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srpo.tracking import read_csv

pytest.importorskip("libero")
pytestmark = pytest.mark.timeout(600)
# The real simulator, with a goal that is reached by chance: an update needs a success.
EASY = ("--rollout.env", "easy_libero:EasyLibero")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}


def srpo(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "srpo.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=ENVIRONMENT)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations and a cloned policy."""
    folder = tmp_path_factory.mktemp("end_to_end")
    srpo("collect", "debug", "--out", folder / "demos")
    srpo("sft", "debug", "--demos", folder / "demos", "--run", folder / "sft")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    srpo("train", "debug", *EASY, "--policy", folder / "sft/policy", "--run", folder / "run", "--workers", "1")
    return folder / "run"


def test_collect_writes_successful_demonstrations_and_resumes(folder: Path) -> None:
    files = sorted(p.name for p in (folder / "demos").glob("*.npz"))
    assert len(files) == 2 and all(name.startswith("libero_object-0_") for name in files)
    before = {p: p.stat().st_mtime_ns for p in (folder / "demos").iterdir()}
    srpo("collect", "debug", "--out", folder / "demos")
    assert {p: p.stat().st_mtime_ns for p in (folder / "demos").iterdir()} == before


def test_train_writes_the_run_folder(trained: Path) -> None:
    lines = (trained / "metrics.csv").read_text().splitlines()
    assert len(lines) == 3  # header and two steps
    groups = read_csv(trained / "groups.csv")
    assert [g["step"] for g in groups] == [1, 1, 2, 2] and all(g["episodes"] == 2 for g in groups)
    won = [int(row.split(",")[lines[0].split(",").index("n_success")]) for row in lines[1:]]
    assert [groups[i]["successes"] + groups[i + 1]["successes"] for i in (0, 2)] == won
    for phase in ("before", "after"):
        result = json.loads((trained / f"eval_{phase}.json").read_text())
        assert len(result["episodes"]) == 2 and result["overall"]["episodes"] == 2
        assert all(12 <= e["n_steps"] <= 24 and e["success"] == (e["n_steps"] < 24) for e in result["episodes"])
    rows = read_csv(trained / "metrics.csv")
    assert rows[0]["seconds_distil"] is None and rows[1]["seconds_distil"] > 0  # before the second step
    kept = sorted(p.name[:6] for p in (trained / "successes/0").iterdir())
    assert kept == ["000001"] * rows[0]["n_success"] + ["000002"] * rows[1]["n_success"]
    html = (trained / "report.html").read_text()
    assert "alphabet soup" in html and "data:video/mp4;base64," in html
    assert not list(trained.rglob("*.pkl")) and not list(trained.rglob("*.pt"))


def test_training_changes_the_weights(folder: Path, trained: Path) -> None:
    weights = "model.safetensors"
    places = (folder / "sft/policy", trained / "checkpoints/step_000002", trained / "policy")
    assert len({(place / weights).read_bytes() for place in places}) == 3
    rows = [row.split(",") for row in (trained / "metrics.csv").read_text().splitlines()]
    assert sum(float(row[rows[0].index("groups_informative")]) for row in rows[1:]) > 0


def test_the_number_of_workers_changes_nothing(folder: Path, trained: Path) -> None:
    srpo("train", "debug", *EASY, "--policy", folder / "sft/policy", "--run", folder / "two", "--workers", "2")
    weights = "policy/model.safetensors"
    assert (folder / "two" / weights).read_bytes() == (trained / weights).read_bytes()


def test_a_killed_run_resumes_to_the_same_weights(folder: Path, trained: Path) -> None:
    run = folder / "killed"
    command = [sys.executable, "-m", "srpo.cli", "train", "debug", *EASY, "--policy", str(folder / "sft/policy")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--run", str(run)], env=ENVIRONMENT, **quiet)
    deadline = time.monotonic() + 200
    while not (run / "checkpoints/step_000001").is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (run / "checkpoints/step_000001").is_dir() and not (run / "policy").exists()
    srpo("train", "debug", "--policy", folder / "sft/policy", "--run", run, expect=2)  # not without --resume
    srpo("train", "debug", *EASY, "--policy", folder / "sft/policy", "--run", run, "--resume")
    weights = "policy/model.safetensors"
    assert (run / weights).read_bytes() == (trained / weights).read_bytes()
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    assert (run / "groups.csv").read_text() == (trained / "groups.csv").read_text()


def test_cloning_goes_on_from_its_checkpoint(folder: Path) -> None:
    """From the one after two of four steps, as if killed at the end: what comes again replaces its row."""
    shutil.copytree(folder / "sft", folder / "sft_again")
    shutil.rmtree(folder / "sft_again/policy")
    srpo("sft", "debug", "--demos", folder / "demos", "--run", folder / "sft_again", "--resume")
    whole, again = (folder / name for name in ("sft", "sft_again"))
    assert (again / "sft.csv").read_text() == (whole / "sft.csv").read_text()
    weights = "policy/model.safetensors"
    assert (again / weights).read_bytes() == (whole / weights).read_bytes()


def test_runs_become_one_policy(folder: Path, trained: Path) -> None:
    command = ("distil", "debug", "--runs", trained, trained, "--run", folder / "one")
    srpo(*command)
    policies = [(f / "policy/model.safetensors").read_bytes() for f in (folder / "one", trained)]
    assert policies[0] != policies[1]
    srpo(*command[:-1], folder / "sampled", "--labels", "sampled")
    assert (folder / "sampled/policy/model.safetensors").read_bytes() not in policies
    # Each of the two parts is a step; what the clone attempts in between is labelled by the run's policy.
    corrected = ("--distil.rounds", "1", "--distil.attempts", "2", "--policy", trained / "policy")
    assert " of 2 succeed" in srpo(*command[:-1], folder / "corrected", *corrected).stdout
    assert (folder / "corrected/policy/model.safetensors").read_bytes() not in policies
    settings = json.loads((folder / "one/distil_config.json").read_text())
    assert settings["runs"] == [str(trained), str(trained)] and settings["distil"]["distil"]["steps"] == 2
    assert "already holds a run" in srpo(*command, expect=2).stderr
    other = ("--run", folder / "none")
    assert "--distil.keep" in srpo("distil", "debug", "--runs", folder / "sft", *other, expect=2).stderr
    shutil.copytree(trained, folder / "stranger")  # as if cloned from other demonstrations
    file = folder / "stranger/policy/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "state_mean": [0.5] * 8}))
    strange = srpo("distil", "debug", "--runs", trained, folder / "stranger", *other, expect=2)
    assert "did not start from one policy" in strange.stderr
    # Task 1 was practised in none of them.
    missing = srpo("distil", "debug", "--runs", trained, "--run", folder / "no", "--tasks", "0,1", expect=2)
    assert "neither a success nor a demonstration" in missing.stderr and not (folder / "no/policy").exists()


def test_eval_and_report(trained: Path) -> None:
    out = trained / "again"
    done = srpo(
        "eval", trained / "policy", "--tasks", "0", "--states", "1", "--max-steps", "16", "--videos", "1",
        "--workers", "1", "--out", out,
    )  # fmt: skip
    assert "0 / 1" in done.stdout
    assert json.loads((out / "eval.json").read_text())["overall"]["wilson_95"][1] > 0.7
    assert len(list((out / "videos").glob("*.mp4"))) == 1
    srpo(
        "eval", trained / "policy", "--tasks", "0", "--states", "1", "--max-steps", "16", "--practised", trained,
        "--out", out,
    )  # fmt: skip
    again = json.loads((out / "eval.json").read_text())
    assert again["protocol"] == "practised" and again["episodes"][0]["initial_state"]["kind"] == "sampled"
    assert srpo("report", trained).stdout.strip().endswith("report.html")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "debug", "--policy", "nowhere", "--run", "x"], "holds no config.json"),
        (["train", "debug", "--policy", "nowhere", "--run", "x", "--learning-rat", "1"], "did you mean '--learner"),
        (["sft", "debug", "--demos", "nowhere", "--run", "x"], "run srpo collect"),
        (["collect", "debgu", "--out", "x"], "did you mean 'debug'"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = srpo(*arguments, expect=2)
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_doctor_passes_where_the_tests_run() -> None:
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "srpo.cli", "doctor"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "MuJoCo" in done.stdout


def test_grading_by_coverage(folder: Path) -> None:
    run = folder / "covered"
    covering = ("--clustering", "coverage", "--task-sampling", "uncertain", "--demonstrations", folder / "demos")
    budget = ("--groups", "4", "--group-size", "4", "--steps", "1")
    srpo("train", "debug", *EASY, *covering, *budget, "--policy", folder / "sft/policy", "--run", run, "--workers", "2")
    graded = json.loads((run / "graded.json").read_text())
    assert all(0 <= p <= 1 for curve in graded["curves"] for p in curve["progress"])
    assert {curve["label"] for curve in graded["curves"]} == {"success", "failure"}
