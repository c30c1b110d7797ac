"""Success of a policy over tasks and initial states, with Wilson intervals, provenance and videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from srpo.evaluation.intervals import wilson
from srpo.provenance import provenance, write_json
from srpo.report.video import write_mp4
from srpo.rollout.collector import Collector, summary
from srpo.sampler import evaluation_states, practised_states
from srpo.types import Episode, EpisodeRequest, InitialState, SrpoError, Task

DECODINGS = ("greedy", "median", "sample")


def evaluation_requests(
    tasks: Sequence[Task],
    protocol: str,
    states: int,
    temperature: float = 0.0,
    videos: int = 0,
    decoding: str | None = None,
    practised: Sequence[Mapping[str, Any]] | None = None,
) -> list[EpisodeRequest]:
    """One episode per task and evaluation state; the first ``videos`` of each task keep their frames.

    Args:
        tasks: what to attempt.
        protocol: see `srpo.sampler.evaluation_states`.
        states: initial states per task.
        temperature: of the action tokens, where they are sampled.
        videos: episodes per task to film.
        decoding: ``"greedy"`` (the most likely token), ``"median"`` (of each token's distribution, see `sample_tokens`)
            or ``"sample"``; None: sample, or greedy at temperature 0.
        practised: rows of a run's ``groups.csv``: the last ``states`` initial states of each task in it, in place of
            the protocol's.

    Raises:
        SrpoError: an impossible decoding or number of states, or nothing was practised at any of the tasks.
    """
    if decoding is not None and decoding not in DECODINGS:
        raise SrpoError(f"No decoding named '{decoding}': choose {', '.join(DECODINGS)}.")
    if decoding == "sample" and temperature <= 0:
        raise SrpoError("Sampling needs a temperature: set --temperature above 0.")
    median = decoding == "median"
    temperature = {"greedy": 0.0, "median": 1.0}.get(decoding or "", temperature)

    def states_of(task: Task) -> list[InitialState]:
        if practised is None:
            return evaluation_states(protocol, states)
        return practised_states(practised, task.id, states)

    requests = [
        EpisodeRequest(task, state, -1, i, temperature, median, keep_frames=i < videos)
        for task in tasks
        for i, state in enumerate(states_of(task))
    ]
    if not requests:
        raise SrpoError(f"Nothing was practised at {', '.join(t.id for t in tasks)}: choose the run's own suite.")
    return requests


def evaluate(
    collector: Collector,
    policy: torch.nn.Module,
    requests: Sequence[EpisodeRequest],
    on_episode: Callable[[Episode], None] = lambda episode: None,
) -> list[Episode]:
    """Run the episodes of an evaluation; heavy arrays are dropped as they arrive."""

    def slim(episode: Episode) -> None:
        episode.inputs.clear()
        episode.frame_features = None
        on_episode(episode)

    return collector.collect(policy, requests, slim)


def result(episodes: Sequence[Episode], *, checkpoint: str, suite: str, protocol: str) -> dict[str, Any]:
    """Per-task and mean success with Wilson 95 % intervals, every episode, and provenance; plain values."""
    by_task: dict[str, list[bool]] = defaultdict(list)
    for e in episodes:
        by_task[e.request.task.id].append(e.success)
    everything = [e.success for e in episodes]
    return {
        "checkpoint": checkpoint,
        "suite": suite,
        "protocol": protocol,
        "decoding": _decoding([e.request for e in episodes]),
        "overall": _rate(everything),
        "tasks": {task: _rate(outcomes) for task, outcomes in by_task.items()},
        "episodes": [summary(e) for e in episodes],
        "provenance": provenance(),
    }


def _decoding(requests: Sequence[EpisodeRequest]) -> str:
    if all(r.temperature == 0 for r in requests):
        return "greedy"
    return "median" if all(r.median for r in requests) else f"sampled at temperature {requests[0].temperature:g}"


def _rate(outcomes: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson(sum(outcomes), len(outcomes))
    return {
        "successes": sum(outcomes),
        "episodes": len(outcomes),
        "success_rate": sum(outcomes) / len(outcomes),
        "wilson_95": [round(low, 4), round(high, 4)],
    }


def write_videos(folder: Path, phase: str, episodes: Sequence[Episode]) -> list[dict[str, Any]]:
    """Film the episodes that kept their frames; returns (and merges into ``index.json``) one entry a video."""
    import json

    index_path = folder / "index.json"
    index = json.loads(index_path.read_text()) if index_path.is_file() else []
    index = [entry for entry in index if entry["phase"] != phase]
    for e in episodes:
        if not e.frames:
            continue
        request = e.request
        state = request.initial_state
        name = f"{phase}_{request.task.id.replace('/', '-')}_{state.kind}-{state.index}.mp4"
        banner = f"{'success' if e.success else 'failure'}, {e.n_steps} steps"
        write_mp4(folder / name, e.frames["agentview"], fps=10, banner=banner)
        index.append(
            {
                "file": name,
                "phase": phase,
                "task": request.task.id,
                "initial_state": {"kind": state.kind, "index": state.index},
                "success": bool(e.success),
                "n_steps": int(e.n_steps),
            }
        )
    write_json(index_path, index)
    return index


def shortened(tasks: Sequence[Task], max_steps: int | None) -> list[Task]:
    """The tasks with another step limit, or as they are."""
    return [replace(t, max_steps=max_steps) for t in tasks] if max_steps else list(tasks)
