"""The compact VLA: image(s) + instruction + proprioception -> a chunk of discrete action tokens, on a CPU.

Same interface and token semantics as OpenVLA-OFT's discrete variant (chunks of 8 actions x 7 dims x 256 bins, all
56 tokens decoded in parallel in one forward), at a size that learns on two cores:

* a frozen EfficientNet-Lite0 turns each image into feature maps, once per decision, while rolling out;
* a small trainable adapter, modulated by the instruction (FiLM), turns the maps into keypoints (spatial softmax);
* a residual MLP reads keypoints, proprioception and instruction;
* the head gives each token a mixture of Gaussians over the bins. Bins are ordered, and a policy whose probability
  mass *moves* learns from far fewer samples than one with 256 unrelated logits a token;
* all but the frozen network can be there several times (``members``), each cloned by itself: an ensemble, whose
  distribution is the mean of its members' (deep ensembles, arXiv 1612.01474, section 2.4). Where few demonstrations
  leave the action open, members may err in different directions.
"""

from __future__ import annotations

import errno
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from srpo.policies import action_tokens, text
from srpo.policies.action_tokens import N_BINS, ActionScale
from srpo.policies.backbone import STRIDE8_CHANNELS, STRIDE16_CHANNELS, feature_batches, shared_backbone
from srpo.policies.base import Inputs
from srpo.types import Observation, SrpoError

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"


@dataclass(frozen=True)
class CompactConfig:
    """Architecture and normalisation of a `CompactPolicy`; saved as ``config.json``.

    Attributes:
        cameras: images it reads, in order.
        image_size: side of the square images (pixels, a multiple of 16).
        use_state: read proprioception.
        chunk: actions per decision.
        action_dim: dimensions of an action.
        keypoints: keypoints per camera.
        channels: width of the visual adapter.
        width: width of the trunk.
        mixture: Gaussians per action token.
        min_sigma: smallest standard deviation of a Gaussian, in normalised action units (a bin is 2/255).
        text_length: instruction tokens read.
        members: networks of the ensemble.
        action_scale: un-normalisation of actions.
        state_mean, state_std: normalisation of proprioception (8 numbers each).
    """

    cameras: tuple[str, ...] = ("agentview", "wrist")
    image_size: int = 128
    use_state: bool = True
    chunk: int = 8
    action_dim: int = 7
    keypoints: int = 32
    channels: int = 48
    width: int = 384
    mixture: int = 2
    min_sigma: float = 0.05
    text_length: int = 24
    members: int = 1
    action_scale: ActionScale = field(default_factory=ActionScale)
    state_mean: tuple[float, ...] = (0.0,) * 8
    state_std: tuple[float, ...] = (1.0,) * 8

    @classmethod
    def from_dict(cls, values: dict) -> CompactConfig:
        """Inverse of ``dataclasses.asdict`` after a trip through JSON."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        scale = values.pop("action_scale")
        return cls(**values, action_scale=ActionScale(tuple(scale["low"]), tuple(scale["high"])))


class Instruction(nn.Module):
    """Token ids (B, S) to one vector (B, D): word vectors with positions, attention-pooled. Word order counts."""

    table: torch.Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("table", text.word_vectors(), persistent=False)
        self.project = nn.Linear(text.VECTOR_DIM, dim)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.1)
        self.score = nn.Linear(dim, 4)
        self.out = nn.Linear(4 * dim, dim)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.project(self.table[ids.long()].float()) + self.position)
        score = self.score(x).masked_fill((ids == 0).unsqueeze(-1), -1e4)
        pooled = torch.einsum("bsh,bsd->bhd", score.softmax(1), x)
        return self.out(pooled.flatten(1))


class Eye(nn.Module):
    """Feature maps of one camera to keypoints: coordinates and strength of K language-conditioned attention maps."""

    def __init__(self, size: int, channels: int, keypoints: int, text_dim: int) -> None:
        super().__init__()
        side = size // 8
        self.fine = nn.Conv2d(STRIDE8_CHANNELS, channels, 1)
        self.coarse = nn.Conv2d(STRIDE16_CHANNELS, channels, 1)
        self.place = nn.Parameter(torch.zeros(1, channels, side, side))
        self.film = nn.Linear(text_dim, 2 * channels)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)
        self.attend = nn.Conv2d(channels, keypoints, 1)
        axis = torch.linspace(-1.0, 1.0, side)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), 0).reshape(2, -1)
        self.register_buffer("grid", grid, persistent=False)
        self.out_features = keypoints * 3

    def forward(self, stride8: torch.Tensor, stride16: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        coarse = nn.functional.interpolate(self.coarse(stride16.float() / 3), scale_factor=2, mode="nearest")
        x = torch.relu(self.fine(stride8.float() / 3) + coarse + self.place)
        scale, shift = self.film(words).unsqueeze(-1).unsqueeze(-1).chunk(2, 1)
        x = torch.relu(self.mix(x) * (1 + scale) + shift)
        heat = self.attend(x).flatten(2)
        where = torch.einsum("bkn,cn->bkc", heat.softmax(-1), self.grid)
        strength = torch.tanh(heat.logsumexp(-1) / 8)
        return torch.cat([where.flatten(1), strength], -1)


class MixtureHead(nn.Module):
    """Trunk features to (B, L, 256) logits: log-densities of a Gaussian mixture at the bin centres.

    ``logit[l, b] = logsumexp_k( log w_lk - log s_lk - ((c_b - m_lk) / s_lk)^2 / 2 )``
    """

    def __init__(self, width: int, n_tokens: int, mixture: int, min_sigma: float) -> None:
        super().__init__()
        self.n_tokens, self.mixture, self.min_sigma = n_tokens, mixture, min_sigma
        self.out = nn.Linear(width, n_tokens * mixture * 3)
        nn.init.normal_(self.out.weight, std=0.01)
        bias = torch.zeros(n_tokens, mixture, 3)
        bias[..., 0] = torch.linspace(-0.5, 0.5, mixture) if mixture > 1 else 0.0
        bias[..., 1] = -1.0
        with torch.no_grad():
            self.out.bias.copy_(bias.flatten())
        self.register_buffer("centres", torch.linspace(-1, 1, N_BINS), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mean, log_sigma, weight = self.out(features).unflatten(-1, (self.n_tokens, self.mixture, 3)).unbind(-1)
        sigma = self.min_sigma + nn.functional.softplus(log_sigma)
        z = (self.centres - mean.unsqueeze(-1)) / sigma.unsqueeze(-1)
        log_w = (weight.log_softmax(-1) - sigma.log()).unsqueeze(-1)
        return torch.logsumexp(log_w - 0.5 * z.square(), dim=2)


class Residual(nn.Module):
    """Pre-norm residual MLP block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.net(x)


