"""A policy from a folder (or, for OpenVLA, a name on the hub), whatever its kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from srpo.policies.compact import CompactPolicy
from srpo.types import SrpoError


@dataclass(frozen=True)
class ModelOptions:
    """How a policy is loaded. The compact policy heeds ``device`` alone; for the rest see `OpenVlaConfig`.

    Attributes:
        device: ``"cpu"``, ``"cuda"``, ...; ``"auto"``: a GPU for a large policy, if there is one.
        dtype: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 on a GPU, except for weights that are trained
            themselves (an update of 1e-6 is lost in bfloat16; they are computed with in bfloat16 all the same).
        images: pictures a decision (1 or 2); None: what the checkpoint suggests.
        unnorm_key: entry of the checkpoint's ``norm_stats``; None: the suite's.
        train: ``"full"``, ``"language"`` or ``"lora"``.
        lora_rank, lora_alpha: of the adapters.
        recompute: gradient checkpointing.
        compile: torch.compile for rollouts.
    """

    device: str = "auto"
    dtype: str = "auto"
    images: int | None = None
    unnorm_key: str | None = None
    train: str = "full"
    lora_rank: int = 32
    lora_alpha: int = 16
    recompute: bool = True
    compile: bool = False

    def resolved_device(self, kind: str) -> torch.device:
        """The device for a policy of ``kind``; SrpoError if it is not there."""
        if self.device == "auto":
            return torch.device("cuda" if kind == "openvla" and torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise SrpoError(f"There is no device '{self.device}' ({reason}): set --model.device auto.") from error
        return device

    def resolved_dtype(self, device: torch.device) -> str:
        """The type of the weights on ``device``."""
        if self.dtype != "auto":
            return self.dtype
        return "bfloat16" if device.type == "cuda" and self.train == "lora" else "float32"


def kind_of(name: str | Path) -> str:
    """``"compact"`` or ``"openvla"``; a name that is no folder can only be OpenVLA's, on the hub."""
    config = Path(name) / "config.json"
    if not Path(name).is_dir():
        return "openvla" if str(name).count("/") == 1 and not str(name).startswith((".", "/")) else "compact"
    try:
        model_type = json.loads(config.read_text()).get("model_type")
    except (OSError, ValueError, AttributeError):
        return "compact"  # whose loader says what is wrong
    return "openvla" if model_type in ("openvla", "prismatic") else "compact"


def load_policy(name: str | Path, options: ModelOptions, suite: str | None = None) -> Any:
    """The policy with its weights, on its device, in evaluation mode.

    Args:
        name: folder, or name on the hub.
        options: see `ModelOptions`.
        suite: what is to be done.

    Raises:
        SrpoError: the folder is missing, damaged, or does not fit the options.
    """
    kind = kind_of(name)
    device = options.resolved_device(kind)
    if kind == "compact":
        return CompactPolicy.from_pretrained(name).to(device).eval()
    from srpo.policies.openvla_oft import OpenVlaOftPolicy

    return OpenVlaOftPolicy.from_pretrained(
        name, suite=suite, device=device, dtype=options.resolved_dtype(device), **openvla_changes(options)
    )


def openvla_changes(options: ModelOptions) -> dict[str, Any]:
    """The options that `srpo.policies.openvla_checkpoint.read_config` takes."""
    names = ("images", "unnorm_key", "train", "lora_rank", "lora_alpha", "recompute", "compile")
    return {n: getattr(options, n) for n in names}
