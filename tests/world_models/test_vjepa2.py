"""V-JEPA 2 on a small random model in the published layout: its mathematics, loading, batching and caching."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srpo.types import SrpoError
from srpo.world_models import create
from srpo.world_models.video_frames import chosen_frames
from srpo.world_models.vjepa2 import PUBLISHED, VJepa2Config, VJepa2WorldModel
from srpo.world_models.vjepa2_layers import clip_bytes, rotary_angles

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")

# As ViT-g: an MLP of 48/11 of the width, and 4 channels of a head that are not rotated.
HIDDEN, LAYERS, HEADS, CROP, FRAMES, MLP = 44, 3, 2, 64, 8, 48 / 11


def weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A random weight that depends on its name alone, so that another program can make it again."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    numbers = 0.2 * np.random.RandomState(seed).standard_normal(shape)
    return torch.from_numpy((numbers + ("norm" in name and name.endswith("weight"))).astype(np.float32))


def small_model(**changes: Any) -> Any:
    settings = {
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "crop_size": CROP,
        "frames_per_clip": FRAMES, "mlp_ratio": MLP, "pred_hidden_size": 12, "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": 1, "num_pooler_layers": 1,
    }  # fmt: skip
    kind = changes.pop("kind", transformers.VJEPA2Model)
    model = kind(transformers.VJEPA2Config(**(settings | changes))).eval()
    names = {k: k.removeprefix("vjepa2.") for k in model.state_dict()}
    model.load_state_dict({k: weight(names[k], tuple(v.shape)) for k, v in model.state_dict().items()})
    return model


def save(model: Any, folder: Path, **preprocessor: Any) -> str:
    model.save_pretrained(folder)
    (folder / "video_preprocessor_config.json").write_text(json.dumps({"crop_size": CROP} | preprocessor))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(small_model(), tmp_path_factory.mktemp("vjepa2"))


def videos(*lengths: int, size: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8) for n in lengths]


def plain_encoder(weights: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """V-JEPA 2's encoder from its description, one token after the other where it is easier to check so.

    Args:
        weights: of `VJEPA2Model`.
        pixels: (F, 3, S, S) float64.

    Returns:
        (N, H) float64 tokens.
    """
    w = {k.removeprefix("encoder."): v.double() for k, v in weights.items()}

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    kernel = w["embeddings.patch_embeddings.proj.weight"]
    places = [(t, y, x) for t in range(FRAMES // 2) for y in range(CROP // 16) for x in range(CROP // 16)]
    tubes = [pixels[2 * t : 2 * t + 2, :, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] for t, y, x in places]
    tokens = torch.stack([(kernel * tube.transpose(0, 1)).sum((1, 2, 3, 4)) for tube in tubes])
    tokens = tokens + w["embeddings.patch_embeddings.proj.bias"]

    head = HIDDEN // HEADS
    part = 2 * (head // 3 // 2)

    def rotated(row: torch.Tensor, place: tuple[int, int, int]) -> torch.Tensor:
        out = row.clone()
        for axis, position in enumerate(place):
            for j in range(part):
                angle = torch.tensor(position * 10000 ** (-(j % (part // 2)) / (part // 2)), dtype=torch.float64)
                here, partner = axis * part + j, axis * part + (j ^ 1)
                sign = -1.0 if j % 2 == 0 else 1.0
                out[here] = row[here] * torch.cos(angle) + sign * row[partner] * torch.sin(angle)
        return out

    for i in range(LAYERS):
        x = norm(f"layer.{i}.norm1", tokens)
        q, k, v = (linear(f"layer.{i}.attention.{n}", x).split(head, dim=1) for n in ("query", "key", "value"))
        mixed = []
        for h in range(HEADS):
            qh, kh = (torch.stack([rotated(r, p) for r, p in zip(m[h], places, strict=True)]) for m in (q, k))
            mixed.append(torch.softmax(qh @ kh.T / head**0.5, dim=1) @ v[h])
        tokens = tokens + linear(f"layer.{i}.attention.proj", torch.cat(mixed, dim=1))
        x = linear(f"layer.{i}.mlp.fc1", norm(f"layer.{i}.norm2", tokens))
        tokens = tokens + linear(f"layer.{i}.mlp.fc2", 0.5 * x * (1 + torch.erf(x / 2**0.5)))
    return norm("layernorm", tokens)


def encoded(world_model: VJepa2WorldModel, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return world_model._encoder().model.encoder(pixel_values_videos=pixels[None]).last_hidden_state[0]


def formula_clip() -> torch.Tensor:
    numbers = torch.from_numpy((np.arange(FRAMES * CROP * CROP * 3) * 7919 % 251).astype(np.float32))
    return (numbers.reshape(FRAMES, CROP, CROP, 3).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25


def test_tokens_equal_the_original_implementations(folder: str) -> None:
    # Computed with the VisionTransformer of facebookresearch/vjepa2 (commit c2963a4) from the same weights and pixels.
    tokens = encoded(VJepa2WorldModel(folder), formula_clip())
    assert tokens.shape == (64, HIDDEN)
    expected = {(0, 0): -0.16925, (1, 5): -0.12145, (4, 11): -1.13449, (16, 23): -1.96614, (37, 40): 0.48377,
                (63, 43): -0.50198}  # fmt: skip
    for place, value in expected.items():
        assert float(tokens[place]) == pytest.approx(value, abs=2e-5)
    means = [0.34372, -0.07521, -0.51016, 0.52056, 0.06975, 0.25964]
    np.testing.assert_allclose(tokens.mean(0)[:6], means, atol=2e-5)


def test_tokens_equal_a_plain_computation(folder: str) -> None:
    pixels = formula_clip()
    weights = {k: v for k, v in small_model().state_dict().items() if k.startswith("encoder.")}
    plain = plain_encoder(weights, pixels.double())
    np.testing.assert_allclose(encoded(VJepa2WorldModel(folder), pixels), plain, atol=1e-5)


def test_embedding_is_the_mean_of_the_tokens_of_the_chosen_frames(folder: str) -> None:
    world_model = VJepa2WorldModel(folder)
    (episode,) = videos(15)
    embedded = world_model.embed([episode])
    assert embedded.shape == (1, HIDDEN) and embedded.dtype == np.float32
    pixels = world_model.preprocessing(torch.from_numpy(episode[::2]))
    np.testing.assert_allclose(embedded[0], encoded(world_model, pixels).mean(0), atol=1e-5)


def test_a_moment_is_the_mean_token_of_its_time_since_the_first(folder: str) -> None:
    world_model = VJepa2WorldModel(folder)
    (episode,) = videos(5)
    seen = world_model.trace(episode)
    pixels = world_model.preprocessing(torch.from_numpy(episode[chosen_frames(5, FRAMES)]))
    times = encoded(world_model, pixels).reshape(FRAMES // 2, -1, HIDDEN).mean(1).numpy()
    assert seen.shape == (5, HIDDEN) and not seen[0].any()
    np.testing.assert_allclose(seen[-1], times[-1] - times[0], atol=2e-6)
    # The mean over the times is the whole episode's vector, and comes from the same pass.
    np.testing.assert_allclose(world_model.embed([episode])[0], times.mean(0), atol=2e-6)
    assert (world_model.cache.hits, world_model.cache.misses) == (1, 1)


def test_first_angles_by_hand() -> None:
    # Heads of 16 channels: parts of 4 for time, height and width, 4 left; frequencies 1 and 1/100, repeated.
    angles = rotary_angles(2, 2, 3, 16).numpy()
    assert angles.shape == (12, 16)
    np.testing.assert_allclose(angles[0], np.zeros(16))
    last = [1, 0.01, 1, 0.01, 1, 0.01, 1, 0.01, 2, 0.02, 2, 0.02, 0, 0, 0, 0]  # at (1, 1, 2)
    np.testing.assert_allclose(angles[-1], last, rtol=1e-6)


def test_tokens_equal_those_of_transformers(folder: str) -> None:
    theirs = small_model().get_vision_features(formula_clip()[None]).detach()[0]
    np.testing.assert_allclose(encoded(VJepa2WorldModel(folder), formula_clip()), theirs, atol=1e-5)


def test_only_the_encoder_is_loaded(folder: str) -> None:
    names = VJepa2WorldModel(folder)._encoder().model.state_dict()
    assert all(name.startswith("encoder.") for name in names)


def test_a_classifier_checkpoint_is_an_encoder_too(tmp_path: Path, folder: str) -> None:
    model = small_model(kind=transformers.VJEPA2ForVideoClassification)
    path = save(model, tmp_path / "classifier")
    np.testing.assert_allclose(
        VJepa2WorldModel(path).embed(videos(8)), VJepa2WorldModel(folder).embed(videos(8)), atol=1e-6
    )


def test_the_same_in_any_batch_and_after_shrinking(folder: str) -> None:
    episodes = videos(3, 8, 20, 1, 9, size=100)
    together = VJepa2WorldModel(folder)
    assert together._encoder().micro_batch(FRAMES) > 5
    one_by_one = VJepa2WorldModel(VJepa2Config(folder, memory_gb=1e-6))
    assert one_by_one._encoder().micro_batch(FRAMES) == 1
    shrunk = [np.stack([one_by_one.frame_features(f, {}) for f in e]) for e in episodes]
    assert shrunk[0].shape == (3, 73, 73, 3) and shrunk[0].dtype == np.uint8
    np.testing.assert_allclose(together.embed(episodes), one_by_one.embed(shrunk), atol=2e-6)


def test_micro_batches_fill_the_budget(folder: str) -> None:
    # 64 tokens x 44 x 4 bytes x (4 + 2 * 48/11 = 12.727) = 143,360; pixels 8 * 3 * 64 * 64 * 16 = 1,572,864.
    clip = clip_bytes(64, HIDDEN, MLP, FRAMES, CROP, 4)
    assert clip == 143_360 + 1_572_864
    for n in (1, 3):
        world_model = VJepa2WorldModel(VJepa2Config(folder, memory_gb=(n + 0.5) * clip / 1e9))
        assert world_model._encoder().micro_batch(FRAMES) == n


@pytest.mark.parametrize(("precision", "cosine"), [("bf16", 0.9999), ("fp16", 0.999999)])
def test_half_precision_is_near(folder: str, precision: str, cosine: float) -> None:
    full = VJepa2WorldModel(folder).embed(videos(8, 5))
    half = VJepa2WorldModel(VJepa2Config(folder, precision=precision)).embed(videos(8, 5))
    assert half.dtype == np.float32
    norms = np.linalg.norm(full, axis=1) * np.linalg.norm(half, axis=1)
    assert ((full * half).sum(1) / norms > cosine).all()


def test_fewer_frames(folder: str) -> None:
    embedded = VJepa2WorldModel(VJepa2Config(folder, frames=4)).embed(videos(7))
    assert embedded.shape == (1, HIDDEN)
    with pytest.raises(SrpoError, match="take a multiple"):
        VJepa2WorldModel(VJepa2Config(folder, frames=3)).embed(videos(7))


def test_what_was_embedded_is_not_embedded_again(folder: str, tmp_path: Path) -> None:
    config = VJepa2Config(folder, cache_folder=str(tmp_path / "cache"))
    episodes = videos(8, 12)
    first = VJepa2WorldModel(config)
    embedded = first.embed([*episodes, episodes[0]])
    np.testing.assert_array_equal(embedded[0], embedded[2])
    assert len(list((tmp_path / "cache").iterdir())) == 2
    second = VJepa2WorldModel(config)
    second._encoder().model.encoder = None  # would fail if it were called
    np.testing.assert_array_equal(second.embed(episodes[::-1]), embedded[1::-1])
    assert second.cache.hits == 2


def test_other_weights_are_not_taken_from_the_cache(folder: str, tmp_path: Path) -> None:
    other = small_model()
    other.encoder.layernorm.weight.data *= 2
    cache = str(tmp_path / "cache")
    one = VJepa2WorldModel(VJepa2Config(folder, cache_folder=cache)).embed(videos(8))
    two = VJepa2WorldModel(VJepa2Config(save(other, tmp_path / "other"), cache_folder=cache)).embed(videos(8))
    assert (one != two).any()


@pytest.mark.parametrize(
    ("value", "what"), [(0.0, "all zeros"), (float("nan"), "not finite"), (float("inf"), "not finite")]
)
def test_a_useless_embedding_stops_the_run(tmp_path: Path, value: float, what: str) -> None:
    model = small_model()
    for parameter in model.encoder.layernorm.parameters():
        parameter.data.fill_(value)
    with pytest.raises(SrpoError, match=f"embedding of episode 0 is {what}.* in fp32: check the weights"):
        VJepa2WorldModel(save(model, tmp_path / "model")).embed(videos(8))


def test_by_name(folder: str) -> None:
    by_folder = create(f"vjepa2:{folder}")
    assert isinstance(by_folder, VJepa2WorldModel) and by_folder.preprocessing.crop == CROP
    for name, (_, crop) in PUBLISHED.items():
        world_model = create(name)  # loads nothing yet
        assert isinstance(world_model, VJepa2WorldModel) and world_model.preprocessing.crop == crop
    assert world_model.frame_features(np.zeros((500, 600, 3), np.uint8), {}).shape == (438, 525, 3)
    assert world_model.frame_features(np.zeros((128, 128, 3), np.uint8), {}).shape == (128, 128, 3)
    with pytest.raises(SrpoError, match=r"no folder /nowhere.*choose vjepa2-vitl"):
        create("vjepa2:/nowhere")


def test_a_folders_own_preprocessing(tmp_path: Path) -> None:
    path = save(small_model(), tmp_path, crop_size={"height": 48, "width": 48}, image_mean=[0.1, 0.2, 0.3])
    world_model = VJepa2WorldModel(path)
    assert (world_model.preprocessing.crop, world_model.preprocessing.mean) == (48, (0.1, 0.2, 0.3))
    assert world_model.embed(videos(8)).shape == (1, HIDDEN)  # 3 x 3 patches instead of 4 x 4
    (tmp_path / "video_preprocessor_config.json").unlink()
    assert VJepa2WorldModel(path).preprocessing.crop == CROP  # the model's
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SrpoError, match=r"config.json is damaged"):
        VJepa2WorldModel(path)


@pytest.mark.parametrize("change", [{"precision": "int8"}, {"memory_gb": 0.0}])
def test_impossible_settings_are_refused(folder: str, change: dict[str, Any]) -> None:
    with pytest.raises(SrpoError, match=r"precision named|budget of"):
        VJepa2Config(folder, **change)


def test_without_the_hub_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SrpoError, match=r"facebook/vjepa2-vitl-fpc64-256 are not on this machine.*hf download"):
        create("vjepa2-vitl").embed(videos(8))


def test_without_transformers_the_extra_is_named(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SrpoError, match=r'pip install "srpo\[vla\]"'):
        VJepa2WorldModel(folder).embed(videos(8))


def test_incomplete_or_foreign_folders_are_refused(tmp_path: Path) -> None:
    model = small_model()
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if "layer.1." not in k})
    with pytest.raises(SrpoError, match=r"lacks \d+ of V-JEPA 2's weights, such as encoder.layer.1"):
        VJepa2WorldModel(str(tmp_path)).embed(videos(8))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SrpoError, match="cannot be loaded as V-JEPA 2"):
        VJepa2WorldModel(str(tmp_path)).embed(videos(8))
