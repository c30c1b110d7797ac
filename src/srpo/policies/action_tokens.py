"""Actions as tokens: 256 uniform bins a dimension, with the semantics of OpenVLA's action tokenizer.

OpenVLA places the bins at the end of the language model's vocabulary: token id ``V - 1 - k`` stands for bin ``k``
(V = 32,000). Inside this package a token is the bin number ``k`` itself, 0 to 255; `vocabulary_ids` converts.
There are 256 bin edges and so only 255 bin centres: tokens 254 and 255 both decode to the last one, as published.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from srpo.types import SrpoError

N_BINS = 256
_EDGES = np.linspace(-1.0, 1.0, N_BINS)
_CENTRES = (_EDGES[:-1] + _EDGES[1:]) / 2.0


def encode(normalised: np.ndarray) -> np.ndarray:
    """Bin numbers (int16, same shape) of normalised actions (floats; clipped to [-1, 1])."""
    return (np.digitize(np.clip(normalised, -1.0, 1.0), _EDGES) - 1).astype(np.int16)


def decode(tokens: np.ndarray) -> np.ndarray:
    """Bin centres (float64, same shape) of bin numbers 0 to 255; 254 and 255 share the last centre."""
    return _CENTRES[np.clip(tokens, 0, N_BINS - 2)]


def vocabulary_ids(tokens: np.ndarray, vocabulary_size: int = 32_000) -> np.ndarray:
    """Token ids in OpenVLA's vocabulary for bin numbers, and back again (the map is its own inverse)."""
    return vocabulary_size - 1 - np.asarray(tokens, dtype=np.int64)


@dataclass(frozen=True)
class ActionScale:
    """Un-normalisation of actions: the published ``q01``/``q99`` rule.

    Attributes:
        low: (A,) first percentile of the demonstrations' actions, mapped to -1.
        high: (A,) 99th percentile, mapped to +1.
    """

    low: tuple[float, ...] = field(default=(-1.0,) * 7)
    high: tuple[float, ...] = field(default=(1.0,) * 7)

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or any(h <= lo for lo, h in zip(self.low, self.high, strict=True)):
            raise SrpoError("Action scale: every upper bound must exceed its lower bound; check the norm statistics.")

    @classmethod
    def from_actions(cls, actions: np.ndarray, min_range: float = 0.1) -> ActionScale:
        """Percentiles 1 and 99 of (N, A) actions, at least ``min_range`` apart; the gripper (last) keeps [-1, 1]."""
        low, high = np.percentile(actions, [1, 99], axis=0)
        middle, half = (low + high) / 2, np.maximum(high - low, min_range) / 2
        low, high = middle - half, middle + half
        low[-1], high[-1] = -1.0, 1.0
        return cls(tuple(float(x) for x in low), tuple(float(x) for x in high))

    def range(self) -> np.ndarray:
        """(A,) float64, upper bounds less lower bounds."""
        return np.subtract(self.high, self.low)

    def normalise(self, actions: np.ndarray) -> np.ndarray:
        """Environment units to [-1, 1] (not clipped), any leading shape, last axis A."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        return 2.0 * (actions - low) / (high - low) - 1.0

    def unnormalise(self, normalised: np.ndarray) -> np.ndarray:
        """[-1, 1] to environment units."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        return low + (normalised + 1.0) / 2.0 * (high - low)
