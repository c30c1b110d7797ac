"""Proprioception as (part of) a latent space: where the hand is, and how far it is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from srpo.types import SrpoError
from srpo.world_models.base import segment_means
from srpo.world_models.image import ImageWorldModel

# Of the 8 numbers of a state (`Observation.state`): the hand's position and its two fingers', all in m. Not the
# rotation vector between them, which jumps where the angle passes pi, as it does with the hand pointing down.
_HAND, _FINGERS = [0, 1, 2], [6, 7]
# From one look to the next the hand moves by some 7 cm and the image features by some 75. A metre counts as so many
# of the features' units that the hand weighs twice as much as the picture, and the fingers three times as much as the
# hand: what they closed on is a matter of millimetres.
_PER_METRE = np.array([2000.0, 2000.0, 2000.0, 6000.0, 6000.0], np.float32)


class ProprioWorldModel:
    """The hand's way through space and the opening of its fingers; objects show where the fingers stop.

    No video model, and not the paper's. It knows what small pictures hardly show: whether the fingers closed on
    something.
    """

    def frame_features(self, image: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(5,) float32: the hand's x, y, z and the two fingers' positions (m).

        Raises:
            SrpoError: ``inputs`` have no ``state``, or one of another robot.
        """
        state = np.asarray(inputs.get("state", ()), np.float32)
        if state.shape != (8,):
            raise SrpoError(
                "This world model reads the robot's state (8 numbers: position, rotation vector, two fingers), which "
                f"is not there or another ({len(state)} numbers; recorded episodes and OpenVLA's inputs have none): "
                "choose --rollout.world-model image."
            )
        return state[_HAND + _FINGERS]

    def trace(self, features: np.ndarray) -> np.ndarray:
        """(T, 5) float32: where hand and fingers are, scaled to be compared with `ImageWorldModel`'s units."""
        return np.asarray(features, np.float32) * _PER_METRE

    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """(N, 20) float32: means over four time segments."""
        return np.stack([segment_means(self.trace(f), 4).ravel() for f in features])


class ImageProprioWorldModel:
    """`ImageWorldModel` and `ProprioWorldModel` side by side: what is to be seen, and what the hand feels."""

    def __init__(self) -> None:
        self.image, self.proprio = ImageWorldModel(), ProprioWorldModel()

    def frame_features(self, image: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(1797,) float32: image features, then the hand's; SrpoError if ``inputs`` have no ``state``."""
        hand = self.proprio.frame_features(image, inputs)
        return np.concatenate([self.image.frame_features(image, inputs).astype(np.float32), hand])

    def trace(self, features: np.ndarray) -> np.ndarray:
        """(T, 1797) float32."""
        seen, hand = features[:, : -len(_PER_METRE)], features[:, -len(_PER_METRE) :]
        return np.concatenate([self.image.trace(seen), self.proprio.trace(hand)], axis=1)

    def embed(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """(N, 3 * 1792 + 20) float32."""
        n = len(_PER_METRE)
        seen = self.image.embed([f[:, :-n] for f in features])
        return np.concatenate([seen, self.proprio.embed([f[:, -n:] for f in features])], axis=1)
