"""What of OpenVLA-OFT runs beside the simulator: pictures, prompt and proprioception in, robot actions out. No network.

Rollout workers that ask a policy server hold this alone. Constants and conventions are the published evaluation's
(openvla-oft, ``run_libero_eval.py`` and ``openvla_utils.py``), each with a test.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srpo.policies import action_tokens
from srpo.policies.base import Inputs
from srpo.policies.openvla_images import prepare_image
from srpo.types import Observation, SrpoError

PROMPT = "In: What action should the robot take to {}?\nOut:"
BOS, STOP, PAD = 1, 2, -1  # PAD fills up prompts here; it is no token
EMPTY = "▁"  # token 29871 of Llama's vocabulary, which every training prompt ended with
_EPSILON = 1e-8  # of the published (un-)normalisation


@dataclass(frozen=True)
class Normalisation:
    """Percentiles 1 and 99 of a training set's values; dimensions outside the mask are left as they are."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    mask: tuple[bool, ...]

    @classmethod
    def of(cls, statistics: dict[str, Any]) -> Normalisation:
        """From an entry of ``norm_stats``."""
        low, high = statistics["q01"], statistics["q99"]
        return cls(tuple(low), tuple(high), tuple(statistics.get("mask", [True] * len(low))))

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """To [-1, 1] between the percentiles, clipped."""
        low, high = np.array(self.low), np.array(self.high)
        scaled = 2 * (values - low) / (high - low + _EPSILON) - 1
        return np.clip(np.where(self.mask, scaled, values), -1.0, 1.0)

    def range(self) -> np.ndarray:
        """Values at 1 less values at -1."""
        return np.where(self.mask, np.subtract(self.high, self.low), 2.0)

    def unnormalise(self, values: np.ndarray) -> np.ndarray:
        """Back again."""
        low, high = np.array(self.low), np.array(self.high)
        return np.where(self.mask, 0.5 * (values + 1) * (high - low + _EPSILON) + low, values)


@dataclass(frozen=True)
class FrontEndConfig:
    """Everything a worker needs to know.

    Attributes:
        tokenizer: path of ``tokenizer.json``.
        cameras: pictures the policy reads, in order.
        image_size: side of the pictures that the environment renders, pixels (published: 256).
        input_size: side of the pictures that the network reads.
        center_crop: see `prepare_image`.
        prompt_length: tokens kept of a prompt, without the first.
        chunk: actions per decision.
        action: un-normalisation of actions.
        proprio: normalisation of proprioception; None: the policy does not read it.
    """

    tokenizer: str
    action: Normalisation
    cameras: tuple[str, ...] = ("agentview",)
    image_size: int = 256
    input_size: int = 224
    center_crop: bool = True
    prompt_length: int = 64
    chunk: int = 8
    proprio: Normalisation | None = None

    @property
    def action_dim(self) -> int:
        """Dimensions of an action."""
        return len(self.action.low)


