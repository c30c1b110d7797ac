"""How well the scripted experts solve LIBERO: success, length and smoothness, task by task.

    python benchmarks/experts.py --suites libero_object libero_spatial --states 50

Renders nothing; about a second of CPU time an episode. Each finished task is kept in the JSON file, so that
an interrupted run continues where it stopped (``--fresh`` begins anew).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from scipy.stats import binomtest

from srpo.types import InitialState, Task


def run_task(task: Task, states: int, kind: str, noise: float) -> dict[str, Any]:
    """Run the expert from ``states`` initial states of one task."""
    from srpo.envs.experts import expert_for
    from srpo.envs.libero import LiberoEnv

    env = LiberoEnv(task, cameras=())
    starts = [InitialState(kind, index) for index in range(states)]
    episodes = [run_episode(env, expert_for(env, noise, seed=start.index), start) for start in starts]
    env.close()
    solved = [e["steps"] for e in episodes if e["success"]]
    return {
        "task": task.id,
        "name": task.name,
        "max_steps": task.max_steps,
        "episodes": len(episodes),
        "successes": len(solved),
        "mean_steps": float(np.mean(solved)) if solved else None,
        "longest": max(solved, default=None),
        "largest_change": max(e["largest_change"] for e in episodes),
        "retries": sum(e["attempts"] > 1 for e in episodes),
        "grasps": dict(Counter(e["grasp"] for e in episodes).most_common()),
        "failures": [{k: e[k] for k in ("state", "phase", "phases")} for e in episodes if not e["success"]],
    }


def run_episode(env: Any, expert: Any, state: InitialState) -> dict[str, Any]:
    """One episode: outcome, length, phases, largest change of a motion component between two actions."""
    env.reset(state)
    expert.reset()
    actions, phases, grasp = [], [], ""
    for step in range(env.task.max_steps):
        actions.append(expert.act())
        if step == 0:
            grasp = f"{expert.grasp.kind} {np.rad2deg(expert.grasp.yaw):.0f}°"
        if not phases or phases[-1][1] != expert.phase:
            phases.append((step, expert.phase))
        if env.step(actions[-1]):
            break
    changes = np.abs(np.diff(np.array(actions)[:, :6], axis=0))
    return {
        "state": state.index,
        "success": env.success,
        "steps": len(actions),
        "largest_change": float(changes.max(initial=0.0)),
        "attempts": expert.attempts,
        "grasp": grasp,
        "phase": expert.phase,
        "phases": phases,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Markdown table of the tasks and of each suite, with Wilson's 95 % intervals."""
    lines = [
        "| task | name | solved | 95 % interval | mean steps | longest | limit | max change | second try |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        mean = "-" if r["mean_steps"] is None else f"{r['mean_steps']:.0f}"
        name, rate = r["name"].replace("_", " "), _rate(r["successes"], r["episodes"])
        lines.append(
            f"| {r['task']} | {name} | {rate} | {mean} |"
            f" {r['longest'] or '-'} | {r['max_steps']} | {r['largest_change']:.2f} | {r['retries']} |"
        )
    for suite in dict.fromkeys(r["task"].split("/")[0] for r in results):
        part = [r for r in results if r["task"].startswith(suite)]
        solved, episodes = sum(r["successes"] for r in part), sum(r["episodes"] for r in part)
        steps = sum(r["mean_steps"] * r["successes"] for r in part if r["successes"]) / max(solved, 1)
        longest, retries = max((r["longest"] or 0) for r in part), sum(r["retries"] for r in part)
        lines.append(
            f"| **{suite}** | {len(part)} tasks | {_rate(solved, episodes)} | {steps:.0f} | {longest} |"
            f" {part[0]['max_steps']} | {max(r['largest_change'] for r in part):.2f} | {retries} |"
        )
    return "\n".join(lines)


def _rate(solved: int, episodes: int) -> str:
    interval = binomtest(solved, episodes).proportion_ci(method="wilson")
    return f"{solved}/{episodes} | {100 * interval.low:.1f} to {100 * interval.high:.1f} %"


def main() -> None:
    """Run what is missing, print the table and the failures."""
    from srpo.envs.libero import tasks

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--suites", nargs="+", default=["libero_object", "libero_spatial"])
    parser.add_argument("--tasks", nargs="+", type=int, help="indices; all by default")
    parser.add_argument("--states", type=int, default=50, help="initial states a task, from 0")
    parser.add_argument("--kind", choices=("published", "sampled"), default="published")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation, in free space")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/experts.json"))
    parser.add_argument("--fresh", action="store_true", help="forget earlier results in --out")
    args = parser.parse_args()

    done: dict[str, Any] = {}
    if args.out.exists() and not args.fresh:
        done = json.loads(args.out.read_text())
    wanted = [t for s in args.suites for t in tasks(s) if args.tasks is None or t.index in args.tasks]
    keys = {task.id: f"{task.id} {args.kind} {args.states} {args.noise}" for task in wanted}
    missing = [task for task in wanted if keys[task.id] not in done]
    run = partial(run_task, states=args.states, kind=args.kind, noise=args.noise)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        for result in pool.map(run, missing) if args.workers > 1 else map(run, missing):
            done[keys[result["task"]]] = result
            args.out.write_text(json.dumps(done, indent=1))
            print(f"{result['task']}: {result['successes']}/{result['episodes']}", flush=True)
    results = [done[keys[task.id]] for task in wanted]
    print(table(results))
    for result in results:
        print(f"{result['task']} grasps: {result['grasps']}")
        for failure in result["failures"]:
            print(f"  failed from state {failure['state']} in phase {failure['phase']}: {failure['phases']}")


if __name__ == "__main__":
    main()
