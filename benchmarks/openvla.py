"""OpenVLA-OFT's speed and memory: decisions per second, update throughput, model-FLOP utilisation. Random weights.

    python benchmarks/openvla.py                                  # the 7B network, on a GPU
    python benchmarks/openvla.py --size small --batches 1,4       # to see that it runs, on a CPU

Weights of the true shape are as fast as trained ones. A chunk is 8 actions, decided on one picture of 224 px and
a prompt of 34 tokens. The update is the learner's own (clipped objective, gradient checkpointing, AdamW) on as many
decisions as ``--decisions``, in parts of ``--budget`` tokens. Utilisation counts one forward and one backward, as if
nothing were recomputed, against ``--peak`` (an H100 SXM's dense bfloat16 by default). "language" trains the language
model, "full" all of it, both with bfloat16 weights and Adam states, which is what fits one card.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch

from srpo import plan
from srpo.learner import Decisions, Learner, LearnerConfig
from srpo.policies.openvla_frontend import FrontEndConfig, Normalisation
from srpo.policies.openvla_oft import OpenVlaConfig, OpenVlaOftPolicy
from srpo.policies.openvla_vision import DINOV2_LARGE, SIGLIP_SO400M
from srpo.presets import preset

ANCHOR = 27.1  # observations per second of OpenVLA-OFT's own code on an H100 (vla-eval)
SIZES = {
    "7b": ({**plan.LLAMA_7B, "pad_token_id": 32000}, (DINOV2_LARGE, SIGLIP_SO400M)),
    "small": (
        {"vocab_size": 32064, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
         "num_attention_heads": 4},
        (replace(DINOV2_LARGE, width=64, depth=3, heads=4, mlp=128),
         replace(SIGLIP_SO400M, width=64, depth=3, heads=4, mlp=128)),
    ),
}  # fmt: skip


def make(size: str, device: str, train: str, compiled: bool = False) -> OpenVlaOftPolicy:
    """A policy with random weights, made on the device."""
    text, vision = SIZES[size]
    scale = Normalisation((-1.0,) * 7, (1.0,) * 7, (True,) * 6 + (False,))
    front = FrontEndConfig(tokenizer="", action=scale, prompt_length=34)
    half = "bfloat16" if device == "cuda" else "float32"
    config = OpenVlaConfig(front, text, vision, train=train, dtype=half, compile=compiled)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, half))
    try:
        with torch.device(device):
            return OpenVlaOftPolicy(config).eval()
    finally:
        torch.set_default_dtype(before)


def inputs(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random decisions, on the CPU."""
    rng = np.random.default_rng(seed)
    return {
        "pixels": torch.from_numpy(rng.integers(0, 256, (count, 1, 224, 224, 3), dtype=np.uint8)),
        "prompt": torch.from_numpy(rng.integers(3, 30_000, (count, 34)).astype(np.int32)),
    }


def wait(device: str) -> None:
    """Until the device has nothing left to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def decide(size: str, device: str, batches: list[int], compiled: bool) -> None:
    """Decisions per second at each batch size, pictures moved from main memory each time."""
    policy = make(size, device, "lora", compiled)
    for batch in batches:
        rows = inputs(batch)
        times = []
        for i in range(13):
            start = time.perf_counter()
            with torch.inference_mode():
                policy.logits(rows).float().cpu()
            wait(device)
            if i >= 3:
                times.append(time.perf_counter() - start)
        rate = batch / float(np.median(times))
        name = "compiled" if compiled else "eager"
        print(f"| {name} | {batch} | {rate:.1f} | {8 * rate:.0f} | {rate / ANCHOR:.1f} |", flush=True)


def update(size: str, device: str, train: str, decisions: int, budget: int, peak: float) -> None:
    """One update (after one to warm up): decisions per second, utilisation, peak memory."""
    policy = make(size, device, train)
    learner = Learner(policy, LearnerConfig(epochs=1, minibatch=decisions, budget=budget, warmup=0,
                                            fused=device == "cuda"), 1.6, 0)  # fmt: skip
    rng = np.random.default_rng(0)
    batch = Decisions(
        inputs(decisions),
        torch.from_numpy(rng.integers(0, 256, (decisions, 56)).astype(np.int16)),
        torch.full((decisions, 56), -5.5),
        torch.from_numpy(rng.standard_normal(decisions).astype(np.float32)),
        torch.ones(decisions, 56, dtype=torch.bool),
    )
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for step in range(2):
        start = time.perf_counter()
        learner.update(batch, step)
        wait(device)
        seconds.append(time.perf_counter() - start)
    config = preset("openvla-oft-libero-long").train
    text, vision = SIZES[size]
    net = plan.openvla_network(config, text, vision, 1)
    passes = 2 if train == "lora" else 3
    used = passes * net.forward * decisions / seconds[-1] / peak
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    rate = decisions / seconds[-1]
    print(f"| {train} | {decisions} | {budget} | {rate:.1f} | {used:.1%} | {memory:.1f} |", flush=True)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="7b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", default="1,16,64")
    parser.add_argument("--train", default="lora,language,full")
    parser.add_argument("--decisions", type=int, default=512)
    parser.add_argument("--budget", type=int, default=16_384)
    parser.add_argument("--peak", type=float, default=989e12, help="operations per second")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, OpenVLA-OFT {options.size}, random weights\n")
    print(f"| forward | batch | decisions/s | actions/s | x {ANCHOR}/s |\n|---|---|---|---|---|")
    batches = [int(b) for b in options.batches.split(",")]
    for compiled in (False, True) if options.compile else (False,):
        decide(options.size, options.device, batches, compiled)
    print("\n| update | decisions | budget | decisions/s | utilisation | peak GiB |\n|---|---|---|---|---|---|")
    for train in filter(None, options.train.split(",")):
        update(options.size, options.device, train, options.decisions, options.budget, options.peak)
        if options.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
