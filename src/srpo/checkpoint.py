"""Checkpoints that survive a kill: written under a temporary name, then renamed. Safetensors and JSON, never pickle."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from srpo.distributed import full, like
from srpo.provenance import write_json
from srpo.types import SrpoError

_NAME = re.compile(r"step_(\d{6})")


def save(
    folder: Path,
    step: int,
    policy: Any,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    tensors: dict[str, torch.Tensor] | None = None,
    keep: int = 2,
    write: bool = True,
) -> Path:
    """Write ``folder/step_NNNNNN`` and drop all but the newest ``keep``.

    Args:
        folder: the run's checkpoint folder.
        step: RL (or SFT) steps completed.
        policy: has ``save_pretrained``; or ``save_checkpoint(folder)``, which writes ``model.safetensors`` with those
            tensors of its state that change.
        optimizer: Adam-like; its per-parameter tensors are stored.
        state: plain values (JSON).
        tensors: further tensors, such as the reference replay.
        keep: newest checkpoints that stay.
        write: False: only help the process that writes to gather what is spread over all.

    Raises:
        SrpoError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    target = folder / f"step_{step:06d}"
    partial = folder / f".partial_{step:06d}"
    if not write:
        if hasattr(policy, "save_checkpoint"):
            policy.save_checkpoint(None)
        _optimizer_tensors(optimizer, keep=False)
        return target
    try:
        shutil.rmtree(partial, ignore_errors=True)
        getattr(policy, "save_checkpoint", policy.save_pretrained)(partial)
        save_file(_optimizer_tensors(optimizer), partial / "optimizer.safetensors")
        save_file({k: v.contiguous() for k, v in (tensors or {}).items()}, partial / "state.safetensors")
        write_json(partial / "state.json", {"step": step, **state})
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        raise SrpoError(f"Cannot write the checkpoint {target} ({error}); free disk space and use --resume.") from error
    for old in sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name))[:-keep]:
        shutil.rmtree(old)
    return target


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, None if there is none."""
    found = sorted(p for p in folder.glob("step_*") if _NAME.fullmatch(p.name))
    return found[-1] if found else None


def latest_step(folder: Path) -> int:
    """The step of the newest complete checkpoint of a run, 0 if there is none."""
    found = latest(folder)
    return int(found.name.removeprefix("step_")) if found else 0


def load(
    folder: Path, policy: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Load weights and optimiser in place; returns the plain state and the further tensors.

    Raises:
        SrpoError: the checkpoint is damaged.
    """
    try:
        partial = hasattr(policy, "save_checkpoint")
        pattern = policy.state_dict()
        weights = {k: like(v, pattern.get(k, v)) for k, v in load_file(folder / "model.safetensors").items()}
        loaded = policy.load_state_dict(weights, strict=not partial)
        trained = {n for n, p in policy.named_parameters() if p.requires_grad}
        if partial and (wrong := [*trained.intersection(loaded.missing_keys), *loaded.unexpected_keys]):
            raise KeyError(f"model.safetensors and the policy differ in {wrong[0]}")
        _restore_optimizer(optimizer, load_file(folder / "optimizer.safetensors"))
        return json.loads((folder / "state.json").read_text()), load_file(folder / "state.safetensors")
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SrpoError(
            f"The checkpoint {folder} is damaged ({reason}); delete it and --resume from the one before."
        ) from error


def _optimizer_tensors(optimizer: torch.optim.Optimizer, keep: bool = True) -> dict[str, torch.Tensor]:
    """In main memory; gathered one at a time, as all of them together would not fit beside a large policy."""
    found = {}
    for i, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            whole = full(torch.as_tensor(value))
            if keep:
                found[f"{i}.{name}"] = whole.cpu().contiguous()
    return found


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        whole = value.shape == parameters[int(index)].shape
        state.setdefault(int(index), {})[key] = like(value, parameters[int(index)]) if whole else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