class Network(nn.Module):
    """The trainable part of the compact VLA, of which an ensemble has several: from an instruction, feature maps and
    proprioception to logits."""

    state_mean: torch.Tensor
    state_std: torch.Tensor

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        text_dim = 64
        self.instruction = Instruction(config.text_length, text_dim)
        self.eyes = nn.ModuleDict(
            {c: Eye(config.image_size, config.channels, config.keypoints, text_dim) for c in config.cameras}
        )
        seen = sum(eye.out_features for eye in self.eyes.values())  # type: ignore[misc]
        self.register_buffer("state_mean", torch.tensor(config.state_mean), persistent=False)
        self.register_buffer("state_std", torch.tensor(config.state_std), persistent=False)
        state_dim = len(config.state_mean) if config.use_state else 0
        self.trunk = nn.Sequential(
            nn.Linear(seen + text_dim + state_dim, config.width),
            Residual(config.width),
            Residual(config.width),
            nn.LayerNorm(config.width),
        )
        self.head = MixtureHead(config.width, config.chunk * config.action_dim, config.mixture, config.min_sigma)

    def own_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, width) what the head reads."""
        words = self.instruction(inputs["words"])
        parts = [words]
        for camera, eye in self.eyes.items():
            parts.append(eye(inputs[f"{camera}_s8"], inputs[f"{camera}_s16"], words))
        if self.config.use_state:
            parts.append(((inputs["state"] - self.state_mean) / self.state_std).clamp(-5, 5))
        return self.trunk(torch.cat(parts, -1))

    def own_logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, 56, 256) log-densities at the bin centres."""
        return self.head(self.own_features(inputs))


