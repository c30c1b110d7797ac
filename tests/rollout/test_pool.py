"""Worker processes: order, replacement of those that die or hang, and what the caller hears of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from srpo.rollout import pool as pool_module
from srpo.rollout.pool import WorkerPool
from srpo.types import SrpoError


class FakeRunner:
    """Answers ``(kind, value)`` jobs; misbehaviour "once" leaves a mark in the folder so as not to be repeated."""

    def __init__(self, folder: str) -> None:
        self.folder, self.payload = Path(folder), 0

    def update(self, payload: int) -> None:
        self.payload = payload

    def first_time(self, name: str) -> bool:
        mark = self.folder / name
        new = not mark.exists()
        mark.touch()
        return new

    def run(self, job: tuple[str, Any]) -> Any:
        kind, value = job
        if kind == "mistake":
            raise SrpoError("The drawer is locked; open it first.")
        if kind == "bug":
            raise ZeroDivisionError("one by nothing")
        if kind == "die" or (kind == "die once" and self.first_time(value)):
            os._exit(3)
        if kind == "hang once" and self.first_time(value):
            time.sleep(600)
        if kind == "sleep":
            time.sleep(value)
        return {"pid": os.getpid(), "payload": self.payload}.get(kind, value)

    def close(self) -> None:
        (self.folder / f"closed {os.getpid()}").touch()


def make(folder: Path, workers: int = 2, **more: Any) -> WorkerPool:
    return WorkerPool(f"{__name__}:FakeRunner", (str(folder),), workers, **more)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture
def pool(folder: Path) -> Iterator[WorkerPool]:
    with make(folder) as pool:
        yield pool


def results(pool: WorkerPool, jobs: list[tuple[str, Any]], **more: Any) -> list[Any]:
    out = dict(pool.run(jobs, **more))
    assert sorted(out) == list(range(len(jobs)))  # every job once
    return [out[i] for i in range(len(jobs))]


def test_every_job_is_answered_under_its_number(pool: WorkerPool, folder: Path) -> None:
    jobs = [("sleep", 0.3), *(("echo", i) for i in range(20))]
    assert results(pool, jobs) == [0.3, *range(20)]
    assert results(pool, []) == []
    pids = results(pool, [("pid", None)] * 8)
    assert os.getpid() not in pids and 1 <= len(set(pids)) <= 2
    assert (pool.stats.restarts, pool.stats.reruns) == (0, 0)
    pool.close()
    assert {f"closed {pid}" for pid in pids} <= {p.name for p in folder.iterdir()}


def test_a_worker_stays_with_its_kind_of_job_while_there_are_any(pool: WorkerPool) -> None:
    jobs = [("pid", name) for name in "aabbababab"]
    history: dict[int, str] = {}
    for i, pid in pool.run(jobs, affinity=lambda job: job[1]):
        history[pid] = history.get(pid, "") + jobs[i][1]
    # The first takes an "a"; the second passes over the other "a" and takes a "b". A worker that runs out of its
    # own kind helps with the other, so there is at most one change in the life of each.
    assert sorted(kinds[0] for kinds in history.values()) == ["a", "b"]
    assert all(kinds.strip(kinds[0]).strip(kinds[-1]) == "" for kinds in history.values())


def test_a_worker_keeps_its_initial_state_and_then_its_task() -> None:
    """Two workers in turn, tasks A and B with two initial states each, two jobs a state."""
    jobs = [task + state for task in "AB" for state in "12" for _ in range(2)]
    pool = WorkerPool.__new__(WorkerPool)
    pool._timeout = 1.0
    pool._workers = [pool_module._Worker(None, SimpleNamespace(send=lambda message: None)) for _ in range(2)]
    waiting, history = list(range(len(jobs))), []
    while waiting:
        for worker in pool._workers:
            worker.job = None
            pool._assign(worker, jobs, waiting, lambda job: (job[0], job[1]))
            history.append(jobs[worker.job])
    assert history[0::2] == ["A1", "A1", "A2", "A2"] and history[1::2] == ["B1", "B1", "B2", "B2"]


def test_a_worker_without_work_of_its_own_takes_what_nobody_holds_first() -> None:
    pool = WorkerPool.__new__(WorkerPool)
    pool._timeout = 1.0
    ours, other = (pool_module._Worker(None, SimpleNamespace(send=lambda message: None)) for _ in range(2))
    pool._workers = [ours, other]
    ours.affinity, other.affinity = ("A", 1), ("B", 1)
    jobs = [("B", 1), ("B", 2), ("C", 1), ("A", 2)]
    waiting, taken = list(range(4)), []
    while waiting:
        ours.job, ours.affinity = None, ("A", 1)
        pool._assign(ours, jobs, waiting, lambda job: job)
        taken.append(jobs[ours.job])
    assert taken == [("A", 2), ("C", 1), ("B", 2), ("B", 1)]


def test_a_dying_worker_is_replaced_and_its_job_run_again(pool: WorkerPool) -> None:
    pool.update(41)
    jobs = [("echo", 1), ("die once", "x"), ("echo", 2), ("payload", None), ("payload", None)]
    assert results(pool, jobs) == [1, "x", 2, 41, 41]
    assert (pool.stats.restarts, pool.stats.reruns) == (1, 1)
    assert "exit code 3" in pool.stats.reasons[0]


def test_replacements_know_the_last_update(folder: Path) -> None:
    with make(folder, workers=1) as pool:
        pool.update(41)
        pool.update(42)
        assert results(pool, [("die once", "x"), ("payload", None)]) == ["x", 42]


def test_a_hanging_worker_is_replaced(pool: WorkerPool) -> None:
    results(pool, [("sleep", 0.2), ("sleep", 0.2)])  # both have started
    pool._timeout = 2.0
    answers = pool.run([("hang once", "x"), ("echo", 1)])
    assert next(answers) == (1, 1)
    pool._timeout = 300.0  # the replacement has to start first
    assert list(answers) == [(0, "x")]
    assert (pool.stats.restarts, pool.stats.reruns) == (1, 1)
    assert "no answer" in pool.stats.reasons[0]


def test_a_job_that_always_fails_stops_the_run_with_its_reason(folder: Path) -> None:
    with make(folder, workers=1, retries=1) as pool:
        with pytest.raises(SrpoError, match=r"failed 2 times.*(?s:.)*one by nothing"):
            results(pool, [("bug", None)])
        with pytest.raises(SrpoError, match=r"failed 2 times.*exit code 3"):
            results(pool, [("die", None)])
        assert pool.stats.reruns == 2
        assert results(pool, [("echo", 5)]) == [5]


def test_a_mistake_of_the_user_is_passed_on_as_it_is(pool: WorkerPool) -> None:
    with pytest.raises(SrpoError) as caught:
        results(pool, [("echo", 1), ("mistake", None), ("echo", 2)])
    assert str(caught.value) == "The drawer is locked; open it first."
    assert results(pool, [("echo", i) for i in range(4)]) == [0, 1, 2, 3]
    assert pool.stats.reruns == 0


def test_a_runner_that_cannot_be_built_says_why(folder: Path) -> None:
    with WorkerPool("no.such.module:Runner", (), 1) as pool, pytest.raises(SrpoError, match=r"Cannot load 'no\.such"):
        results(pool, [("echo", 1)])


def test_abandoned_jobs_do_not_answer_the_next_call(pool: WorkerPool) -> None:
    for answer in pool.run([("echo", "old"), ("sleep", 1.5), ("echo", "older"), ("sleep", 1.5)]):
        assert answer[1] in ("old", "older")
        break
    assert results(pool, [("echo", i) for i in range(6)]) == list(range(6))
    assert (pool.stats.restarts, pool.stats.reruns) == (0, 0)  # nothing went wrong


def test_a_worker_that_dies_between_runs_is_replaced(folder: Path) -> None:
    with make(folder, workers=1) as pool:
        for update in (False, True):
            (pid,) = results(pool, [("pid", None)])
            process = pool._workers[0].process
            process.kill()
            process.join()
            if update:
                pool.update(7)
            assert results(pool, [("pid", None)]) != [pid]
        assert results(pool, [("payload", None)]) == [7]
        assert pool.stats.restarts == 2 and pool.stats.reruns <= 1


class Bomb:
    """Kills the process that unpickles it."""

    def __reduce__(self) -> tuple:
        return os._exit, (4,)


def test_a_worker_that_dies_as_it_starts_is_one_sentence() -> None:
    with WorkerPool(f"{__name__}:FakeRunner", (Bomb(),), 1) as pool:
        pool.update(b"x" * 10_000_000)  # more than a pipe holds: sending it fails
        with pytest.raises(SrpoError, match=r"failed 3 times.*exit code 4"):
            results(pool, [("echo", 1)])


def test_no_workers_is_refused() -> None:
    with pytest.raises(SrpoError, match="at least 1"):
        make(Path(), workers=0)


@pytest.mark.parametrize(
    ("cards", "chosen", "visible", "expected"),
    [
        (0, None, None, None),
        (1, None, None, None),
        (2, None, None, "1"),
        (4, None, None, "3"),
        (4, "0", None, None),
        (4, None, "2", "2"),  # robosuite refuses the others
        (4, None, "0, 3", "3"),
        (0, None, "", None),
    ],
)
def test_workers_draw_on_all_cards_by_turns(
    monkeypatch: pytest.MonkeyPatch, cards: int, chosen: str | None, visible: str | None, expected: str | None
) -> None:
    monkeypatch.setattr(pool_module, "hardware_devices", lambda: cards)
    for name, value in (("MUJOCO_EGL_DEVICE_ID", chosen), ("CUDA_VISIBLE_DEVICES", visible)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert pool_module._graphics_card(7).get("MUJOCO_EGL_DEVICE_ID") == expected
