"""Several processes that train one policy (``torchrun``). Rollouts and the decisions of a minibatch are shared out.

Every process rolls out its share of the episodes and hears of all; every process computes the same advantages and the
same minibatches; of a minibatch each takes some parts. The result is that of one process but for the order of sums.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from srpo.types import SrpoError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Which of how many processes this is.

    Attributes:
        rank: its number.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's items of a list that all have."""
        return items[self.rank :: self.size]

    def gather(self, own: Sequence[T]) -> list[T]:
        """Everybody's items, in the order in which `share` dealt them out."""
        if self.size == 1:
            return list(own)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, list(own))
        return [parts[i % self.size][i // self.size] for i in range(sum(map(len, parts)))]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def start() -> World:
    """Join the processes that ``torchrun`` has started; alone without it.

    Raises:
        SrpoError: the others cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise SrpoError(f"The other processes cannot be reached ({reason}): start with torchrun.") from error
    return World(dist.get_rank(), size)


def launch(processes: int, workers: int | None) -> int:
    """Run this command again in ``processes`` processes, with the cores shared out; returns the exit code."""
    cores = len(os.sched_getaffinity(0))
    own = [] if workers else ["--workers", str(max(1, cores // processes))]
    environment = {"OMP_NUM_THREADS": str(max(1, cores // processes)), **os.environ}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    # The two dashes end the launcher's own options, one of which --run would be taken for.
    command = [*launcher, "-m", "--", "srpo.cli", *sys.argv[1:], *own]
    return subprocess.run(command, env=environment, check=False).returncode


def full(value: torch.Tensor) -> torch.Tensor:
    """A whole tensor of one that may be spread over processes; then all of them must ask."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def like(value: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """A whole tensor spread as ``pattern`` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(pattern, DTensor):
        return value
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)


def shard(policy: Any, world: World) -> None:
    """Spread a policy's parameters over all processes (FSDP2). It may say which modules are gathered one at a time
    (``policy.parts()``) and by which methods it is called (``policy.forward_methods``)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    device = next(policy.parameters()).device.type
    mesh = init_device_mesh(device, (world.size,))
    mixed = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if device == "cuda" else MixedPrecisionPolicy()
    for part in policy.parts() if hasattr(policy, "parts") else []:
        fully_shard(part, mesh=mesh, mp_policy=mixed)
    fully_shard(policy, mesh=mesh, mp_policy=mixed)
    for name in getattr(policy, "forward_methods", ("logits",)):
        register_fsdp_forward_method(policy, name)
