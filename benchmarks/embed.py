"""What it costs to embed an episode, encoder by encoder, on one core (or on a GPU, for V-JEPA 2).

    python benchmarks/embed.py --world-models image,image-random,pixels,length --frames 13
    python benchmarks/embed.py --plain vjepa2-vitg-384 --clips 32        # V-JEPA 2 against a plain loop, on a GPU
    python benchmarks/embed.py --plain random-vitg-384 --clips 32        # the same with random weights, without the hub

Random 128 px frames: the work does not depend on what is to be seen. "frame" is what a rollout worker does at each
decision point, "episode" what is left to the trainer (32 moments, see `srpo.world_models.moments`); "shared" is a frame
whose feature maps the policy has computed already. V-JEPA 2: give ``vjepa2-vitl`` or ``vjepa2:<folder>``; its weights
must be there.

The plain loop is what the paper's code does: one clip after the other, frames prepared on the CPU, weights in fp32 that
autocast turns to fp16, `transformers`' own layers; ours and it embed the same clips.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from srpo.policies.backbone import shared_backbone
from srpo.world_models import create, moments
from srpo.world_models.video_frames import chosen_frames
from srpo.world_models.vjepa2 import PUBLISHED, VJepa2WorldModel


def milliseconds(function, repeats: int) -> float:
    """Median wall-clock time of a call, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def random_weights(folder: Path) -> Path:
    """A folder with random weights of ViT-g, 384 pixels: as large and as slow as the published ones."""
    from transformers import VJEPA2Config, VJEPA2Model

    config = VJEPA2Config(
        crop_size=384, hidden_size=1408, num_attention_heads=22, num_hidden_layers=40, mlp_ratio=48 / 11,
        pred_num_hidden_layers=1,
    )  # fmt: skip
    VJEPA2Model(config).save_pretrained(folder)
    return folder


class PlainLoop:
    """Embeds as the paper's code does."""

    def __init__(self, source: str, ours: VJepa2WorldModel, device: torch.device) -> None:
        from transformers import VJEPA2Model

        self.model = VJEPA2Model.from_pretrained(source).eval().to(device)
        self.preprocessing, self.device = ours.preprocessing, device

    @torch.inference_mode()
    def embed(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        """(N, hidden size) float32."""
        out = []
        for video in videos:
            chosen = chosen_frames(len(video), self.model.config.frames_per_clip)
            pixels = self.preprocessing(torch.from_numpy(video[chosen]))[None].to(self.device)
            with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
                tokens = self.model.get_vision_features(pixels)
            out.append(tokens.float().mean(1)[0].cpu().numpy())
        return np.stack(out)


def against_plain(source: str, clips: int, frames: int) -> None:
    """Clips per second without loading, peak memory, and how alike the embeddings are."""
    ours = VJepa2WorldModel(source)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(0)
    warm, *videos = rng.integers(0, 256, (clips + 1, frames, 128, 128, 3), dtype=np.uint8)
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}, {clips} clips of {frames} frames\n")
    print("| loop | clips/s | peak memory, GB |\n|---|---|---|")
    found = []
    for name in ("plain", "ours"):
        model = PlainLoop(PUBLISHED.get(source, (source,))[0], ours, device) if name == "plain" else ours
        model.embed([warm])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        found.append(model.embed(videos))
        seconds = time.perf_counter() - start
        peak = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if device.type == "cuda" else "-"
        print(f"| {name} | {clips / seconds:.3f} | {peak} |", flush=True)
        del model
    a, b = found
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    print(f"\nsmallest cosine of the two embeddings of a clip: {cosine.min():.6f}")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world-models", default="image,image-random,pixels,length")
    parser.add_argument("--frames", type=int, default=13, help="decision points of an episode")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--plain", metavar="V-JEPA 2", help="compare this encoder with a plain loop, and nothing else")
    parser.add_argument("--clips", type=int, default=8, help="of that comparison")
    options = parser.parse_args()
    if options.plain == "random-vitg-384":
        with tempfile.TemporaryDirectory() as folder:
            return against_plain(str(random_weights(Path(folder))), options.clips, 64)
    if options.plain:
        return against_plain(options.plain.removeprefix("vjepa2:"), options.clips, 64)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rng = np.random.default_rng(0)
    shape = (options.repeats + 1, options.frames, options.size, options.size, 3)
    videos = list(rng.integers(0, 256, shape, dtype=np.uint8))
    _, maps = shared_backbone()(torch.from_numpy(videos[0][:1]))
    known = {"agentview_s16": maps[0].half().numpy()}
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread, {options.frames} frames\n")
    print("| encoder | frame, ms | shared frame, ms | episode, ms | whole episode, ms | episodes/s | moment size |")
    print("|---|---|---|---|---|---|---|")
    for name in options.world_models.split(","):
        model = create(name)
        frame = milliseconds(lambda model=model: model.frame_features(videos[0][0], {}), options.repeats)
        shared = milliseconds(lambda model=model: model.frame_features(videos[0][0], known), options.repeats)
        features = [np.stack([model.frame_features(f, {}) for f in video]) for video in videos]
        fresh = iter(features)  # another one each time: embeddings may be cached
        episode = milliseconds(lambda model=model, fresh=fresh: moments(model, [next(fresh)]), options.repeats)
        whole = options.frames * frame + episode
        size = moments(model, features[:1]).shape[2]
        print(
            f"| {name} | {frame:.2f} | {shared:.2f} | {episode:.2f} | {whole:.1f} | {1e3 / whole:.1f} | {size} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
