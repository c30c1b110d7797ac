"""The command line: what it reads, what it answers to mistakes, and its exit codes. No simulator."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from srpo import cli, commands, presets
from srpo.cli import main, overrides
from srpo.types import SrpoError


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What ``srpo ARGUMENTS`` says when it exits with 2; one line, no traceback."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("srpo: ") and err.count("\n") == 1 and "Traceback" not in out + err
    return err


def test_overrides() -> None:
    arguments = ["--steps", "5", "--formula=siirl", "--learner.learning-rate", "-1e-4", "--tasks=", "--a=b=c"]
    assert overrides(arguments) == {
        "steps": "5", "formula": "siirl", "learner.learning-rate": "-1e-4", "tasks": "", "a": "b=c",
    }  # fmt: skip
    assert overrides([]) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["steps", "5"], "Cannot read 'steps'"),
        (["--steps"], "--steps needs a value"),
        (["--steps", "--seed"], "--steps needs a value"),
    ],
)
def test_unreadable_overrides(arguments: list[str], message: str) -> None:
    with pytest.raises(SrpoError, match=message):
        overrides(arguments)


TRAIN = ("train", "debug", "--policy", "no-policy", "--run", "unused")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "debg", *TRAIN[2:]), "did you mean 'debug'?"),
        ((*TRAIN, "--stpes", "3"), "did you mean '--steps'?"),
        ((*TRAIN, "--learner.lerning-rate", "3"), "did you mean '--learner.learning-rate'?"),
        ((*TRAIN, "--steps", "many"), "--steps takes int values, not 'many'."),
        ((*TRAIN, "--steps"), "--steps needs a value"),
        ((*TRAIN, "--reward", "dense"), "choose srpo or sparse"),
        (("sft", "debug", "--demos", "no-demos", "--run", "r", "--bach", "3"), "did you mean '--batch'?"),
        (("collect", "debug", "--out", "o", "--demo", "x"), "'--demos'"),
        (("eval", "no-policy", "--step", "3"), "no option '--step' of srpo eval"),
        (("eval", "no-policy"), "no-policy holds no config.json"),
        (("report", "no-run"), "no-run"),
        (("presets", "libero"), "did you mean 'libero-"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize("left", ["metrics.csv", "checkpoints/step_000001/state.json"])
def test_a_run_is_not_begun_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str) -> None:
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).touch()
    said = refusal(capsys, "train", "debug", "--policy", str(tmp_path / "policy"), "--run", str(tmp_path))
    assert "already holds a run" in said and "--resume" in said


def test_eval_reads_task_numbers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "load_policy", lambda *_: None)
    assert "--tasks takes int values, not 'x'" in refusal(capsys, "eval", "p", "--tasks", "1,x")


@pytest.mark.parametrize("arguments", [(), ("fly",), ("train",), ("sft", "debug", "--run", "r")])
def test_usage_errors_exit_with_2(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "usage: srpo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [(), ("collect",), ("sft",), ("train",), ("distil",), ("eval",), ("report",), ("doctor",)]
)
def test_help(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0 and "usage: srpo" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "Wilson 95 % intervals" in out
    for command in ("collect", "sft", "train", "distil", "eval", "report", "presets", "doctor"):
        assert f"\n    {command}" in out


def test_settings_reach_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(commands, "train", lambda options, changes: seen.append((options, changes)) or 0)
    assert main([*TRAIN, "--seed", "4", "--workers", "3", "--resume", "--steps", "5", "--learner.epochs=2"]) == 0
    ((options, changes),) = seen
    assert (options.preset, options.seed, options.workers, options.resume) == ("debug", 4, 3, True)
    assert (options.policy, options.run) == ("no-policy", "unused")
    assert changes == {"steps": "5", "learner.epochs": "2"}


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(error: BaseException | None, command: Sequence[str] = TRAIN) -> int:
        def body(options: object, changes: object) -> int:
            if error:
                raise error
            return 0

        monkeypatch.setattr(cli, "_run", body)
        return main(command)

    assert run(None) == 0
    assert run(SrpoError("The cup is full; empty it.")) == 2
    assert capsys.readouterr().err == "srpo: The cup is full; empty it.\n"
    assert run(OSError(errno.ENOSPC, "No space left on device", "runs/a/metrics.csv")) == 2
    assert re.search(r"^srpo: .*metrics\.csv.*free disk space", capsys.readouterr().err)
    assert run(KeyboardInterrupt()) == 130
    assert "--resume" in capsys.readouterr().err
    assert run(KeyboardInterrupt(), ("distil", "debug", "--runs", "a", "--run", "b")) == 130  # it has no --resume
    assert capsys.readouterr().err == "\nsrpo: interrupted; run the same command again.\n"
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        run(ZeroDivisionError())
    with pytest.raises(ConnectionResetError):
        run(ConnectionResetError(errno.ECONNRESET, "reset"))


def test_presets_lists_names_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(presets.PRESETS)
    assert main(["presets", "debug"]) == 0
    out = capsys.readouterr().out
    for expected in ("srpo collect debug", "srpo sft debug", "srpo train debug", "--group-size 2"):
        assert expected in out
    assert "--learner.minibatch 8" in out and "--policy.image-size 128" in out
