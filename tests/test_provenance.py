"""Provenance, atomic JSON files, and plug-ins by import string."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from srpo import plugins
from srpo.provenance import provenance, write_json
from srpo.types import SrpoError


def test_provenance_names_versions_and_seed() -> None:
    found = provenance(seed=7)
    assert found["seed"] == 7 and found["torch"] == torch.__version__ and found["numpy"] == np.__version__
    assert found["git_commit"] is None or len(found["git_commit"]) == 40
    json.dumps(found)


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": [2, None]})
    assert json.loads(path.read_text()) == {"a": [2, None]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [2, None]}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_plugins_are_found_or_named() -> None:
    assert plugins.load("json:dumps") is json.dumps
    for path in ("json", "json:", "no.such:X", "json:nothing", "", ":X"):
        with pytest.raises(SrpoError, match="import string such as"):
            plugins.load(path)
