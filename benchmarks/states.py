"""Are the initial states that training draws like those that LIBERO ships?

    python benchmarks/states.py --suites libero_spatial libero_object

Of every task, the published initial states and as many of ours (seeds that training may draw) are settled, and the
horizontal places of every movable object compared: difference of the means and spread along x and y in mm, and the
smaller p of two Kolmogorov-Smirnov tests. Where an object does not vary by a millimetre nothing is compared. With
twenty to sixty objects a suite, a few p below 0.01 would be no surprise; shifts of several mm would.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from scipy.stats import ks_2samp

from srpo.envs.libero import LiberoEnv, tasks
from srpo.sampler import N_PUBLISHED, train_state
from srpo.types import InitialState, Task


def places(env: LiberoEnv, states: list[InitialState]) -> dict[str, np.ndarray]:
    """Object -> (number of states, 2): where it lies once settled, in mm."""
    names = list(env.problem.objects_dict)
    bodies = [env.problem.obj_body_id[name] for name in names]
    settled = []
    for state in states:
        env.reset(state)
        settled.append(1000.0 * env.data.xpos[bodies][:, :2])
    return dict(zip(names, np.stack(settled, 1), strict=True))


def compare(task: Task, count: int, threshold: float) -> None:
    """Print the objects of a task whose places differ, and how many were compared."""
    env = LiberoEnv(task, cameras=(), quality="fast")
    published = places(env, [InitialState("published", i) for i in range(count)])
    ours = places(env, [train_state("held-out", i) for i in range(count)])
    env.close()
    compared = 0
    for name, there in published.items():
        here = ours[name]
        if max(there.std(0).max(), here.std(0).max()) < 1.0:
            continue
        compared += 1
        p = min(ks_2samp(there[:, axis], here[:, axis]).pvalue for axis in (0, 1))
        if p < threshold:
            shift = "{:+.1f} {:+.1f}".format(*(here.mean(0) - there.mean(0)))
            spread = "{:.1f} {:.1f} | {:.1f} {:.1f}".format(*here.std(0), *there.std(0))
            print(f"| {task.id} | {name} | {shift} | {spread} | {p:.0e} |", flush=True)
    print(f"| {task.id} | {compared} objects compared | | | | |", flush=True)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", default=["libero_spatial"])
    parser.add_argument("--states", type=int, default=N_PUBLISHED, help="of each kind a task, 50 at most")
    parser.add_argument("--threshold", type=float, default=0.01, help="objects with a p below it are printed")
    options = parser.parse_args()
    print("| task | object | ours less published (mm) | std ours | published | p |\n|---|---|---|---|---|---|")
    for suite in options.suites:
        for task in tasks(suite):
            compare(task, options.states, options.threshold)


if __name__ == "__main__":
    main()
