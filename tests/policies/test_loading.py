from __future__ import annotations

import json

import pytest
import torch

from srpo.policies.compact import CompactPolicy
from srpo.policies.loading import ModelOptions, kind_of, load_policy
from srpo.types import SrpoError


def test_kinds(tmp_path, tiny_policy):
    tiny_policy().save_pretrained(tmp_path / "compact")
    (tmp_path / "vla").mkdir()
    (tmp_path / "vla/config.json").write_text(json.dumps({"model_type": "openvla"}))
    assert kind_of(tmp_path / "compact") == "compact"
    assert kind_of(tmp_path / "vla") == "openvla"
    assert kind_of("owner/model") == "openvla"
    assert kind_of(tmp_path / "nothing") == "compact"
    (tmp_path / "vla/config.json").write_text("[]")
    assert kind_of(tmp_path / "vla") == "compact"


def test_a_compact_policy_is_loaded_ready_to_act(tmp_path, tiny_policy):
    tiny_policy().save_pretrained(tmp_path)
    policy = load_policy(tmp_path, ModelOptions())
    assert isinstance(policy, CompactPolicy) and not policy.training


def test_a_device_that_is_not_there(tmp_path, tiny_policy):
    tiny_policy().save_pretrained(tmp_path)
    with pytest.raises(SrpoError, match=r"no device 'warp'.*--model\.device auto"):
        load_policy(tmp_path, ModelOptions(device="warp"))


def test_what_is_trained_is_kept_in_full_precision():
    gpu = torch.device("cuda")
    assert ModelOptions(train="lora").resolved_dtype(gpu) == "bfloat16"
    assert ModelOptions(train="full").resolved_dtype(gpu) == "float32"
    assert ModelOptions(train="lora").resolved_dtype(torch.device("cpu")) == "float32"
    assert ModelOptions(dtype="bfloat16").resolved_dtype(gpu) == "bfloat16"
