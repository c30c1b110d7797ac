"""``srpo train PRESET --plan``: what a run needs and how long a step takes, before anything large is loaded.

Sizes are counted from the architecture; times are floating-point operations over the speed of this machine's own matrix
products, times the share of it that such networks reach. An estimate: half as much again is no surprise.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import torch

from srpo.policies.loading import kind_of, openvla_changes
from srpo.policies.openvla_vision import DINOV2_LARGE, SIGLIP_SO400M
from srpo.rollout.collector import default_workers
from srpo.train_config import TrainConfig

GIB = 2**30
#: Share of the speed of plain matrix products that a transformer reaches, forward and backward.
EFFICIENCY = 0.5
#: CPU seconds of physics and pictures per decision of 8 control steps (docs/results.md, LIBERO-Spatial, fast pictures).
ENVIRONMENT_SECONDS = 0.07
#: Resident memory of a worker with its environments, GiB (docs/results.md).
WORKER_GIB = 0.4
#: Graphics memory of an open scene at full quality, GiB (a guess; its textures are 2,048 or 4,096 pixels wide).
SCENE_GIB = 0.2
#: Weights and Adam's two averages, bytes per trained parameter; and how many of them lie on the disk at most.
CHECKPOINT_BYTES, CHECKPOINTS = 12.0, 3
#: Parameters, and operations per clip of 64 frames, of V-JEPA 2's encoders (attention included).
WORLD_MODELS = {
    "vjepa2-vitl": (0.304e9, 14e12),
    "vjepa2-vith": (0.632e9, 25e12),
    "vjepa2-vitg": (1.01e9, 36e12),
    "vjepa2-vitg-384": (1.01e9, 114e12),
}
LLAMA_7B = {"vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
          "num_attention_heads": 32}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """What the estimate needs to know of a policy.

    Attributes:
        parts: name -> parameters.
        trained: parameters that are trained.
        tokens: of the language model's sequence, per decision.
        forward: floating-point operations of a forward, per decision.
        width, depth, inner: of the language model.
        picture_bytes: kept of a decision until the update.
    """

    parts: dict[str, int]
    trained: int
    tokens: int
    forward: float
    width: int
    depth: int
    inner: int
    picture_bytes: int

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parts.values())


def network(config: TrainConfig, policy: str | None) -> Network:
    """The policy of a run; without one, the published 7B network for presets that want OpenVLA."""
    if policy is not None and kind_of(policy) == "openvla":
        from srpo.policies.openvla_checkpoint import read_config

        checkpoint = read_config(policy, suite=config.suite, **openvla_changes(config.model))
        return openvla_network(config, {**LLAMA_7B, **checkpoint.text}, checkpoint.vision, len(checkpoint.cameras))
    return openvla_network(config, LLAMA_7B, (DINOV2_LARGE, SIGLIP_SO400M), config.model.images or 1)


def openvla_network(config: TrainConfig, text: dict[str, Any], vision: tuple[Any, ...], images: int) -> Network:
    d, inner, depth = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    layers = depth * (4 * d * d + 3 * d * inner + 2 * d)
    eyes = sum((v.depth - 1) * (4 * v.width**2 + 2 * v.width * v.mlp + 9 * v.width + v.mlp) for v in vision)
    eyes += sum((v.depth - 1) * 2 * v.width for v in vision if v.layer_scale)
    eyes += sum((3 * v.patch**2 + v.patches + v.prefix + 1) * v.width for v in vision)
    seen = sum(v.width for v in vision)
    projector = 4 * seen * (seen + 1) + (4 * seen + 1) * d + (d + 1) * d if len(vision) > 1 else (seen + 1 + d + 1) * d
    rank = config.model.lora_rank if config.model.train == "lora" else 0
    adapters = depth * rank * (4 * 2 * d + 3 * (d + inner))
    parts = {"vision": eyes, "projector": projector, "language model": layers + (2 * text["vocab_size"] + 1) * d}
    trained = {
        "lora": adapters,
        "language": parts["language model"],
        "full": sum(parts.values()),
    }[config.model.train]
    if adapters:
        parts["adapters"] = adapters
    patches = images * vision[0].patches
    tokens = patches + 2 + 56 + 34  # 34: a long prompt
    attention = 4 * depth * tokens**2 * d
    forward = 2.0 * layers * tokens + attention + 2.0 * (eyes * (vision[0].patches + 5) * images + projector * patches)
    return Network(parts, trained, tokens, forward, d, depth, inner, images * 3 * vision[0].image ** 2)


@dataclass(frozen=True)
class Plan:
    """The estimate for one process (one GPU) of ``processes``.

    Attributes:
        network: the policy.
        device: name and memory (bytes) of what it would run on.
        memory: name -> bytes on the device.
        host: name -> bytes of main memory, all processes of this machine together.
        disk: bytes of checkpoints.
        seconds: name -> seconds per RL step.
        problems: what will not fit, one sentence each.
    """

    network: Network
    device: tuple[str, int]
    memory: dict[str, float]
    host: dict[str, float]
    disk: float
    seconds: dict[str, float]
    problems: list[str]


def make(config: TrainConfig, policy: str | None, processes: int = 1) -> Plan:
    """Estimate a run.

    Args:
        config: of the run.
        policy: folder or hub name; None: see `network`.
        processes: GPUs that share the work.
    """
    net = network(config, policy)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    lora = config.model.train == "lora"
    memory = _memory(config, net, processes, cuda, lora)
    workers = config.workers or default_workers()
    episodes = config.episodes_per_step
    # Half of the attempts fail and run to the limit, half succeed after half of it.
    limit = config.train_max_steps or 300
    decisions = episodes * 0.75 * limit / 8
    host = {
        "environments": workers * processes * WORKER_GIB * GIB,
        # Once in the episodes, once laid out for the update.
        "pictures of a step": 2 * decisions * net.picture_bytes * processes,
        "a checkpoint on its way": CHECKPOINT_BYTES * net.trained,
    }
    if cuda:
        memory["pictures (OpenGL)"] = workers * config.rollout.max_environments * SCENE_GIB * GIB
    disk = CHECKPOINTS * CHECKPOINT_BYTES * net.trained
    speed = EFFICIENCY * _matmul_speed(device) * processes
    passes = 3 + (1 if config.model.recompute else 0) - (1 if lora else 0)
    clip = WORLD_MODELS.get(config.rollout.world_model or "", (0, 0.0))[1] if config.reward == "srpo" else 0.0
    seconds = {
        "physics and pictures": decisions * ENVIRONMENT_SECONDS / (workers * processes),
        "decisions": decisions * net.forward / speed,
        "world model": episodes * clip / speed,
        "update": config.learner.epochs * decisions * net.forward * passes / speed,
    }
    name, size = _device(cuda)
    problems = []
    if sum(memory.values()) > size:
        problems.append(
            f"{sum(memory.values()) / GIB:.0f} GiB do not fit into the {size / GIB:.0f} GiB of {name}: use a -lora "
            "preset, more GPUs (--processes), or a smaller --learner.budget."
        )
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    used = sum(host.values()) + (0 if cuda else sum(memory.values()))
    if used > ram:
        problems.append(
            f"{used / GIB:.0f} GiB do not fit into {ram / GIB:.0f} GiB of main memory: use fewer --groups or --workers."
        )
    return Plan(net, (name, size), memory, host, disk, seconds, problems)


def _memory(config: TrainConfig, net: Network, processes: int, cuda: bool, lora: bool) -> dict[str, float]:
    spread = processes if processes > 1 and not lora and config.learner.shard else 1
    frozen = net.total - net.trained
    half = 2 if cuda else 4
    tokens = config.learner.budget or config.learner.minibatch * net.tokens
    kept = net.depth * net.width * half * (1 if config.model.recompute else 34)
    inside = (10 * net.width + 4 * net.inner) * half
    memory = {
        "weights": (4 * net.trained + half * frozen) / spread,
        "gradients": 4.0 * net.trained / spread,
        "optimiser": 8.0 * net.trained / spread,
        "activations": float(tokens * (kept + inside)),
    }
    if spread > 1:
        memory["copy for rollouts"] = float(half * net.total)
    if (world := WORLD_MODELS.get(config.rollout.world_model or "")) and config.reward == "srpo":
        memory["world model"] = half * world[0] + 4 * GIB
    return memory


def _device(cuda: bool) -> tuple[str, int]:
    if cuda:
        return torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    return f"{default_workers()} CPU cores", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _matmul_speed(device: torch.device) -> float:
    """Floating-point operations per second of a square matrix product, the best of three."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        _ = a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def text(plan: Plan, config: TrainConfig) -> str:
    """The plan as lines for a terminal."""
    lines = ["parameters"]
    for name, count in plan.network.parts.items():
        lines.append(f"  {name:24}{count / 1e6:10,.1f} M")
    lines.append(f"  {'all':24}{plan.network.total / 1e6:10,.1f} M, {plan.network.trained / 1e6:,.1f} M trained")
    for title, sizes in ((f"memory of {plan.device[0]}", plan.memory), ("main memory", plan.host)):
        lines.append(title)
        lines += [f"  {name:24}{size / GIB:10.1f} GiB" for name, size in sizes.items()]
        lines.append(f"  {'all':24}{sum(sizes.values()) / GIB:10.1f} GiB")
    lines.append(f"disk: up to {plan.disk / GIB:.1f} GiB for {CHECKPOINTS} checkpoints, one of them being written")
    lines.append(f"an RL step of {config.episodes_per_step} episodes, estimated")
    lines += [f"  {name:24}{_duration(s):>14}" for name, s in plan.seconds.items()]
    step = sum(plan.seconds.values())
    whole = f"{config.steps} steps: {_duration(step * config.steps)}"
    lines.append(f"  {'one after another':24}{_duration(step):>14}, {whole}")
    lines += [f"will not fit: {p}" for p in plan.problems] or ["everything fits"]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"
