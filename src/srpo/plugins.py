"""Plug-ins by import string, ``package.module:Name``."""

from __future__ import annotations

import importlib
from typing import Any

from srpo.types import SrpoError


def load(path: str) -> Any:
    """The object an import string names; SrpoError if it is not there."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SrpoError(f"Cannot load '{path}' ({error}); give an import string such as mypkg.envs:MyEnv.") from error
