"""OpenVLA's published checkpoint layout, in and out.

A folder (or a name on the Hugging Face hub) holds ``config.json`` with ``norm_stats``, sharded safetensors, the
tokenizer and processor files; fine-tuned ones also ``dataset_statistics.json``, and OFT's continuous variant the files
``action_head--*_checkpoint.pt`` and ``proprio_projector--*_checkpoint.pt``. What is saved here has the same files under
the same names, so that OpenVLA-OFT's own tools load it. Beside them lies ``srpo.json``: cameras and the like, which the
layout has no place for.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srpo.distributed import full
from srpo.policies.openvla_frontend import FrontEnd, FrontEndConfig, Normalisation, read_json, statistics
from srpo.policies.openvla_oft import OpenVlaConfig, OpenVlaOftPolicy
from srpo.policies.openvla_vision import PUBLISHED, VitConfig
from srpo.types import SrpoError

CAMERAS = ("agentview", "wrist")
OWN_NAME = "srpo.json"
_WANTED = ["*.json", "*.safetensors", "*.py", "*.model", "*_checkpoint.pt", "*.txt"]
#: Weights of the published vision transformers that nothing reads: last block, final norm, attention pooling.
_UNREAD = re.compile(r"vision_backbone\.(fused_)?featurizer\.(norm\.|attn_pool\.|fc_norm\.|blocks\.(\d+)\.)")
_ROTARY = re.compile(r"rotary_emb\.inv_freq$")


def folder_of(name: str | Path) -> Path:
    """The folder of a checkpoint; a name such as ``Sylvest/OpenVLA-AC-PD-1traj-libero-long`` is fetched from the hub.

    Raises:
        SrpoError: there is no such folder, and no such repository can be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    if str(name).count("/") != 1 or str(name).startswith((".", "/")):
        raise SrpoError(f"{name} does not exist: give a checkpoint folder or a name on the hub, owner/model.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise SrpoError(
            f'{name} is no folder, and fetching it from the hub needs huggingface_hub: pip install "srpo[vla]".'
        ) from error
    try:
        return Path(snapshot_download(str(name), allow_patterns=_WANTED))
    except Exception as error:  # the hub client raises errors of many libraries
        reason = " ".join(str(error).split())[:200]
        raise SrpoError(
            f"{name} is no folder, and cannot be fetched from the hub ({type(error).__name__}: {reason})."
        ) from error


def read_config(
    name: str | Path,
    *,
    suite: str | None = None,
    unnorm_key: str | None = None,
    images: int | None = None,
    **changes: Any,
) -> OpenVlaConfig:
    """The configuration of a checkpoint, without its weights.

    Args:
        name: folder or name on the hub.
        suite: what is to be done; chooses the un-normalisation statistics if ``unnorm_key`` does not.
        unnorm_key: entry of ``norm_stats``.
        images: pictures a decision; None: what ``srpo.json`` says, else two with proprioception and one without, as
            published.
        changes: fields of `OpenVlaConfig` (``train``, ``dtype``, ...).

    Raises:
        SrpoError: a file is missing or damaged, or an entry is not known; the message names it.
    """
    folder = folder_of(name)
    values = read_json(folder / "config.json")
    if values.get("model_type") not in ("openvla", "prismatic"):
        raise SrpoError(f"{folder / 'config.json'} describes a '{values.get('model_type')}' model, not OpenVLA.")
    own = read_json(folder / OWN_NAME) if (folder / OWN_NAME).is_file() else {}
    state_file = _component(folder, "proprio_projector")
    cameras = tuple(own.get("cameras", CAMERAS if state_file else CAMERAS[:1]))
    if images is not None:
        if not 1 <= images <= len(CAMERAS):
            raise SrpoError(f"--images {images}: LIBERO's policies read 1 or {len(CAMERAS)}.")
        cameras = CAMERAS[:images]
    _, numbers = _norm_stats(folder, values, unnorm_key or own.get("unnorm_key") or suite)
    if state_file and "proprio" not in numbers:
        raise SrpoError(f"{folder} has a proprio_projector, but its norm_stats have no 'proprio'.")
    vision = _vision(folder, values)
    try:
        front = FrontEndConfig(
            tokenizer=str((folder / "tokenizer.json").resolve()),
            action=Normalisation.of(numbers["action"]),
            cameras=cameras,
            image_size=int(own.get("image_size", 256)),
            input_size=vision[0].image,
            center_crop=bool(own.get("center_crop", True)),
            prompt_length=int(own.get("prompt_length", 64)),
            chunk=int(own.get("chunk", 8)),
            proprio=Normalisation.of(numbers["proprio"]) if state_file else None,
        )
    except KeyError as error:
        raise SrpoError(f"The norm_stats of {folder} have no entry {error}: restore its config.json.") from error
    config = OpenVlaConfig(
        front=front,
        text=values.get("text_config") or {},
        vision=vision,
        vocabulary_padding=int(values.get("pad_to_multiple_of", 64)),
        head="l1" if _component(folder, "action_head") else "tokens",
        **{k: own[k] for k in ("sigma",) if k in own},
    )
    return replace(config, **changes)


