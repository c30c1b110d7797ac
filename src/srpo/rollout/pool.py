"""Worker processes with a watchdog: a worker that dies or hangs is replaced and its job is run again, and counted."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from srpo import plugins
from srpo.envs.rendering import hardware_devices
from srpo.types import SrpoError

_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    job: int | None = None
    deadline: float = float("inf")
    affinity: Any = None


@dataclass
class PoolStats:
    """What went wrong and was mended."""

    restarts: int = 0
    reruns: int = 0
    reasons: list[str] = field(default_factory=list)


class WorkerPool:
    """N processes, each with one runner (an object with ``update(payload)``, ``run(job)`` and ``close()``).

    A runner that also has ``connect(ask)`` is given a function with which it can put questions to this process in the
    middle of a job. Questions that wait at the same time are answered together.

    Args:
        runner: import string of the runner class.
        arguments: its constructor's arguments (picklable).
        workers: number of processes.
        timeout: seconds a job may take before its worker is replaced (start-up included in a worker's first job).
        retries: times a job is run again before the run stops with an error.
        answer: answers runners' questions, a list at a time.
    """

    def __init__(
        self,
        runner: str,
        arguments: Sequence[Any],
        workers: int,
        timeout: float = 300.0,
        retries: int = 2,
        answer: Callable[[list[Any]], Iterable[Any]] | None = None,
    ) -> None:
        if workers < 1:
            raise SrpoError(f"{workers} workers cannot run anything: give at least 1.")
        self._runner, self._arguments = runner, tuple(arguments)
        self._timeout, self._retries, self._answer = timeout, retries, answer
        self._context = multiprocessing.get_context("spawn")
        self._payload: Any = None
        self.stats = PoolStats()
        self._workers: list[_Worker] = []
        try:
            for i in range(workers):
                self._workers.append(self._start(i))
        except BaseException:
            self.close()
            raise

    def update(self, payload: Any) -> None:
        """Hand every worker (and every replacement later) a new state, such as policy weights."""
        self._payload = payload
        for i, worker in enumerate(self._workers):
            try:
                worker.pipe.send(("update", payload))
            except (BrokenPipeError, OSError):
                self._replace(i, "died while idle")

    def run(self, jobs: Sequence[Any], affinity: Callable[[Any], Any] = lambda job: None) -> Iterator[tuple[int, Any]]:
        """Run jobs on whichever worker is free, and yield (index, result) as they finish.

        Args:
            jobs: what to run, each picklable.
            affinity: jobs of equal value prefer a worker that last ran one of them. Of tuples an equal beginning
                counts as well: (task, initial state) keeps a worker with its state, else with its task.

        Raises:
            SrpoError: a job failed more often than ``retries`` allows, or a runner raised one itself.
        """
        try:
            yield from self._run(jobs, affinity)
        finally:
            for i, worker in enumerate(self._workers):
                if worker.job is not None:  # the caller gave up half-way: its jobs must not answer the next call
                    self._replace(i, "abandoned", count=False)

    def _run(self, jobs: Sequence[Any], affinity: Callable[[Any], Any]) -> Iterator[tuple[int, Any]]:
        waiting = list(range(len(jobs)))
        failures: Counter[int] = Counter()
        remaining = len(jobs)
        while remaining:
            for worker in self._workers:
                self._assign(worker, jobs, waiting, affinity)
            busy = [w for w in self._workers if w.job is not None]
            pause = max(0.0, min(w.deadline for w in busy) - time.monotonic())
            ready = set(wait([w.pipe for w in busy], timeout=min(pause, 5.0)))
            speaking = [i for i, w in enumerate(self._workers) if w.job is not None and w.pipe in ready]
            messages = {i: self._receive(self._workers[i]) for i in speaking}
            self._reply({i: value for i, (kind, value) in messages.items() if kind == "ask"})
            for i, worker in enumerate(self._workers):
                if worker.job is None:
                    continue
                failure = None
                if i in messages:
                    job = worker.job
                    kind, value = messages[i]
                    if kind == "ask":
                        continue
                    if kind == "done":
                        worker.job, worker.deadline = None, float("inf")
                        remaining -= 1
                        yield job, value
                        continue
                    if kind == "mistake":
                        raise SrpoError(value)
                    failure = value
                elif time.monotonic() > worker.deadline:
                    failure = f"no answer for {self._timeout:.0f} s"
                if failure is not None:
                    failures[worker.job] += 1
                    if failures[worker.job] > self._retries:
                        raise SrpoError(f"An episode failed {self._retries + 1} times; the last time: {failure}")
                    waiting.insert(0, worker.job)
                    self.stats.reruns += 1
                    self._replace(i, failure)

    def close(self) -> None:
        """Stop all workers."""
        for worker in self._workers:
            try:
                worker.pipe.send(("stop", None))
            except (BrokenPipeError, OSError):
                continue
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
            worker.pipe.close()
        self._workers.clear()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reply(self, questions: dict[int, Any]) -> None:
        if not questions:
            return
        assert self._answer is not None, "a runner asks, but the pool was given no answer function"
        for i, answer in zip(questions, self._answer(list(questions.values())), strict=True):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died meanwhile: noticed next time
                self._workers[i].pipe.send(("answer", answer))

    def _assign(self, worker: _Worker, jobs: Sequence[Any], waiting: list[int], affinity: Callable[[Any], Any]) -> None:
        if worker.job is not None or not waiting:
            return
        others = [w.affinity for w in self._workers if w is not worker and w.affinity is not None]
        keys = [_as_tuple(affinity(jobs[j])) for j in waiting]

        def fit(k: int) -> tuple[bool, bool, int, int, int]:  # mine, else nobody's, else near mine and far from others'
            key = keys[k]
            taken = max((_common(key, other) for other in others), default=0)
            return key == worker.affinity, key not in others, _common(key, worker.affinity), -taken, -k

        pick = max(range(len(keys)), key=fit)
        job = waiting.pop(pick)
        worker.affinity = keys[pick]
        worker.job, worker.deadline = job, time.monotonic() + self._timeout
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # died while idle: `_receive` will find out
            worker.pipe.send(("run", jobs[job]))

    @staticmethod
    def _receive(worker: _Worker) -> tuple[str, Any]:
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(timeout=5)
            return "failed", f"the worker died (exit code {worker.process.exitcode})"

    def _start(self, index: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._runner, self._arguments), daemon=True, name="srpo-worker"
        )
        settings = _SINGLE_THREADED | _graphics_card(index)
        before = {k: os.environ.get(k) for k in settings}
        os.environ.update(settings)  # read by the child's libraries as they load
        try:
            process.start()
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
        theirs.close()
        if self._payload is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # died already: its first job will tell
                ours.send(("update", self._payload))
        return _Worker(process, ours)

    def _replace(self, i: int, reason: str, count: bool = True) -> None:
        if count:
            self.stats.restarts += 1
            self.stats.reasons.append(reason)
        old = self._workers[i]
        old.process.kill()
        old.process.join(timeout=5)
        old.pipe.close()
        self._workers[i] = self._start(i)


def _as_tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _common(a: tuple[Any, ...], b: tuple[Any, ...] | None) -> int:
    """Length of the common beginning."""
    if b is None:
        return 0
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _graphics_card(index: int) -> dict[str, str]:
    """Workers draw on all GPUs by turns, unless the user has chosen one."""
    if "MUJOCO_EGL_DEVICE_ID" in os.environ:
        return {}
    # robosuite refuses a card that is hidden from CUDA.
    visible = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip().isdigit()]
    cards = visible or [str(i) for i in range(hardware_devices())]
    if len(cards) < 2 and not visible:
        return {}
    return {"MUJOCO_EGL_DEVICE_ID": cards[index % len(cards)].strip()}


def _serve(pipe: Connection, runner_path: str, arguments: tuple[Any, ...]) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    runner = None
    try:
        while True:
            kind, value = pipe.recv()
            if kind == "stop":
                break
            try:
                if runner is None:
                    runner_class = plugins.load(runner_path)
                    if "torch" in sys.modules:  # only if the runner brought it: it takes seconds to import
                        sys.modules["torch"].set_num_threads(1)
                    runner = runner_class(*arguments)
                    if hasattr(runner, "connect"):
                        runner.connect(functools.partial(_ask, pipe))
                if kind == "update":
                    runner.update(value)
                else:
                    pipe.send(("done", runner.run(value)))
            except SrpoError as error:
                pipe.send(("mistake", str(error)))
            except Exception:
                pipe.send(("failed", traceback.format_exc()))
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone
    finally:
        if runner is not None:
            runner.close()
        pipe.close()


def _ask(pipe: Connection, question: Any) -> Any:
    pipe.send(("ask", question))
    kind, value = pipe.recv()
    if kind != "answer":  # the parent has given up this job and stops its workers
        raise EOFError
    return value
