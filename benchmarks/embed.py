"""What it costs to embed an episode, encoder by encoder, on one core (or on a GPU, for V-JEPA 2).

    python benchmarks/embed.py --world-models image,image-random,pixels,length --frames 13

Random 128 px frames: the work does not depend on what is to be seen. "frame" is what a rollout worker does at each
decision point, "episode" what is left to the trainer; "shared" is a frame whose feature maps the policy has computed
already. V-JEPA 2: give ``vjepa2-vitl`` or ``vjepa2:<folder>``; its weights must be there.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from srpo.policies.backbone import shared_backbone
from srpo.world_models import create


def milliseconds(function, repeats: int) -> float:
    """Median wall-clock time of a call, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world-models", default="image,image-random,pixels,length")
    parser.add_argument("--frames", type=int, default=13, help="decision points of an episode")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rng = np.random.default_rng(0)
    shape = (options.repeats + 1, options.frames, options.size, options.size, 3)
    videos = list(rng.integers(0, 256, shape, dtype=np.uint8))
    _, maps = shared_backbone()(torch.from_numpy(videos[0][:1]))
    known = {"agentview_s16": maps[0].half().numpy()}
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread, {options.frames} frames\n")
    print("| encoder | frame, ms | shared frame, ms | episode, ms | whole episode, ms | episodes/s | dimensions |")
    print("|---|---|---|---|---|---|---|")
    for name in options.world_models.split(","):
        model = create(name)
        frame = milliseconds(lambda model=model: model.frame_features(videos[0][0], {}), options.repeats)
        shared = milliseconds(lambda model=model: model.frame_features(videos[0][0], known), options.repeats)
        features = [np.stack([model.frame_features(f, {}) for f in video]) for video in videos]
        fresh = iter(features)  # another one each time: embeddings may be cached
        episode = milliseconds(lambda model=model, fresh=fresh: model.embed([next(fresh)]), options.repeats)
        whole = options.frames * frame + episode
        size = model.embed(features[:1]).shape[1]
        print(
            f"| {name} | {frame:.2f} | {shared:.2f} | {episode:.2f} | {whole:.1f} | {1e3 / whole:.1f} | {size} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