def _norm_stats(folder: Path, values: dict[str, Any], wanted: str | None) -> tuple[str, dict[str, Any]]:
    own = folder / "dataset_statistics.json"
    stats = read_json(own) if own.is_file() else values.get("norm_stats") or {}
    if wanted is None:
        if len(stats) != 1:
            raise SrpoError(
                f"{folder} has un-normalisation statistics for {', '.join(sorted(stats)) or 'nothing'}: choose one "
                "with --unnorm-key."
            )
        wanted = next(iter(stats))
    return statistics(stats, wanted)


def _vision(folder: Path, values: dict[str, Any]) -> tuple[VitConfig, ...]:
    if "srpo_vision" in values:  # sizes that have no published name
        return tuple(_vit(one) for one in values["srpo_vision"])
    names = values.get("timm_model_ids") or []
    unknown = [n for n in names if n not in PUBLISHED]
    if unknown or not names or values.get("image_resize_strategy", "resize-naive") != "resize-naive":
        raise SrpoError(
            f"{folder / 'config.json'}: timm_model_ids {names} with image_resize_strategy "
            f"'{values.get('image_resize_strategy')}' is not implemented; known: {', '.join(PUBLISHED)}, resize-naive."
        )
    return tuple(PUBLISHED[n] for n in names)


def _vit(values: dict[str, Any]) -> VitConfig:
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return VitConfig(**plain)


