"""The eyes of OpenVLA: two vision transformers side by side and the projector into the language model.

DINOv2 and SigLIP in timm's parameter layout, read as Prismatic does (Karamcheti et al. 2024, arXiv 2402.07865, section
3): the patch tokens after the last block but one, without the final norm, concatenated along the channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class VitConfig:
    """One vision transformer.

    Attributes:
        width: of the tokens.
        depth: blocks of the published network; the last one is never run.
        heads: attention heads.
        mlp: width of the MLPs.
        prefix: class and register tokens in front of the patches.
        layer_scale: whether blocks scale their outputs.
        patch: side of a patch, pixels.
        image: side of the image, pixels.
        mean, std: normalisation of the channels, for values in [0, 1].
    """

    width: int
    depth: int
    heads: int
    mlp: int
    prefix: int = 0
    layer_scale: bool = False
    patch: int = 14
    image: int = 224
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image // self.patch) ** 2


#: By the names in a published ``config.json``.
DINOV2_LARGE = VitConfig(1024, 24, 16, 4096, 5, True, 14, 224, (0.484375, 0.455078125, 0.40625),
                         (0.228515625, 0.2236328125, 0.224609375))  # fmt: skip
SIGLIP_SO400M = VitConfig(1152, 27, 16, 4304)
PUBLISHED = {
    "vit_large_patch14_reg4_dinov2.lvd142m": DINOV2_LARGE,
    "vit_so400m_patch14_siglip_224": SIGLIP_SO400M,
}


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale_factor


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class VitBlock(nn.Module):
    """A pre-norm block, with layer scale or without."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width, eps=1e-6), nn.LayerNorm(config.width, eps=1e-6)
        self.attn, self.mlp = _Attention(config.width, config.heads), _Mlp(config.width, config.mlp)
        self.ls1 = _Scale(config.width) if config.layer_scale else nn.Identity()
        self.ls2 = _Scale(config.width) if config.layer_scale else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _PatchEmbed(nn.Module):
    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch, stride=config.patch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    """Images to patch tokens. The published last block, final norm and pooling are not part of it: nothing reads
    them (`srpo.policies.openvla_checkpoint` keeps their weights for saving)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = _PatchEmbed(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches, config.width))
        if config.prefix:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
            self.reg_token = nn.Parameter(torch.zeros(1, config.prefix - 1, config.width))
        self.blocks = nn.ModuleList(VitBlock(config) for _ in range(config.depth - 1))
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor, recompute: bool = False) -> torch.Tensor:
        """Encode.

        Args:
            pixels: (B, H, W, 3) uint8.
            recompute: keep no activations within blocks for the backward pass.

        Returns:
            (B, patches, width).
        """
        images = ((pixels.permute(0, 3, 1, 2).float() / 255 - self.mean.float()) / self.std.float()).to(
            self.pos_embed.dtype
        )
        x = self.patch_embed(images) + self.pos_embed
        if self.config.prefix:
            prefix = torch.cat([self.cls_token, self.reg_token], 1)
            x = torch.cat([prefix.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x[:, self.config.prefix :]


class VisionBackbone(nn.Module):
    """One or two transformers on each image; several images follow each other along the patches."""

    def __init__(self, configs: Sequence[VitConfig]) -> None:
        super().__init__()
        self.featurizer = Vit(configs[0])
        self.fused_featurizer = Vit(configs[1]) if len(configs) > 1 else None
        self.width = sum(c.width for c in configs)

    def forward(self, pixels: torch.Tensor, recompute: bool = False) -> torch.Tensor:
        """(B, images, H, W, 3) uint8 to (B, images * patches, width)."""
        batch, images = pixels.shape[:2]
        flat = pixels.flatten(0, 1)
        tokens = self.featurizer(flat, recompute)
        if self.fused_featurizer is not None:
            tokens = torch.cat([tokens, self.fused_featurizer(flat, recompute)], -1)
        return tokens.unflatten(0, (batch, images)).flatten(1, 2)


class Projector(nn.Module):
    """Patch tokens to language-model tokens."""

    def __init__(self, vision: int, language: int, fused: bool) -> None:
        super().__init__()
        hidden = 4 * vision if fused else language
        self.fc1, self.fc2 = nn.Linear(vision, hidden), nn.Linear(hidden, language)
        self.fc3 = nn.Linear(language, language) if fused else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc2(nn.functional.gelu(self.fc1(x)))
        return x if self.fc3 is None else self.fc3(nn.functional.gelu(x))
