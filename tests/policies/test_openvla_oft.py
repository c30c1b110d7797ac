"""OpenVLA-OFT. ``data/openvla_published.npz`` was made by running the published code (openvla-oft at commit 213c5ff
with its fork of transformers 4.40.1, timm 0.9.16; TensorFlow 2.21 for the pictures) on the checkpoint of
``openvla_small.py`` and the inputs below."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvla_small
import pytest
import torch

from srpo.policies import action_tokens, openvla_checkpoint, openvla_images
from srpo.policies.base import token_log_probs
from srpo.policies.openvla_frontend import PAD, FrontEnd, Normalisation, statistics
from srpo.policies.openvla_oft import OpenVlaOftPolicy
from srpo.types import Observation, SrpoError

INSTRUCTION = "Pick up the bowl"


@pytest.fixture(scope="module")
def published():
    return np.load(Path(__file__).parent / "data/openvla_published.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return openvla_small.write_checkpoint(tmp_path_factory.mktemp("openvla") / "tokens")


@pytest.fixture(scope="module")
def folder_l1(tmp_path_factory):
    return openvla_small.write_checkpoint(tmp_path_factory.mktemp("openvla") / "l1", proprio=True, l1=True)


@pytest.fixture(scope="module")
def policy(folder):
    return OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object")


def recorded_inputs(policy, case: int = 0, instruction: str = INSTRUCTION) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng([7, case])
    pixels = rng.integers(0, 256, (len(policy.config.cameras), 224, 224, 3), dtype=np.uint8)
    state = rng.uniform(-1, 1, 8).astype(np.float32)
    return {
        "pixels": torch.from_numpy(pixels)[None],
        "prompt": torch.from_numpy(policy.front.prompt(instruction))[None],
        "state": torch.from_numpy(state)[None],
    }


def observation(seed: int = 0, instruction: str = INSTRUCTION, cameras=("agentview",)) -> Observation:
    rng = np.random.default_rng(seed)
    images = {c: rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for c in cameras}
    return Observation(images, rng.uniform(-1, 1, 8).astype(np.float32), instruction)


def batch(policy, observations) -> dict[str, torch.Tensor]:
    rows = [policy.prepare(o) for o in observations]
    return {k: torch.from_numpy(np.stack([r[k] for r in rows])) for k in rows[0]}


class TestParity:
    def test_logits_of_the_discrete_variant(self, policy, published):
        with torch.no_grad():
            logits = policy.logits(recorded_inputs(policy))[0].numpy()
        # Published: the columns of token ids 31744 to 31999; here bin 0 is the last id.
        np.testing.assert_allclose(logits[:, ::-1], published["tokens_logits"], atol=1e-4)

    @pytest.mark.parametrize(
        "case, instruction, key", [(0, INSTRUCTION, "tokens_actions"), (1, "put it on, left?", "tokens_second_actions")]
    )
    def test_unnormalised_actions(self, policy, published, case, instruction, key):
        with torch.no_grad():
            tokens = policy.logits(recorded_inputs(policy, case, instruction))[0].argmax(-1).numpy()
        mine = policy.config.front.action.unnormalise(action_tokens.decode(tokens).reshape(8, 7))
        np.testing.assert_allclose(mine, published[key], atol=1e-9)

    def test_two_images_state_and_the_continuous_head(self, folder_l1, published):
        policy = OpenVlaOftPolicy.from_pretrained(folder_l1, suite="libero_object")
        inputs = recorded_inputs(policy)
        with torch.no_grad():
            hidden = policy._hidden(inputs)
            logits = torch.nn.functional.linear(hidden, policy.language_model.lm_head.weight[31744:32000])[0]
            mean = policy.action_head(hidden.unflatten(1, (8, 7)).flatten(2))[0]
        np.testing.assert_allclose(logits.numpy(), published["l1_logits"], atol=1e-4)
        mine = policy.config.front.action.unnormalise(mean.numpy())
        np.testing.assert_allclose(mine, published["l1_actions"], atol=1e-5)

    def test_the_continuous_head_peaks_at_the_bin_nearest_to_its_output(self, folder_l1):
        policy = OpenVlaOftPolicy.from_pretrained(folder_l1, suite="libero_object")
        inputs = recorded_inputs(policy)
        with torch.no_grad():
            mean = policy.action_head(policy._hidden(inputs).unflatten(1, (8, 7)).flatten(2)).flatten()
            chosen = action_tokens.decode(policy.logits(inputs)[0].argmax(-1).numpy())
        np.testing.assert_allclose(chosen, np.clip(mean.numpy(), -1 + 1 / 255, 1 - 1 / 255), atol=1 / 255 + 1e-6)

    def picture(self, size: int) -> np.ndarray:
        y, x = np.mgrid[:size, :size].astype(np.float64)
        waves = [np.sin(x / 7 + y / 11), np.cos(x / 5), np.sin(y / 9) * np.cos(x / 13)]
        image = 127 + 100 * np.stack(waves, -1)
        image[size // 4 : size // 2, size // 3 : size // 2] = (250, 20, 30)
        return np.clip(image, 0, 255).astype(np.uint8)

    def test_pictures_through_jpeg_lanczos_and_crop(self, published):
        np.testing.assert_array_equal(openvla_images.jpeg(self.picture(96)), published["jpeg"])
        resized = openvla_images.resize(published["jpeg"], 84).astype(int)
        assert np.abs(resized - published["resized"]).max() <= 1
        assert (resized != published["resized"]).mean() < 0.01
        np.testing.assert_array_equal(openvla_images.crop(published["resized"]), published["cropped"])

    def test_the_crop_keeps_nine_tenths_of_the_area(self):
        ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, 0).repeat(3, 2)
        cropped = openvla_images.crop(ramp)[100, :, 0].astype(float)
        assert cropped[0] == pytest.approx(199 * (1 - np.sqrt(0.9)) / 2, abs=1)
        assert (cropped[-1] - cropped[0]) == pytest.approx(199 * np.sqrt(0.9), abs=2)


class TestSequence:
    def test_a_decision_does_not_depend_on_its_batch(self, policy):
        inputs = batch(policy, [observation(0), observation(1, "put the black bowl in the tray")])
        with torch.no_grad():
            both = policy.logits(inputs)
            for i in range(2):
                alone = policy.logits({k: v[i : i + 1] for k, v in inputs.items()})[0]
                torch.testing.assert_close(both[i], alone, atol=1e-5, rtol=0)

    def test_attention_is_bidirectional(self, policy):
        """The first slot hears of what stands behind it: with the last word changed its logits change, and so do
        they when only a later slot differs, which a causal mask would hide."""
        inputs = recorded_inputs(policy)
        x = torch.randn(1, 12, 64, generator=torch.Generator().manual_seed(0))
        position = torch.arange(12)[None]
        with torch.no_grad():
            one = policy._llm(x, position, None, False)
            x[:, -1] += 1.0
            two = policy._llm(x, position, None, False)
        assert (one[:, 0] - two[:, 0]).abs().max() > 1e-4
        assert inputs["prompt"].shape == (1, 192)

    def test_the_prompt_ends_with_the_empty_token_and_has_no_start(self, policy):
        prompt = policy.front.prompt("Pick UP the bowl")
        assert prompt[-1] == 29871
        assert 1 not in prompt
        np.testing.assert_array_equal(prompt, policy.front.prompt("pick up the bowl"))
        written = policy.front.tokenizer.decode(prompt[prompt != PAD].tolist())
        text = written.replace(" ", "").replace("▁", " ").replace("<0x0A>", "\n")
        assert text == " In: What action should the robot take to pick up the bowl?\nOut: "

    def test_a_prompt_that_does_not_fit_is_refused(self, policy):
        with pytest.raises(SrpoError, match="tokens, only 192 fit"):
            policy.front.prompt("pick up " * 30)


class TestActions:
    def test_gripper_sign(self, policy):
        """0 closes and 1 opens in the training data, +1 closes and -1 opens in LIBERO."""
        tokens = np.full((2, 56), 128)
        tokens[0, 6::7], tokens[1, 6::7] = action_tokens.encode(np.array([0.0, 1.0]))
        gripper = policy.actions(tokens)[..., -1]
        np.testing.assert_array_equal(gripper[0], np.ones(8))
        np.testing.assert_array_equal(gripper[1], -np.ones(8))

    def test_unnormalisation_by_hand(self):
        scale = Normalisation((-0.5, 0.0), (1.5, 1.0), (True, False))
        np.testing.assert_array_equal(scale.range(), [2.0, 2.0])
        np.testing.assert_array_equal(Normalisation((-0.1, 0.0), (0.2, 1.0), (True, False)).range(), [0.1 + 0.2, 2.0])
        np.testing.assert_allclose(scale.unnormalise(np.array([0.0, 0.25])), [0.5, 0.25], atol=1e-7)
        np.testing.assert_allclose(scale.unnormalise(np.array([1.0, -1.0])), [1.5, -1.0], atol=1e-7)
        np.testing.assert_allclose(scale.normalise(np.array([1.0, 0.3])), [0.5, 0.3], atol=1e-7)

    def test_tokens_and_actions_are_inverse_to_a_bin(self, policy):
        rng = np.random.default_rng(0)
        actions = rng.uniform(-0.09, 0.09, (3, 8, 7))
        actions[..., -1] = rng.choice([-1.0, 1.0], (3, 8))
        back = policy.actions(policy.tokens(actions))
        width = np.array(policy.config.front.action.high) - np.array(policy.config.front.action.low)
        assert (np.abs(back - actions)[..., :6] <= width[:6] / 255 + 1e-6).all()
        np.testing.assert_array_equal(back[..., -1], actions[..., -1])

    def test_the_two_highest_bins_share_a_centre(self, policy):
        tokens = np.full((2, 56), 128)
        tokens[0, 0], tokens[1, 0] = 254, 255
        actions = policy.actions(tokens)
        assert actions[0, 0, 0] == actions[1, 0, 0]

    def test_suite_names_with_the_published_ending(self):
        stats = {"libero_10_no_noops": {"action": 1}, "bridge": {"action": 2}}
        assert statistics(stats, "libero_10")[0] == "libero_10_no_noops"
        with pytest.raises(SrpoError, match=r"'libero_goal'.*bridge, libero_10_no_noops.*--unnorm-key"):
            statistics(stats, "libero_goal")


class TestCheckpoint:
    def test_saved_again_it_is_the_same_to_the_bit(self, policy, folder, tmp_path):
        policy.save_pretrained(tmp_path / "saved")
        before = dict(openvla_checkpoint._tensors(folder))
        after = dict(openvla_checkpoint._tensors(tmp_path / "saved"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
        for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
            assert (tmp_path / "saved" / name).read_bytes() == (folder / name).read_bytes()

    def test_parts_beside_the_model_are_saved_as_published(self, folder_l1, tmp_path):
        policy = OpenVlaOftPolicy.from_pretrained(folder_l1, suite="libero_object")
        assert policy.config.cameras == ("agentview", "wrist")
        policy.save_pretrained(tmp_path / "saved")
        head = torch.load(tmp_path / "saved/action_head--150000_checkpoint.pt", weights_only=True)
        assert "model.mlp_resnet_blocks.1.ffn.1.weight" in head
        state = torch.load(tmp_path / "saved/proprio_projector--150000_checkpoint.pt", weights_only=True)
        assert set(state) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
        again = OpenVlaOftPolicy.from_pretrained(tmp_path / "saved", suite="libero_object")
        with torch.no_grad():
            torch.testing.assert_close(
                again.logits(recorded_inputs(again)), policy.logits(recorded_inputs(policy)), atol=0, rtol=0
            )

    def test_bfloat16(self, folder):
        policy = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", dtype="bfloat16")
        assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
        assert policy.language_model.model.rotary_emb.inv_freq.dtype == torch.float32
        with torch.no_grad():
            logits = policy.logits(recorded_inputs(policy))
        assert logits.dtype == torch.float32 and torch.isfinite(logits).all()

    def damaged(self, folder, tmp_path, change) -> Path:
        from safetensors.torch import load_file, save_file

        broken = openvla_small.write_checkpoint(tmp_path / "broken", shards=1)
        file = broken / "model-00001-of-00001.safetensors"
        save_file(change(load_file(file)), file)
        return broken

    def test_missing_surplus_and_misshapen_keys_are_named(self, folder, tmp_path):
        key = "language_model.model.layers.1.mlp.up_proj.weight"

        def change(tensors):
            tensors["projector.fc9.weight"] = tensors.pop(key)
            tensors["projector.fc1.bias"] = torch.zeros(3)
            return tensors

        with pytest.raises(SrpoError) as error:
            OpenVlaOftPolicy.from_pretrained(self.damaged(folder, tmp_path, change), suite="libero_object")
        message = str(error.value)
        assert key in message and "projector.fc9.weight" in message and "projector.fc1.bias is (3,)" in message

    def test_missing_files_and_wrong_names(self, folder, tmp_path):
        with pytest.raises(SrpoError, match="does not exist"):
            OpenVlaOftPolicy.from_pretrained(tmp_path / "nowhere")
        with pytest.raises(SrpoError, match="'libero_goal'"):
            OpenVlaOftPolicy.from_pretrained(folder, suite="libero_goal")
        with pytest.raises(SrpoError, match="choose one with --unnorm-key"):
            OpenVlaOftPolicy.from_pretrained(folder)
        with pytest.raises(SrpoError, match="--images 3"):
            OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", images=3)
        broken = openvla_small.write_checkpoint(tmp_path / "short")
        (broken / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(SrpoError, match="lacks model-00002"):
            OpenVlaOftPolicy.from_pretrained(broken, suite="libero_object")

    def test_wrong_number_of_images(self, folder):
        policy = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", images=2)
        with pytest.raises(SrpoError, match=r"'wrist'.*--images"):
            policy.prepare(observation())
        inputs = recorded_inputs(policy)
        with pytest.raises(SrpoError, match=r"takes 2 image\(s\) a decision, got 1"):
            policy.logits(inputs | {"pixels": inputs["pixels"][:, :1]})


class TestTraining:
    def gradient(self, policy, inputs) -> dict[str, torch.Tensor]:
        policy.zero_grad()
        tokens = torch.zeros(len(inputs["prompt"]), 56, dtype=torch.long)
        token_log_probs(policy.logits(inputs), tokens, 1.6)[0].sum().backward()
        return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}

    def test_recomputing_changes_no_gradient(self, folder):
        plain = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", recompute=False)
        cheap = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", recompute=True)
        one, two = (self.gradient(p, recorded_inputs(p)) for p in (plain, cheap))
        assert one.keys() == two.keys() == dict(plain.named_parameters()).keys()
        for name in one:
            torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)

    def test_language_alone(self, folder):
        policy = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", train="language")
        names = self.gradient(policy, recorded_inputs(policy))
        assert names and all(n.startswith("language_model.") for n in names)

    def test_lora_begins_as_the_checkpoint_and_is_merged_when_saved(self, policy, folder, tmp_path):
        lora = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", train="lora", lora_rank=4)
        inputs = recorded_inputs(lora)
        with torch.no_grad():
            torch.testing.assert_close(lora.logits(inputs), policy.logits(inputs), atol=1e-6, rtol=0)
        trained = [(n, p) for n, p in lora.named_parameters() if p.requires_grad]
        assert len(trained) == 2 * 7 * 2 and all("lora_" in n for n, _ in trained)
        with torch.no_grad():
            for i, (_, p) in enumerate(trained):
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
            moved = lora.logits(inputs)
        assert (moved - policy.logits(inputs)).abs().max() > 1e-2
        lora.save_pretrained(tmp_path / "merged")
        merged = OpenVlaOftPolicy.from_pretrained(tmp_path / "merged", suite="libero_object")
        with torch.no_grad():
            torch.testing.assert_close(merged.logits(inputs), moved, atol=1e-4, rtol=0)
        names = set(dict(openvla_checkpoint._tensors(tmp_path / "merged")))
        assert names == set(openvla_small.shapes())

    def test_adapters_are_float32_on_bfloat16_weights(self, folder):
        policy = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", train="lora", dtype="bfloat16")
        assert {p.dtype for p in policy.parameters() if p.requires_grad} == {torch.float32}
        gradients = self.gradient(policy, recorded_inputs(policy))
        assert len(gradients) == 28 and all(torch.isfinite(g).all() for g in gradients.values())
        assert any(g.abs().max() > 0 for g in gradients.values())

    def test_frozen_eyes_look_once(self, folder):
        policy = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object", train="lora")
        inputs = recorded_inputs(policy)
        once = policy.freeze(inputs)
        assert set(once) == {"patches", "prompt", "state"} and once["patches"].shape == (1, 256, 80)
        with torch.no_grad():
            torch.testing.assert_close(policy.logits(once), policy.logits(inputs), atol=0, rtol=0)
        whole = OpenVlaOftPolicy.from_pretrained(folder, suite="libero_object")
        assert whole.freeze(inputs) is inputs


def test_the_front_end_alone_prepares_and_acts_alike(policy):
    front = FrontEnd(policy.config.front)
    one, two = front.prepare(observation()), policy.prepare(observation())
    assert one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)
    tokens = np.random.default_rng(0).integers(0, 256, 56)
    np.testing.assert_array_equal(front.actions(tokens), policy.actions(tokens))
    assert (front.chunk, front.action_dim) == (8, 7)
