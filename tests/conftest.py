"""What the tests share: a compact policy that takes milliseconds, and hypothesis's profile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import settings

from srpo.policies.compact import CompactConfig, CompactPolicy

# Speed is not tested: a machine with other work may take its time over an example.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

TINY = CompactConfig(
    cameras=("agentview",), image_size=32, chunk=2, action_dim=7, keypoints=4, channels=8, width=32, text_length=8
)


@pytest.fixture
def one_thread():
    """Small tensors are fastest on one thread; the setting is put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_config() -> CompactConfig:
    """One 32-pixel camera, chunks of 2 actions (14 tokens), a few thousand weights."""
    return TINY


@pytest.fixture
def tiny_policy(one_thread: None) -> Callable[[int], CompactPolicy]:
    """Seed -> a policy of the tiny configuration with random weights."""

    def make(seed: int = 0) -> CompactPolicy:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return CompactPolicy(TINY).eval()

    return make


@pytest.fixture
def tiny_inputs() -> Callable[..., dict[str, torch.Tensor]]:
    """(batch size, seed) -> random inputs of the tiny policy, as `CompactPolicy.prepare` would give them."""

    def make(size: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(seed)
        return {
            "agentview_s8": torch.from_numpy(rng.standard_normal((size, 40, 4, 4)).astype(np.float16)),
            "agentview_s16": torch.from_numpy(rng.standard_normal((size, 112, 2, 2)).astype(np.float16)),
            "words": torch.from_numpy(np.repeat([[450, 1200, 77, 0, 0, 0, 0, 0]], size, 0).astype(np.int32)),
            "state": torch.from_numpy(rng.standard_normal((size, 8)).astype(np.float32)),
        }

    return make