class CompactPolicy(Network):
    """The compact VLA. Inputs of a decision (see `prepare`): ``<camera>_s8`` (40, S/8, S/8) float16,
    ``<camera>_s16`` (112, S/16, S/16) float16, ``words`` (text_length,) int32, ``state`` (8,) float32.

    It is the first member of its ensemble; ``others`` are the further ones.
    """

    def __init__(self, config: CompactConfig) -> None:
        if config.image_size % 16:
            raise SrpoError(f"image_size {config.image_size} is not a multiple of 16; choose 96, 128 or 224.")
        if config.members < 1:
            raise SrpoError(f"A policy has 1 member or more, not {config.members}: set --policy.members 1.")
        super().__init__(config)
        self.chunk, self.action_dim = config.chunk, config.action_dim
        self.others = nn.ModuleList(Network(config) for _ in range(config.members - 1))

    @property
    def members(self) -> list[Network]:
        """The networks of the ensemble."""
        return [self, *self.others]

    def untrained(self) -> CompactPolicy:
        """A new policy of the same configuration, its weights drawn anew."""
        return CompactPolicy(self.config)

    def prepare(self, observation: Observation) -> Inputs:
        """Frozen features of an observation (see the class); raises SrpoError if a camera or its size is wrong."""
        images = np.stack([self._image(observation, c) for c in self.config.cameras])
        stride8, stride16 = shared_backbone()(torch.from_numpy(images))
        inputs = self.prepare_words(observation.instruction)
        for i, camera in enumerate(self.config.cameras):
            inputs[f"{camera}_s8"] = stride8[i].half().numpy()
            inputs[f"{camera}_s16"] = stride16[i].half().numpy()
        inputs["state"] = np.asarray(observation.state, np.float32)
        return inputs

    def prepare_batch(self, images: dict[str, np.ndarray], states: np.ndarray, instruction: str) -> Inputs:
        """`prepare` for N moments of one task: images camera -> (N, H, W, 3) uint8, states (N, 8); arrays of N rows."""
        words = self.prepare_words(instruction)["words"]
        inputs: Inputs = {"words": np.repeat(words[None], len(states), 0), "state": states.astype(np.float32)}
        for camera in self.config.cameras:
            self._check_size(camera, images[camera].shape[1:])
            maps = list(feature_batches(images[camera]))
            inputs[f"{camera}_s8"] = np.concatenate([m[0] for m in maps])
            inputs[f"{camera}_s16"] = np.concatenate([m[1] for m in maps])
        return inputs

    def prepare_words(self, instruction: str) -> Inputs:
        """Token ids of an instruction."""
        return {"words": text.tokenise(instruction, self.config.text_length)}

    def _image(self, observation: Observation, camera: str) -> np.ndarray:
        if camera not in observation.images:
            raise SrpoError(
                f"The policy reads camera '{camera}', the environment shows {sorted(observation.images)}: "
                "configure the environment with the policy's cameras."
            )
        self._check_size(camera, observation.images[camera].shape)
        return observation.images[camera]

    def _check_size(self, camera: str, shape: tuple[int, ...]) -> None:
        size = self.config.image_size
        if shape != (size, size, 3):
            raise SrpoError(
                f"The policy reads {size} x {size} images, camera '{camera}' gave {shape}: use one size for both."
            )

    def features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, members * width) what the heads read."""
        return torch.cat([member.own_features(inputs) for member in self.members], -1)

    def member_logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(members, B, 56, 256) each member's action-token logits."""
        return torch.stack([member.own_logits(inputs) for member in self.members])

    def logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, 56, 256) action-token logits: of the mean of the members' densities."""
        own = self.member_logits(inputs)
        return own[0] if len(own) == 1 else own.logsumexp(0) - math.log(len(own))

    @property
    def action_range(self) -> np.ndarray:
        """(action_dim,) float64, see `srpo.policies.base.Policy`."""
        return self.config.action_scale.range()

    def actions(self, tokens: np.ndarray) -> np.ndarray:
        """(..., 56) tokens to (..., 8, 7) environment actions."""
        normalised = action_tokens.decode(tokens).reshape(*tokens.shape[:-1], self.chunk, self.action_dim)
        return self.config.action_scale.unnormalise(normalised)

    def tokens(self, actions: np.ndarray) -> np.ndarray:
        """(..., 8, 7) environment actions to (..., 56) tokens."""
        tokens = action_tokens.encode(self.config.action_scale.normalise(actions))
        return tokens.reshape(*actions.shape[:-2], self.chunk * self.action_dim)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` (trainable weights; the frozen backbone is not repeated).

        Raises:
            OSError: a file cannot be written, because the disk is full for instance.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": "srpo-compact", **asdict(self.config)}
        (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")
        partial = folder / (WEIGHTS_NAME + ".partial")
        try:
            save_file({k: v.contiguous() for k, v in self.state_dict().items()}, partial)
        except SafetensorError as error:  # its own error for a full disk
            partial.unlink(missing_ok=True)
            raise OSError(errno.EIO, str(error), str(partial)) from error
        partial.rename(folder / WEIGHTS_NAME)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> CompactPolicy:
        """Read a folder written by `save_pretrained`.

        Raises:
            SrpoError: a file is missing or corrupt, or the weights do not fit the configuration.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            if not (folder / name).is_file():
                raise SrpoError(f"{folder} holds no {name}: give a folder written by srpo sft or srpo train.")
        try:
            values = json.loads((folder / CONFIG_NAME).read_text())
            if not isinstance(values, dict):
                raise TypeError("not a JSON object")
            kind = values.pop("model_type", None)
            if kind != "srpo-compact":
                raise SrpoError(f"{folder} holds a '{kind}' model, not a compact policy.")
            policy = cls(CompactConfig.from_dict(values))
            policy.load_state_dict(load_file(folder / WEIGHTS_NAME))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SrpoError(f"{folder / CONFIG_NAME} is damaged ({error}); restore it or train again.") from error
        except (SafetensorError, RuntimeError) as error:
            if isinstance(error, SrpoError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise SrpoError(
                f"{folder / WEIGHTS_NAME} is damaged or does not fit its config.json ({reason}); "
                "restore it or train again."
            ) from error
        return policy
