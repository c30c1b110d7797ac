"""Parts of V-JEPA 2's encoder that we compute otherwise than `transformers` does, to the same numbers; their memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch


def clip_bytes(tokens: int, hidden: int, mlp_ratio: float, frames: int, crop: int, element: int) -> int:
    """Memory that one clip takes while it is encoded, an upper estimate.

    A layer holds max(10, 4 + 2 r) tensors of tokens x hidden at once: in attention the residual stream, its norm, q, k
    and v and up to five more while positions are rotated in; in the MLP the residual stream before and after attention,
    its norm, the output, and two that are r times as wide (torch's profiler counts exactly 4 + 2 r on a CPU). The N x N
    attention matrix is never stored (fused attention). To these come the pixels in float32, three times (resized,
    cropped, normalised), and once in the encoder's precision.

    Args:
        tokens: of one clip.
        hidden: width of a token.
        mlp_ratio: r, width of the MLP's middle in units of ``hidden``.
        frames: of the clip.
        crop: side of the square that is seen, pixels.
        element: bytes of a number in the encoder's precision.

    Returns:
        Bytes. ViT-g, 384 pixels, 64 frames, fp16: 18,432 tokens of 1,408, 52 MB a tensor: 661 MB, and 396 MB of pixels.
    """
    pixels = frames * 3 * crop * crop
    return int(tokens * hidden * element * max(10.0, 4 + 2 * mlp_ratio)) + pixels * (3 * 4 + element)


def rotary_angles(depth: int, height: int, width: int, head: int) -> torch.Tensor:
    """Angles of V-JEPA 2's rotary position encoding over time, height and width, in fp32 whatever the precision.

    A head's channels are three parts of d = 2 floor(head / 6), one per axis; what remains is not rotated. Channel j of
    a part turns by p * 10000^(-(j mod d/2) / (d/2)) at position p. The two channels of a pair (2i, 2i + 1) thus turn by
    different angles: no rotation in the strict sense, but what the published weights were trained with.

    Args:
        depth, height, width: tokens along each axis.
        head: channels of an attention head.

    Returns:
        (depth * height * width, head) float32, radians.
    """
    part = 2 * (head // 3 // 2)
    frequency = 10000.0 ** (-torch.arange(part // 2) / (part / 2)).repeat(2)
    grid = torch.meshgrid(*(torch.arange(n) for n in (depth, height, width)), indexing="ij")
    turned = [axis.reshape(-1, 1) * frequency for axis in grid]
    return torch.cat([*turned, torch.zeros(depth * height * width, head - 3 * part)], dim=1)


class Rotary:
    """Rotates queries and keys; one table for all layers, made anew when the number of tokens changes."""

    def __init__(self, side: int, head: int) -> None:
        self.side, self.head = side, head
        self._table: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, x: torch.Tensor, positions: Any = None) -> torch.Tensor:
        """(B, heads, N, head) -> the same shape; stands in for ``apply_rotary_embeddings`` of `transformers`."""
        tokens = x.shape[2]
        if self._table is None or len(self._table[0]) != tokens or self._table[0].device != x.device:
            angles = rotary_angles(tokens // self.side**2, self.side, self.side, self.head)
            self._table = angles.cos().to(x), angles.sin().to(x)
        cos, sin = self._table
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        return x * cos + torch.stack((-second, first), -1).flatten(-2) * sin


def patch_tokens(embedding: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The patch embedding as one matrix product: its kernels do not overlap.

    The convolution in three dimensions gives the same numbers, but some releases of torch and cuDNN have no fast kernel
    for it in half precision, and take many times the memory.

    Args:
        embedding: ``VJEPA2PatchEmbeddings3D`` of `transformers`.
        pixels: (B, C, F, H, W) in its precision.

    Returns:
        (B, N, hidden), in the order time, row, column.
    """
    kernel = embedding.proj.weight  # (hidden, C, t, p, p)
    batch, channels, frames, height, width = pixels.shape
    t, p, q = kernel.shape[2:]
    blocks = pixels.reshape(batch, channels, frames // t, t, height // p, p, width // q, q)
    columns = blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, -1, channels * t * p * q)
    return torch.nn.functional.linear(columns, kernel.flatten(1), embedding.proj.bias)


def install(encoder: Any, side: int) -> None:
    """Let a ``VJEPA2Encoder`` of `transformers` use them.

    Args:
        encoder: changed in place.
        side: patches along an edge of the picture.
    """
    settings = encoder.config
    rotary = Rotary(side, settings.hidden_size // settings.num_attention_heads)
    for layer in encoder.layer:
        layer.attention.apply_rotary_embeddings = rotary
    patches = encoder.embeddings.patch_embeddings
    patches.forward = partial(patch_tokens, patches)
