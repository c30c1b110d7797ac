"""Camera pictures as OpenVLA-OFT's policies were trained on them: JPEG, Lanczos to 224 px, 0.9 centre crop.

The published evaluation (openvla-oft, ``openvla_utils.resize_image_for_policy`` and ``center_crop_image``) does this in
TensorFlow, as the data pipeline did. Here it is NumPy, Pillow and simplejpeg, to the same grey levels (docs/method.md).
"""

from __future__ import annotations

import functools
import io

import numpy as np

from srpo.types import SrpoError

CROP_AREA = 0.9


def prepare_image(image: np.ndarray, size: int = 224, center_crop: bool = True) -> np.ndarray:
    """A camera picture as the policy sees it.

    Args:
        image: (H, W, 3) uint8 RGB, upright.
        size: side of the result, pixels.
        center_crop: keep the middle 90 % of the area, for policies trained with random crops.

    Returns:
        (size, size, 3) uint8.
    """
    if image.shape[:2] != (size, size):
        image = resize(jpeg(image), size)
    return crop(image) if center_crop else image


def jpeg(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 after a round trip through JPEG (quality 95, 4:2:0), as in the training data.

    TensorFlow decodes with the fast cosine transform, which Pillow cannot: it differs by a grey level on average.
    """
    try:
        import simplejpeg
        from PIL import Image
    except ImportError as error:
        raise SrpoError(f'OpenVLA needs Pillow and simplejpeg ({error}): pip install "srpo[vla]".') from error
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=95, subsampling="4:2:0")
    return simplejpeg.decode_jpeg(buffer.getvalue(), "RGB", fastdct=True, fastupsample=False)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, C) uint8 to (size, size, C) by Lanczos-3 with antialiasing, rounded to whole grey levels."""
    height, width = image.shape[:2]
    rows, columns = _lanczos(height, size), _lanczos(width, size)
    resized = np.einsum("yh,hwc->ywc", rows, image.astype(np.float32), optimize=True)
    resized = np.einsum("xw,ywc->yxc", columns, resized, optimize=True)
    return np.rint(np.clip(resized, 0, 255)).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _lanczos(source: int, target: int, radius: float = 3.0) -> np.ndarray:
    """(target, source) float32 weights; each row sums to 1."""
    scale = source / target
    stretch = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale
    x = (np.arange(source) + 0.5 - centre[:, None]) / stretch
    weights = np.where(np.abs(x) <= radius, np.sinc(x) * np.sinc(x / radius), 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def crop(image: np.ndarray, area: float = CROP_AREA) -> np.ndarray:
    """(S, S, 3) uint8: the centred square of ``area``, stretched to the whole by bilinear interpolation."""
    size = len(image)
    side = np.float32(np.sqrt(np.float32(area)))
    offset = np.float32((1 - side) / 2)
    position = offset * np.float32(size - 1) + np.arange(size, dtype=np.float32) * side
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, size - 1)
    part = (position - low).astype(np.float32)
    values = image.astype(np.float32) / np.float32(255)
    values = values[low] + (values[high] - values[low]) * part[:, None, None]
    values = values[:, low] + (values[:, high] - values[:, low]) * part[None, :, None]
    return (np.clip(values, 0, 1) * np.float32(255.5)).astype(np.uint8)
