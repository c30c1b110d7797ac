"""A small OpenVLA-OFT checkpoint in the published layout, with random weights and a tokenizer of Llama's kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

TEXT = {
    "model_type": "llama", "vocab_size": 32064, "pad_token_id": 32000, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048,
}  # fmt: skip
VISION = [
    {"width": 32, "depth": 3, "heads": 2, "mlp": 64, "prefix": 5, "layer_scale": True,
     "mean": [0.484375, 0.455078125, 0.40625], "std": [0.228515625, 0.2236328125, 0.224609375]},
    {"width": 48, "depth": 3, "heads": 4, "mlp": 80},
]  # fmt: skip
ACTION = {
    "q01": [-0.7, -0.7, -0.9, -0.1, -0.2, -0.1, 0.0],
    "q99": [0.9, 0.8, 0.9, 0.1, 0.2, 0.1, 1.0],
    "mask": [True] * 6 + [False],
}
PROPRIO = {"q01": [-0.5, -0.3, 0.5, 2.0, -1.0, -1.0, 0.0, -0.04], "q99": [0.2, 0.4, 1.4, 3.6, 1.0, 1.0, 0.04, 0.0]}
SUITES = ("libero_object_no_noops", "libero_spatial_no_noops")


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight that depends on its name alone, float32; norms and scales are near 1."""
    rng = np.random.default_rng(list(name.encode()))
    values = rng.standard_normal(shape).astype(np.float32)
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "layernorm.weight", "scale_factor")):
        return 1.0 + 0.1 * values
    return (values * (0.02 if len(shape) == 1 else 1.0 / np.sqrt(np.prod(shape[1:])))).astype(np.float32)


def shapes(layers: int = 2) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint, those that nothing reads included."""
    out: dict[str, tuple[int, ...]] = {}
    for part, v in zip(("featurizer", "fused_featurizer"), VISION, strict=True):
        at, d, mlp = f"vision_backbone.{part}.", v["width"], v["mlp"]
        if "prefix" in v:
            out[at + "cls_token"], out[at + "reg_token"] = (1, 1, d), (1, 4, d)
        out[at + "pos_embed"] = (1, 256, d)
        out[at + "patch_embed.proj.weight"], out[at + "patch_embed.proj.bias"] = (d, 3, 14, 14), (d,)
        for i in range(v["depth"]):
            for name, shape in {
                "norm1": (d,), "norm2": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (mlp, d),
                "mlp.fc2": (d, mlp),
            }.items():  # fmt: skip
                out[f"{at}blocks.{i}.{name}.weight"] = shape
                out[f"{at}blocks.{i}.{name}.bias"] = shape[:1]
            if "layer_scale" in v:
                out[f"{at}blocks.{i}.ls1.scale_factor"] = out[f"{at}blocks.{i}.ls2.scale_factor"] = (d,)
        out[at + "norm.weight"] = out[at + "norm.bias"] = (d,)
    out["vision_backbone.fused_featurizer.attn_pool.latent"] = (1, 1, 48)
    d, vision = TEXT["hidden_size"], 80
    for name, shape in {"fc1": (4 * vision, vision), "fc2": (d, 4 * vision), "fc3": (d, d)}.items():
        out[f"projector.{name}.weight"], out[f"projector.{name}.bias"] = shape, shape[:1]
    at, mlp = "language_model.model.", TEXT["intermediate_size"]
    out[at + "embed_tokens.weight"] = out["language_model.lm_head.weight"] = (TEXT["vocab_size"], d)
    out[at + "norm.weight"] = (d,)
    for i in range(layers):
        for name, shape in {
            "self_attn.q_proj": (d, d), "self_attn.k_proj": (d, d), "self_attn.v_proj": (d, d),
            "self_attn.o_proj": (d, d), "mlp.gate_proj": (mlp, d), "mlp.up_proj": (mlp, d), "mlp.down_proj": (d, mlp),
            "input_layernorm": (d,), "post_attention_layernorm": (d,),
        }.items():  # fmt: skip
            out[f"{at}layers.{i}.{name}.weight"] = shape
    return out


def write_tokenizer(folder: Path) -> None:
    """Llama's kind of tokenizer (byte-fallback BPE on "▁" for spaces), one token a character but for a few words."""
    from tokenizers import Tokenizer, models, normalizers, processors

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{i:02X}>": 3 + i for i in range(256)}}
    for i, letter in enumerate("abcdefghijklmnopqrstuvwxyzIOW:?.,"):
        vocab[letter] = 300 + i
    vocab["▁"] = 29871
    words = ["▁t", "▁th", "▁the"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    vocab |= {w: 400 + i for i, w in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_checkpoint(folder: Path, *, proprio: bool = False, l1: bool = False, shards: int = 2) -> Path:
    """The checkpoint in ``folder``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    numbers = {"action": ACTION, "proprio": PROPRIO}
    config = {
        "model_type": "openvla", "architectures": ["OpenVLAForActionPrediction"], "n_action_bins": 256,
        "norm_stats": dict.fromkeys(SUITES, numbers), "pad_to_multiple_of": 64, "pad_token_id": 32000,
        "text_config": TEXT, "use_fused_vision_backbone": True, "image_resize_strategy": "resize-naive",
        "srpo_vision": VISION,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "srpo.json").write_text(json.dumps({"prompt_length": 192}))  # most characters are tokens here
    write_tokenizer(folder)
    names = sorted(shapes())
    index = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i::shards]
        save_file({n: torch.from_numpy(tensor(n, shapes()[n])) for n in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    d = TEXT["hidden_size"]
    if proprio:
        own = {"fc1.weight": (d, 8), "fc1.bias": (d,), "fc2.weight": (d, d), "fc2.bias": (d,)}
        weights = {f"module.{n}": torch.from_numpy(tensor("p." + n, s)) for n, s in own.items()}
        torch.save(weights, folder / "proprio_projector--150000_checkpoint.pt")
    if l1:
        own = {
            "layer_norm1.weight": (7 * d,), "layer_norm1.bias": (7 * d,), "fc1.weight": (d, 7 * d), "fc1.bias": (d,),
            "layer_norm2.weight": (d,), "layer_norm2.bias": (d,), "fc2.weight": (7, d), "fc2.bias": (7,),
        }  # fmt: skip
        for i in range(2):
            at = f"mlp_resnet_blocks.{i}.ffn."
            own |= {f"{at}0.weight": (d,), f"{at}0.bias": (d,), f"{at}1.weight": (d, d), f"{at}1.bias": (d,)}
        weights = {f"module.model.{n}": torch.from_numpy(tensor("h." + n, s)) for n, s in own.items()}
        torch.save(weights, folder / "action_head--150000_checkpoint.pt")
    return folder
