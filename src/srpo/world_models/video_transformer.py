"""The network of the compact video world model: tubelet tokens, a small transformer, and a predictor for training.

The design is V-JEPA's (Bardes et al. 2024, arXiv 2404.08471) at a thousandth of the size: an encoder over space-time
tokens, and a narrower predictor that guesses the encoder's output at masked tokens. Its input is not pixels but the
frozen image features that the compact policy computes anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class VideoConfig:
    """Sizes of the compact world model.

    Attributes:
        frames: frames of a clip.
        tubelet: frames per token.
        grid: side of the feature maps.
        patch: side of a token on the feature map.
        channels: of the feature maps.
        width: of the encoder.
        depth: blocks of the encoder.
        heads: attention heads.
        predictor_width: of the predictor.
        predictor_depth: blocks of the predictor.
    """

    frames: int = 16
    tubelet: int = 2
    grid: int = 8
    patch: int = 2
    channels: int = 112
    width: int = 192
    depth: int = 6
    heads: int = 6
    predictor_width: int = 96
    predictor_depth: int = 3

    @property
    def times(self) -> int:
        """Tokens along time."""
        return self.frames // self.tubelet

    @property
    def side(self) -> int:
        """Tokens along each axis of the map."""
        return self.grid // self.patch

    @property
    def tokens(self) -> int:
        """Tokens of a clip, ordered by time, row, column."""
        return self.times * self.side**2


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class VideoEncoder(nn.Module):
    """Feature maps of a clip to tokens."""

    mean: torch.Tensor
    std: torch.Tensor
    position: torch.Tensor

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))
        self.register_buffer("position", positions(config, config.width), persistent=False)
        self.embed = nn.Linear(config.tubelet * config.patch**2 * config.channels, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        _initialise(self)

    def forward(self, maps: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Encode.

        Args:
            maps: (B, frames, channels, grid, grid) float.
            keep: (B, K) token numbers; the others are not seen. None: all.

        Returns:
            (B, K, width), after the final layer norm.
        """
        x = self.embed(self._tubelets(maps)) + self.position
        if keep is not None:
            x = gather(x, keep)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _tubelets(self, maps: torch.Tensor) -> torch.Tensor:
        c = self.config
        x = (maps - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)
        x = x.unflatten(1, (c.times, c.tubelet)).unflatten(-1, (c.side, c.patch)).unflatten(-3, (c.side, c.patch))
        # (B, time, in time, channel, row, in row, column, in column) -> token axes first
        return x.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4).flatten(1, 3)


class Predictor(nn.Module):
    """Guesses the encoder's tokens at masked places from those at visible ones."""

    position: torch.Tensor

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        width = config.predictor_width
        self.register_buffer("position", positions(config, width), persistent=False)
        self.embed, self.mask = nn.Linear(config.width, width), nn.Parameter(torch.zeros(width))
        heads = max(1, width // (config.width // config.heads))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(config.predictor_depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, config.width)
        _initialise(self)

    def forward(self, visible: torch.Tensor, keep: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """(B, K, width) tokens at places ``keep`` (B, K) -> (B, M, width) at places ``wanted`` (B, M)."""
        place = self.position.expand(len(visible), -1, -1)
        known = self.embed(visible) + gather(place, keep)
        x = torch.cat([known, self.mask + gather(place, wanted)], 1)
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x[:, keep.shape[1] :]))


def gather(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(B, N, D) tokens at (B, K) places: (B, K, D)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def positions(config: VideoConfig, width: int) -> torch.Tensor:
    """(1, tokens, width) sines and cosines of time, row and column, a third of the width each (rest: zeros)."""
    axes = torch.meshgrid(*(torch.arange(n) for n in (config.times, config.side, config.side)), indexing="ij")
    part = width // 6
    rate = 1.0 / 100.0 ** (torch.arange(part) / part)
    angles = [axis.flatten().unsqueeze(1) * rate for axis in axes]
    table = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)
    return nn.functional.pad(table, (0, width - table.shape[1])).unsqueeze(0)


def _initialise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
