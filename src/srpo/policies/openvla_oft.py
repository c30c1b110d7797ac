"""OpenVLA-OFT: Prismatic's eyes, Llama 2 and 56 action tokens decoded in parallel in one bidirectional forward.

The published network (Kim et al. 2024, arXiv 2406.09246; OFT: Kim et al. 2025, arXiv 2502.19645) on today's
``transformers``. A decision is one sequence::

    <s> | patches of the image(s) | state | prompt ... Out: + 29871 | 56 empty action slots | </s>

Every token attends to every other. The hidden state *before* a slot predicts it, as in a causal language model. Here
prompts of unequal length are padded in front, between state and prompt, and positions count real tokens only: a
decision's numbers do not depend on the batch it is in, and the slots stand at the same place in all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from srpo.distributed import full
from srpo.policies.action_tokens import N_BINS
from srpo.policies.base import Inputs
from srpo.policies.openvla_frontend import BOS, PAD, STOP, FrontEnd, FrontEndConfig
from srpo.policies.openvla_vision import Projector, VisionBackbone, VitConfig
from srpo.types import Observation, SrpoError

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TRAINED = ("full", "language", "lora")


@dataclass(frozen=True)
class OpenVlaConfig:
    """Architecture and use of an OpenVLA-OFT policy.

    Attributes:
        front: see `FrontEndConfig`.
        text: arguments of ``transformers.LlamaConfig``.
        vision: one or two transformers.
        vocabulary_padding: rows at the end of the embedding that are no tokens (published: 64).
        head: ``"tokens"`` (the discrete variant) or ``"l1"`` (the published continuous head; its output is taken as
            the mean of a normal distribution over the bins, so that it can be sampled from and trained like the other).
        sigma: standard deviation of that distribution, in normalised units (a bin is 2/255).
        train: ``"full"``, ``"language"`` (the eyes are frozen) or ``"lora"`` (adapters in the language model alone).
        lora_rank, lora_alpha: of the adapters.
        recompute: gradient checkpointing: keep only the inputs of blocks for the backward pass.
        dtype: of the weights, ``"float32"`` or ``"bfloat16"``. Adapters are float32.
        compile: let torch.compile make the forward of rollouts (shapes are then never trimmed).
    """

    front: FrontEndConfig
    text: Mapping[str, Any]
    vision: tuple[VitConfig, ...]
    vocabulary_padding: int = 64
    head: str = "tokens"
    sigma: float = 0.02
    train: str = "full"
    lora_rank: int = 32
    lora_alpha: int = 16
    recompute: bool = True
    dtype: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.train not in TRAINED:
            raise SrpoError(f"No way to train named '{self.train}': choose {', '.join(TRAINED)}.")
        if self.dtype not in ("float32", "bfloat16"):
            raise SrpoError(f"No weights of type '{self.dtype}': choose float32 or bfloat16.")
        if self.head not in ("tokens", "l1"):
            raise SrpoError(f"No action head named '{self.head}': choose tokens or l1.")

    @property
    def cameras(self) -> tuple[str, ...]:
        """Pictures the policy reads."""
        return self.front.cameras

    @property
    def image_size(self) -> int:
        """Side of the pictures that the environment renders."""
        return self.front.image_size


class StateProjector(nn.Module):
    """Normalised proprioception (B, 8) to one token (B, D)."""

    def __init__(self, state: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(state, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class _HeadBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.ffn(x)


class L1Head(nn.Module):
    """The published regression head: hidden states of an action's tokens (B, C, A * D) to actions (B, C, A)."""

    def __init__(self, width: int, action_dim: int) -> None:
        super().__init__()
        self.layer_norm1, self.fc1 = nn.LayerNorm(width * action_dim), nn.Linear(width * action_dim, width)
        self.mlp_resnet_blocks = nn.ModuleList(_HeadBlock(width) for _ in range(2))
        self.layer_norm2, self.fc2 = nn.LayerNorm(width), nn.Linear(width, action_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class OpenVlaOftPolicy(nn.Module):
    """The policy. Inputs of a decision: see `FrontEnd.prepare`; instead of ``pixels`` also ``patches``, see `freeze`.

    Raises:
        SrpoError: transformers or peft is missing, or several images meet a single vision transformer.
    """

    front_end = FrontEnd
    forward_methods = ("logits", "features", "freeze")
    centres: torch.Tensor

    def __init__(self, config: OpenVlaConfig) -> None:
        super().__init__()
        if len(config.vision) == 1 and len(config.cameras) > 1:
            raise SrpoError(
                f"A checkpoint with one vision transformer takes 1 image, not {len(config.cameras)}: set --images 1."
            )
        self.config = config
        self.front = FrontEnd(config.front)
        self.chunk, self.action_dim = config.front.chunk, config.front.action_dim
        self.vision_backbone = VisionBackbone(config.vision)
        self.language_model: Any = _llama(config.text)
        width = self.language_model.config.hidden_size
        self.projector = Projector(self.vision_backbone.width, width, len(config.vision) > 1)
        state = config.front.proprio
        self.proprio_projector = StateProjector(len(state.low), width) if state else None
        self.action_head = L1Head(width, self.action_dim) if config.head == "l1" else None
        self.register_buffer("centres", _bin_centres(), persistent=False)
        self.source: Path | None = None
        for parameter in self.parameters():  # buffers keep their precision
            parameter.data = parameter.data.to(getattr(torch, config.dtype))
        self._trainable()
        self._compiled: tuple[int, Any] | None = None

    def _rollout_hidden(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if not self.config.compile:
            return self._hidden(inputs)
        if self._compiled is None or self._compiled[0] != id(self):  # a copy of the policy must compile its own
            self._compiled = id(self), torch.compile(self._hidden, mode="reduce-overhead")
        return self._compiled[1](inputs)

    def _trainable(self) -> None:
        if self.config.train != "full":
            for part in (self.vision_backbone, self.projector):
                part.requires_grad_(False)
        if self.config.train == "lora":
            self.requires_grad_(False)
            _add_lora(self.language_model, self.config)
            if self.action_head is not None:
                self.action_head.requires_grad_(True)

    @property
    def frozen_eyes(self) -> bool:
        """Whether the vision transformers never change."""
        return self.config.train != "full"

    def prepare(self, observation: Observation) -> Inputs:
        """See `FrontEnd.prepare`."""
        return self.front.prepare(observation)

    @property
    def action_range(self) -> np.ndarray:
        """(action_dim,) float64, see `srpo.policies.base.Policy`."""
        return self.config.front.action.range()

    def actions(self, tokens: np.ndarray) -> np.ndarray:
        """See `FrontEnd.actions`."""
        return self.front.actions(tokens)

    def tokens(self, actions: np.ndarray) -> np.ndarray:
        """See `FrontEnd.tokens`."""
        return self.front.tokens(actions)

    def parts(self) -> list[nn.Module]:
        """Modules to gather one at a time where the weights are spread over processes."""
        eyes = [self.vision_backbone.featurizer, self.vision_backbone.fused_featurizer]
        return [b for eye in eyes if eye is not None for b in eye.blocks] + list(self.language_model.model.layers)

    def sizes(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B,) tokens of the language model's sequence of each decision."""
        images = len(self.config.cameras) * self.config.vision[0].patches
        fixed = 2 + images + (self.proprio_projector is not None) + self.chunk * self.action_dim
        return (inputs["prompt"] != PAD).sum(1) + fixed

    @torch.no_grad()
    def freeze(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """With frozen eyes: ``pixels`` replaced by ``patches`` (B, P, V), what the projector reads. Then several
        passes over the same decisions look at every picture once."""
        if not self.frozen_eyes or "pixels" not in inputs:
            return inputs
        patches = self.vision_backbone(inputs["pixels"].to(self.centres.device))
        return {k: v for k, v in inputs.items() if k != "pixels"} | {"patches": patches.to(inputs["pixels"].device)}

    def logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, chunk * A, 256) logits of the action bins, float32; bin k is token id V - 1 - k of the vocabulary."""
        # Adapters are float32 beside frozen weights in bfloat16.
        half = self.centres.device.type == "cuda" and (self.config.dtype == "float32" or self.config.train == "lora")
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            return self._logits(inputs)

    def _logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        hidden = self._hidden(inputs) if torch.is_grad_enabled() else self._rollout_hidden(inputs)
        if self.action_head is not None:
            mean = self.action_head(hidden.unflatten(1, (self.chunk, -1)).flatten(2)).flatten(1).float()
            return -0.5 * ((self.centres.float() - mean.unsqueeze(-1)) / self.config.sigma).square()
        last = self.language_model.lm_head.weight.shape[0] - self.config.vocabulary_padding
        rows = self.language_model.lm_head.weight[last - N_BINS : last]
        # In float32: rounded to bfloat16, logits would differ by more between rollout and update than the clip range.
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), rows.float()).flip(-1)

    def features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, D) mean of the hidden states that predict the actions."""
        return self._hidden(inputs).mean(1)

    def _hidden(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, chunk * A, D): for each action slot, the normed hidden state before it."""
        device = self.centres.device
        recompute = self.config.recompute and torch.is_grad_enabled()
        prompt = inputs["prompt"] if self.config.compile else _trimmed(inputs["prompt"])
        padding = self.config.compile or bool((prompt == PAD).any())
        prompt = prompt.to(device)
        seen = self._seen({k: v.to(device) for k, v in inputs.items() if k != "prompt"}, recompute)
        embed = self.language_model.model.embed_tokens
        slots = self.chunk * self.action_dim
        batch = len(prompt)
        ends = embed(torch.tensor([[BOS, STOP]], device=device)).expand(batch, -1, -1)
        words = embed(prompt.clamp(min=0).long())
        empty = words.new_zeros(batch, slots, words.shape[-1])
        x = torch.cat([ends[:, :1], seen, words, empty, ends[:, 1:]], 1)
        before, after = 1 + seen.shape[1], slots + 1
        real = nn.functional.pad(prompt != PAD, (before, after), value=True)
        position = (real.cumsum(1) - 1).clamp(min=0)
        mask = real[:, None, None, :].expand(-1, 1, x.shape[1], -1) if padding else None
        return self._llm(x, position, mask, recompute)[:, -slots - 2 : -2]

    def _seen(self, inputs: dict[str, torch.Tensor], recompute: bool) -> torch.Tensor:
        patches = inputs.get("patches")
        if patches is None:
            images = inputs["pixels"].shape[1]
            if images != len(self.config.cameras):
                raise SrpoError(
                    f"The policy takes {len(self.config.cameras)} image(s) a decision, got {images}: check --images."
                )
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_eyes):
                patches = self.vision_backbone(inputs["pixels"], recompute and not self.frozen_eyes)
        seen = self.projector(patches.to(self.projector.fc1.weight.dtype))
        if self.proprio_projector is not None:
            state = inputs["state"].to(seen.dtype)
            seen = torch.cat([seen, self.proprio_projector(state).unsqueeze(1)], 1)
        return seen

    def _llm(self, x: torch.Tensor, position: torch.Tensor, mask: torch.Tensor | None, recompute: bool) -> torch.Tensor:
        llama = self.language_model.model
        rotary = llama.rotary_emb(x, position)
        for layer in llama.layers:
            if recompute:
                x = checkpoint(layer, x, attention_mask=mask, position_embeddings=rotary, use_reentrant=False)
            else:
                x = layer(x, attention_mask=mask, position_embeddings=rotary)
        return llama.norm(x)

    def save_checkpoint(self, folder: Path | None) -> None:
        """``model.safetensors`` with the weights that are trained, for a checkpoint. Without a folder: help the process
        that writes to gather them."""
        from safetensors.torch import save_file

        trained = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                whole = full(parameter.detach())
                if folder is not None:
                    trained[name] = whole.cpu().contiguous()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(trained, folder / "model.safetensors")

    def save_pretrained(self, folder: str | Path | None) -> None:
        """Write the published layout, adapters merged; see `srpo.policies.openvla_checkpoint`. Without a folder: as
        `save_checkpoint`."""
        from srpo.policies import openvla_checkpoint

        openvla_checkpoint.save(self, Path(folder) if folder is not None else None)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> OpenVlaOftPolicy:
        """Read the published layout; see `srpo.policies.openvla_checkpoint.load`."""
        from srpo.policies import openvla_checkpoint

        return openvla_checkpoint.load(folder, **options)


def _trimmed(prompt: torch.Tensor) -> torch.Tensor:
    """Without the columns in front in which every row has padding."""
    used = (prompt != PAD).any(0)
    return prompt[:, int(used.int().argmax()) :]


def _bin_centres() -> torch.Tensor:
    """(256,) the last two are the same, as published."""
    edges = np.linspace(-1.0, 1.0, N_BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    return torch.tensor(np.append(centres, centres[-1]), dtype=torch.float32)


def _llama(text: Mapping[str, Any]) -> Any:
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise SrpoError(f'OpenVLA needs transformers ({error}): pip install "srpo[vla]".') from error
    values = {k: v for k, v in text.items() if k not in ("model_type", "torch_dtype", "dtype")}
    config = LlamaConfig(**values)
    config._attn_implementation = "sdpa"
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        layer.self_attn.is_causal = False  # every token attends to every other
    return model


def _add_lora(model: nn.Module, config: OpenVlaConfig) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise SrpoError(f'LoRA needs peft ({error}): pip install "srpo[vla]".') from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inject_adapter_in_model(
            LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=list(LORA_TARGETS)), model
        )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