def load(
    name: str | Path,
    *,
    suite: str | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> OpenVlaOftPolicy:
    """A policy with its weights. Weights go from the files to the device, one at a time.

    Args:
        name: folder or name on the hub.
        suite: see `read_config`.
        device: where the weights go.
        options: see `read_config`.

    Raises:
        SrpoError: as `read_config`, or keys are missing or surplus, or a shape is wrong; the message names them.
    """
    folder = folder_of(name)
    config = read_config(folder, suite=suite, **options)
    _ = FrontEnd(config.front).tokenizer  # says what is wrong with it before gigabytes are read
    with torch.device("meta"):
        policy = OpenVlaOftPolicy(replace(config, train="full", compile=False))
    dtype = getattr(torch, config.dtype)
    state: dict[str, torch.Tensor] = {}
    for key, value in _tensors(folder):
        if not _unread(key, config.vision) and not _ROTARY.search(key):
            state[key] = value.to(device, dtype)
    for part in ("proprio_projector", "action_head"):
        if path := _component(folder, part):
            state |= {f"{part}.{k}": v.to(device, dtype) for k, v in _component_weights(path).items()}
    _fit(folder, policy, state)
    policy.load_state_dict(state, assign=True)
    return _assembled(policy, config, folder, device)


def _assembled(policy: OpenVlaOftPolicy, config: OpenVlaConfig, folder: Path, device: Any) -> OpenVlaOftPolicy:
    """Fill in what is not in the files: buffers, and what the configuration says of training."""
    fresh = OpenVlaOftPolicy(replace(config, train="full", compile=False, **_tiny(config)))
    for name, module in policy.named_modules():
        for key, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_meta:
                other = fresh.get_submodule(name)._buffers[key]
                module._buffers[key] = other.to(device) if other is not None else None
    policy.config = config
    policy.source = folder
    policy._trainable()
    return policy.eval()


def _tiny(config: OpenVlaConfig) -> dict[str, Any]:
    """The configuration with one block everywhere: for buffers, which do not depend on the depth."""
    text = {**config.text, "num_hidden_layers": 1, "vocab_size": 1024, "intermediate_size": 8, "pad_token_id": None}
    return {"text": text, "vision": tuple(replace(v, depth=2, mlp=8) for v in config.vision)}


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a folder's safetensors, one at a time."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    where = read_json(index).get("weight_map", {}) if index.is_file() else {"": "model.safetensors"}
    for name in sorted(set(where.values())):
        if not (folder / name).is_file():
            raise SrpoError(f"{folder} lacks {name}: fetch the whole checkpoint (safetensors, not .bin).")
        try:
            with safe_open(folder / name, framework="pt") as shard:
                for key in shard.keys():  # noqa: SIM118 (not a dict)
                    yield key, shard.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise SrpoError(f"{folder / name} is damaged ({error}): fetch it again.") from error


def _component(folder: Path, part: str) -> Path | None:
    """The file of a part that OFT keeps beside the model; None if there is none."""
    found = sorted(p for p in folder.glob("*.pt") if part in p.name and "checkpoint" in p.name)
    if len(found) > 1:
        raise SrpoError(f"{folder} holds {len(found)} files of the {part}: keep one of them.")
    return found[0] if found else None


def _component_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        weights = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # pickle raises anything
        raise SrpoError(f"{path} is damaged ({error}): fetch it again.") from error
    return {k.removeprefix("module.").removeprefix("model."): v for k, v in weights.items()}


def _unread(key: str, vision: tuple[VitConfig, ...]) -> bool:
    match = _UNREAD.match(key)
    if match is None:
        return False
    fused, what, block = match.groups()
    depth = vision[1 if fused and len(vision) > 1 else 0].depth
    return block is None or int(block) >= depth - 1 if what.startswith("blocks") else True


def _fit(folder: Path, policy: nn.Module, state: dict[str, torch.Tensor]) -> None:
    wanted = policy.state_dict()
    problems = []
    if missing := sorted(set(wanted) - set(state)):
        problems.append(f"lacks {_some(missing)}")
    if surplus := sorted(set(state) - set(wanted)):
        problems.append(f"holds {_some(surplus)}, which the network does not have")
    for key in sorted(set(wanted) & set(state)):
        if wanted[key].shape != state[key].shape:
            problems.append(f"{key} is {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}")
            break
    if problems:
        raise SrpoError(f"{folder} does not fit its config.json: it {'; '.join(problems)}.")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def published_state(policy: OpenVlaOftPolicy, keep: bool = True) -> dict[str, torch.Tensor]:
    """Weights on the CPU by their published names, adapters merged into what they adapt. Without ``keep`` nothing:
    weights that are spread are gathered one at a time for the process that keeps them."""
    merged: dict[str, torch.Tensor] = {}
    adapted = {n: m for n, m in policy.named_modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")}
    for key, value in policy.state_dict().items():
        if ".lora_" in key:
            continue
        if key.endswith(".base_layer.weight"):
            name = key.removesuffix(".base_layer.weight")
            delta = adapted[name].get_delta_weight("default").to(value.device)
            whole, target = (value.float() + delta.float()).to(value.dtype), f"{name}.weight"
        else:
            whole, target = full(value), key
        if keep:
            merged[target] = whole.detach().cpu()
    return merged


def save(policy: OpenVlaOftPolicy, folder: Path | None) -> None:
    """Write the published layout.

    What the policy was loaded from supplies the files that do not change, the weights that are never read, and the type
    (bfloat16 for the published ones). Without a folder nothing is written; where weights are spread over processes, all
    must call, and one has the folder.

    Raises:
        SrpoError: the source folder is gone.
        OSError: a file cannot be written.
    """
    from huggingface_hub import save_torch_state_dict

    state = published_state(policy, folder is not None)
    if folder is None:
        return
    source = policy.source
    if source is None or not (source / "config.json").is_file():
        raise SrpoError(f"The checkpoint {source} that the policy came from is gone, and its other files are needed.")
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        other = file.suffix in (".json", ".py", ".model", ".txt") and not file.name.endswith(".index.json")
        if file.is_file() and other and file.resolve() != (folder / file.name).resolve():
            shutil.copyfile(file, folder / file.name)
    for part in ("proprio_projector", "action_head"):
        if path := _component(source, part):
            prefix = "model." if part == "action_head" else ""
            own = {prefix + k.removeprefix(f"{part}."): v.cpu() for k, v in state.items() if k.startswith(f"{part}.")}
            torch.save(own, folder / path.name)
            state = {k: v for k, v in state.items() if not k.startswith(f"{part}.")}
    state |= {k: v for k, v in _tensors(source) if _unread(k, policy.config.vision)}
    published = read_json(source / "config.json").get("torch_dtype")
    dtype = torch.bfloat16 if published == "bfloat16" else getattr(torch, policy.config.dtype)
    save_torch_state_dict({k: v.to(dtype).contiguous().clone() for k, v in state.items()}, str(folder))
    config = policy.config
    notes = {"cameras": list(config.cameras), "image_size": config.image_size, "chunk": policy.chunk,
             "center_crop": config.front.center_crop, "prompt_length": config.front.prompt_length,
             "sigma": config.sigma}  # fmt: skip
    (folder / OWN_NAME).write_text(json.dumps(notes, indent=2) + "\n")
