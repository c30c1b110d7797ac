"""Overrides of frozen dataclass configurations by name, with "did you mean" for names that do not exist."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from srpo.types import SrpoError

T = TypeVar("T")


def override(config: T, changes: dict[str, str]) -> T:
    """A copy of ``config`` with fields replaced.

    Args:
        config: a frozen dataclass, possibly nested.
        changes: dotted field name ("learner.learning_rate"; dashes count as underscores) -> value as text. A name
            without its first part will do where it belongs to one part only ("learning_rate").

    Raises:
        SrpoError: a name that does not exist (the nearest one is named) or a value of the wrong type.
    """
    for name, value in changes.items():
        path = name.replace("-", "_").split(".")
        if not _exists(config, path):
            known = list(field_names(config))
            full = [k for k in known if k.split(".")[1:] == path]
            if len(full) != 1:
                _unknown(name, known)
            path = full[0].split(".")
        config = _set(config, path, value, name)
    return config


def field_names(config: Any, prefix: str = "") -> Iterator[str]:
    """All dotted field names of a (nested) dataclass."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from field_names(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _exists(config: Any, path: list[str]) -> bool:
    for name in path:
        if not dataclasses.is_dataclass(config) or name not in (f.name for f in dataclasses.fields(config)):
            return False
        config = getattr(config, name)
    return True


def _set(config: Any, path: list[str], text: str, full: str) -> Any:
    if len(path) > 1:
        return dataclasses.replace(config, **{path[0]: _set(getattr(config, path[0]), path[1:], text, full)})
    hint = typing.get_type_hints(type(config))[path[0]]
    return dataclasses.replace(config, **{path[0]: parse(text, hint, full)})


def _unknown(name: str, known: list[str]) -> typing.NoReturn:
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.0)
    raise SrpoError(f"There is no option '--{name}'; did you mean '--{near[0].replace('_', '-')}'?")


def parse(text: str, hint: Any, name: str) -> Any:
    """Text to a value of type ``hint``: int, float, bool, str, tuples of them (comma-separated), or None ("none")."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        return parse(text, next(a for a in arguments if a is not type(None)), name)
    if origin is tuple:
        return tuple(parse(part, arguments[0], name) for part in text.split(",") if part)
    if hint is bool:
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise SrpoError(f"--{name} takes true or false, not '{text}'.")
        return text.lower() in ("true", "yes", "1")
    if hint in (int, float, str):
        try:
            return hint(text)
        except ValueError:
            raise SrpoError(f"--{name} takes {hint.__name__} values, not '{text}'.") from None
    raise SrpoError(f"--{name} cannot be set on the command line.")