class FrontEnd:
    """Pre- and post-processing.

    Args:
        config: see `FrontEndConfig`.
    """

    def __init__(self, config: FrontEndConfig) -> None:
        self.config = config
        self.chunk, self.action_dim = config.chunk, config.action_dim

    @property
    def tokenizer(self) -> Any:
        """Read when first asked for; SrpoError if it cannot be."""
        return _tokenizer(self.config.tokenizer)

    def eval(self) -> FrontEnd:
        """Itself; networks have a mode, this has none."""
        return self

    def prepare(self, observation: Observation) -> Inputs:
        """What the network reads of a moment.

        Returns:
            ``pixels`` (images, S, S, 3) uint8; ``prompt`` (prompt_length,) int32, padded in front with `PAD`; and
            ``state`` (8,) float32 in [-1, 1] if the policy reads proprioception.

        Raises:
            SrpoError: a camera is missing, or an instruction is too long.
        """
        inputs = {"pixels": np.stack([self._image(observation, c) for c in self.config.cameras])}
        inputs["prompt"] = self.prompt(observation.instruction)
        if self.config.proprio is not None:
            inputs["state"] = self.config.proprio.normalise(np.asarray(observation.state)).astype(np.float32)
        return inputs

    def prompt(self, instruction: str) -> np.ndarray:
        """(prompt_length,) int32: the prompt's tokens after the first (`BOS`), padded in front."""
        tokens = list(_encode(self.tokenizer, PROMPT.format(instruction.lower())))
        room = self.config.prompt_length
        if len(tokens) > room:
            raise SrpoError(
                f"The prompt for '{instruction}' has {len(tokens)} tokens, only {room} fit: raise prompt_length."
            )
        return np.array([PAD] * (room - len(tokens)) + tokens, np.int32)

    def _image(self, observation: Observation, camera: str) -> np.ndarray:
        if camera not in observation.images:
            raise SrpoError(
                f"The policy reads camera '{camera}' ({len(self.config.cameras)} pictures), the environment shows "
                f"{sorted(observation.images)}: set --images to the number the checkpoint was trained with."
            )
        return prepare_image(observation.images[camera], self.config.input_size, self.config.center_crop)

    def actions(self, tokens: np.ndarray) -> np.ndarray:
        """(..., chunk * A) bins to (..., chunk, A) LIBERO actions.

        The gripper is 0 (close) to 1 (open) in the training data and +1 (close) or -1 (open) in LIBERO.
        """
        shape = (*tokens.shape[:-1], self.chunk, self.action_dim)
        actions = self.config.action.unnormalise(action_tokens.decode(tokens).reshape(shape))
        actions[..., -1] = -np.sign(2 * actions[..., -1] - 1)
        return actions

    def tokens(self, actions: np.ndarray) -> np.ndarray:
        """(..., chunk, A) LIBERO actions to (..., chunk * A) bins."""
        actions = np.array(actions, np.float64)
        actions[..., -1] = (1 - actions[..., -1]) / 2
        bins = action_tokens.encode(self.config.action.normalise(actions))
        return bins.reshape(*actions.shape[:-2], self.chunk * self.action_dim)


@functools.lru_cache(maxsize=4)
def _tokenizer(path: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SrpoError('OpenVLA needs the tokenizers package: pip install "srpo[vla]".') from error
    if not Path(path).is_file():
        raise SrpoError(f"{path} does not exist: a checkpoint folder needs its tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises plain Exception
        raise SrpoError(f"{path} cannot be read ({error}): restore it from the published checkpoint.") from error
    if tokenizer.token_to_id(EMPTY) is None:
        raise SrpoError(f"{path} has no token '{EMPTY}', which prompts end with: it is not Llama's tokenizer.")
    return tokenizer


@functools.lru_cache(maxsize=1024)
def _encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    ids = tokenizer.encode(text).ids
    ids = ids[1:] if ids[:1] == [BOS] else ids
    empty = tokenizer.token_to_id(EMPTY)
    return tuple(ids) if ids[-1] == empty else (*ids, empty)


def statistics(norm_stats: dict[str, Any], wanted: str) -> tuple[str, dict[str, Any]]:
    """The entry of ``norm_stats`` for a suite or a key, and its name.

    Published checkpoints call LIBERO's suites by their names or with ``_no_noops`` behind; with one entry in all, and
    a suite asked for that it does not name, guessing would move the robot wrongly.

    Raises:
        SrpoError: there is none of that name; the message lists those there are.
    """
    for key in (wanted, f"{wanted}_no_noops"):
        if key in norm_stats:
            return key, norm_stats[key]
    raise SrpoError(
        f"The checkpoint has no un-normalisation statistics '{wanted}' or '{wanted}_no_noops', only "
        f"{', '.join(sorted(norm_stats)) or 'none'}: choose one of these with --unnorm-key."
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint folder; SrpoError if it is missing or damaged."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise SrpoError(f"{path} does not exist: give a whole checkpoint folder.") from None
    except (OSError, ValueError) as error:
        raise SrpoError(f"{path} is damaged ({error}): restore it from the published checkpoint.") from error
    if not isinstance(values, dict):
        raise SrpoError(f"{path} is damaged (not a JSON object): restore it from the published checkpoint.")
    return values
