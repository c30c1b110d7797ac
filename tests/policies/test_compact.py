"""The compact policy: its interface, what it depends on, and its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from srpo.policies.action_tokens import ActionScale
from srpo.policies.compact import CompactConfig, CompactPolicy, MixtureHead
from srpo.types import Observation, SrpoError

Make = Callable[[int], CompactPolicy]


def observation(seed: int = 0, instruction: str = "put the red bowl left of the plate", size: int = 32) -> Observation:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Observation({"agentview": image}, rng.standard_normal(8).astype(np.float32), instruction)


def logits_of(policy: CompactPolicy, seen: Observation) -> torch.Tensor:
    with torch.no_grad():
        return policy.logits({k: torch.from_numpy(v[None]) for k, v in policy.prepare(seen).items()})


def test_all_tokens_of_a_chunk_come_from_one_forward(one_thread: None, tiny_config: CompactConfig) -> None:
    policy = CompactPolicy(replace(tiny_config, chunk=8))
    calls: list[int] = []
    policy.trunk.register_forward_hook(lambda *_: calls.append(1))
    logits = logits_of(policy, observation())
    assert logits.shape == (1, 56, 256) and len(calls) == 1
    assert policy.actions(logits.argmax(-1).numpy()).shape == (1, 8, 7)


def test_actions_and_tokens_are_each_others_inverse(one_thread: None, tiny_config: CompactConfig) -> None:
    scale = ActionScale((-0.5,) * 6 + (-1.0,), (0.25,) * 6 + (1.0,))
    policy = CompactPolicy(replace(tiny_config, action_scale=scale))
    tokens = np.random.default_rng(0).integers(0, 255, (3, 14))
    actions = policy.actions(tokens)
    assert actions.shape == (3, 2, 7)
    np.testing.assert_array_equal(policy.tokens(actions), tokens)
    # Bin 0 is the centre -254/255 of [-1, 1]: of [-0.5, 0.25], -0.125 - 0.375 * 254 / 255.
    np.testing.assert_allclose(policy.actions(np.zeros(14, int))[0, 0], -0.125 - 0.375 * 254 / 255)


def test_every_input_changes_the_logits(tiny_policy: Make) -> None:
    policy, seen = tiny_policy(0), observation()
    base = logits_of(policy, seen)
    others = {
        "picture": replace(seen, images=observation(1).images),
        "state": replace(seen, state=seen.state + 0.5),
        "instruction": replace(seen, instruction="open the drawer"),
        "word order": replace(seen, instruction="put the plate left of the red bowl"),
    }
    for what, other in others.items():
        assert float((logits_of(policy, other) - base).abs().max()) > 1e-4, what
    assert torch.equal(logits_of(policy, replace(seen, instruction=" PUT the red bowl left of the plate ")), base)


def test_state_can_be_left_out(one_thread: None, tiny_config: CompactConfig) -> None:
    policy, seen = CompactPolicy(replace(tiny_config, use_state=False)), observation()
    assert torch.equal(logits_of(policy, seen), logits_of(policy, replace(seen, state=seen.state + 1)))


def test_padding_after_the_instruction_does_not_count(tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    ids = torch.tensor([[5, 9, 3, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        whole = policy.instruction(ids)
        policy.instruction.position[3:] = 7.0
        assert torch.equal(policy.instruction(ids), whole)


def test_batches_of_frames_are_prepared_like_single_ones(tiny_policy: Make) -> None:
    policy, seen = tiny_policy(0), [observation(s) for s in range(3)]
    images = {"agentview": np.stack([o.images["agentview"] for o in seen])}
    batch = policy.prepare_batch(images, np.stack([o.state for o in seen]), seen[0].instruction)
    for i, o in enumerate(seen):
        single = policy.prepare(o)
        assert single.keys() == batch.keys()
        for name, value in single.items():
            assert value.dtype == batch[name].dtype
            np.testing.assert_allclose(batch[name][i].astype(np.float32), value.astype(np.float32), atol=2e-2)


def test_mixture_head_is_a_mixture_of_gaussians_over_the_bins() -> None:
    head = MixtureHead(width=1, n_tokens=1, mixture=2, min_sigma=0.1)
    softplus_inverse = float(np.log(np.expm1(0.4)))  # sigma = 0.1 + 0.4
    with torch.no_grad():
        head.out.weight.zero_()
        # Two Gaussians: means -0.5 and 0.5, sigma 0.5 each, weights 1/4 and 3/4.
        head.out.bias.copy_(torch.tensor([-0.5, softplus_inverse, 0.0, 0.5, softplus_inverse, float(np.log(3))]))
        logits = head(torch.zeros(1, 1))[0, 0].double().numpy()
    x = np.linspace(-1, 1, 256)
    density = 0.25 * np.exp(-0.5 * ((x + 0.5) / 0.5) ** 2) + 0.75 * np.exp(-0.5 * ((x - 0.5) / 0.5) ** 2)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), density / density.sum(), rtol=1e-4)


def test_all_weights_get_a_gradient(tiny_policy: Make, tiny_inputs: Callable[..., dict[str, torch.Tensor]]) -> None:
    policy = tiny_policy(0).train()
    policy.logits(tiny_inputs(4)).log_softmax(-1)[..., 10].sum().backward()
    silent = [n for n, p in policy.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias before the softmax over places moves all places alike; its part in the strength still counts.
    assert silent == ["instruction.score.bias"] or not silent


@pytest.mark.parametrize("size", [40, 100])
def test_image_size_must_be_a_multiple_of_16(tiny_config: CompactConfig, size: int) -> None:
    with pytest.raises(SrpoError, match="multiple of 16"):
        CompactPolicy(replace(tiny_config, image_size=size))


def test_wrong_observations_are_refused(tiny_policy: Make) -> None:
    policy = tiny_policy(0)
    with pytest.raises(SrpoError, match="32 x 32"):
        policy.prepare(observation(size=48))
    with pytest.raises(SrpoError, match="reads camera 'agentview'"):
        policy.prepare(replace(observation(), images={"front": observation().images["agentview"]}))
    with pytest.raises(SrpoError, match="32 x 32"):
        policy.prepare_batch({"agentview": np.zeros((2, 64, 64, 3), np.uint8)}, np.zeros((2, 8)), "go")


def test_files_round_trip_to_the_bit(tmp_path: Path, one_thread: None, tiny_config: CompactConfig) -> None:
    scale = ActionScale((-0.1,) * 6 + (-1.0,), (0.3,) * 6 + (1.0,))
    config = replace(tiny_config, action_scale=scale, state_mean=(0.1,) * 8, state_std=(0.7,) * 8)
    policy = CompactPolicy(config).eval()
    policy.save_pretrained(tmp_path / "policy")
    again = CompactPolicy.from_pretrained(tmp_path / "policy").eval()
    assert again.config == config
    assert torch.equal(logits_of(again, observation()), logits_of(policy, observation()))
    for name, value in policy.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    # Nothing but JSON and safetensors, and no word vectors or backbone in them.
    assert {p.name for p in (tmp_path / "policy").iterdir()} == {"config.json", "model.safetensors"}
    size = sum(p.numel() for p in policy.parameters())
    assert (tmp_path / "policy" / "model.safetensors").stat().st_size < 4 * size + 10_000


def test_an_ensemble_has_the_mean_of_its_members_densities(
    tmp_path: Path, one_thread: None, tiny_config: CompactConfig, tiny_inputs: Callable[..., dict[str, torch.Tensor]]
) -> None:
    policy = CompactPolicy(replace(tiny_config, members=3)).eval()
    inputs = tiny_inputs(4)
    with torch.no_grad():
        own, joint = policy.member_logits(inputs), policy.logits(inputs)
        assert own.shape == (3, *joint.shape) and float((own[0] - own[1]).abs().max()) > 1e-3
        torch.testing.assert_close(joint.exp(), own.exp().mean(0))
        assert torch.equal(own[2], policy.others[1].own_logits(inputs))  # type: ignore[operator]
        assert policy.features(inputs).shape == (4, 3 * tiny_config.width)
        policy.save_pretrained(tmp_path)
        assert torch.equal(CompactPolicy.from_pretrained(tmp_path).eval().logits(inputs), joint)
    with pytest.raises(SrpoError, match=r"set --policy\.members 1"):
        CompactPolicy(replace(tiny_config, members=0))


def test_a_file_from_before_ensembles_is_one_member(tmp_path: Path, tiny_policy: Make) -> None:
    tiny_policy(0).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["members"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert len(CompactPolicy.from_pretrained(tmp_path).members) == 1


class TestDamagedFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path, tiny_policy: Make) -> Path:
        tiny_policy(0).save_pretrained(tmp_path)
        return tmp_path

    def refusal(self, folder: Path) -> str:
        with pytest.raises(SrpoError) as caught:
            CompactPolicy.from_pretrained(folder)
        message = str(caught.value)
        assert str(folder) in message and "\n" not in message.strip()
        return message

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_missing(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        assert f"holds no {name}" in self.refusal(folder)

    @pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'{"model_type": "srpo-compact"}'])
    def test_config_is_no_configuration(self, folder: Path, content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        assert "damaged" in self.refusal(folder)

    def test_config_of_another_model(self, folder: Path) -> None:
        (folder / "config.json").write_text('{"model_type": "llama"}')
        assert "'llama' model" in self.refusal(folder)

    @pytest.mark.parametrize("change", [{"colour": 1}, {"action_scale": 3}, {"width": "x"}, {"action_scale": {}}])
    def test_config_with_wrong_settings(self, folder: Path, change: dict) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | change))
        assert "config.json is damaged" in self.refusal(folder)

    @pytest.mark.parametrize("keep", [0, 7, 0.5])
    def test_weights_cut_short(self, folder: Path, keep: float) -> None:
        weights = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(weights[: int(keep * len(weights)) if keep < 1 else int(keep)])
        assert "damaged or does not fit" in self.refusal(folder)

    def test_weights_are_a_pickle(self, folder: Path) -> None:
        torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
        assert "damaged or does not fit" in self.refusal(folder)

    def test_weights_of_another_width(self, folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"width": 48}))
        assert "does not fit" in self.refusal(folder)

    def test_disk_full(self, tmp_path: Path, tiny_policy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise SafetensorError("Error while serializing: No space left on device (os error 28)")

        monkeypatch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(OSError, match="No space left"):
            tiny_policy(0).save_pretrained(tmp_path)
        assert not (tmp_path / "model.safetensors").exists()

    def test_a_weight_is_missing(self, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights["head.out.bias"]
        save_file(weights, folder / "model.safetensors")
        assert "head.out.bias" in self.refusal(folder)


def test_the_policy_of_the_results_is_still_read() -> None:
    policy = CompactPolicy.from_pretrained(Path(__file__).parents[2] / "results/libero_spatial/easy/srpo_0/policy")
    size = policy.config.image_size
    images = {c: np.full((size, size, 3), 90, np.uint8) for c in policy.config.cameras}
    seen = Observation(images, np.array(policy.config.state_mean, np.float32), "pick up the black bowl")
    logits = logits_of(policy, seen)
    assert logits.shape == (1, 56, 256) and logits.isfinite().all()
