"""Settings by name: types, nesting, and the nearest name for one that does not exist."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from srpo.config import field_names, override
from srpo.types import SrpoError


@dataclass(frozen=True)
class Inner:
    learning_rate: float = 0.1
    clip: float | None = None
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Outer:
    steps: int = 3
    flag: bool = False
    mode: str = "x"
    tasks: tuple[int, ...] = ()
    limit: int | None = 5
    settings: dict = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise SrpoError("steps must not be negative.")


def test_values_of_every_type() -> None:
    changed = override(
        Outer(),
        {"steps": "7", "flag": "Yes", "mode": "y z", "tasks": "0,4,", "limit": "NONE", "inner.names": "b,c"},
    )
    assert changed == Outer(7, True, "y z", (0, 4), None, {}, Inner(names=("b", "c")))
    assert isinstance(changed.steps, int)


def test_nested_names_and_dashes() -> None:
    start = Outer()
    changed = override(start, {"inner.learning-rate": "1e-4", "inner.clip": "2"})
    assert changed.inner == Inner(1e-4, 2.0) and start == Outer()


def test_the_first_part_may_be_left_out_where_no_other_part_has_the_name() -> None:
    @dataclass(frozen=True)
    class Twice(Outer):
        other: Inner = field(default_factory=Inner)

    assert override(Outer(), {"learning-rate": "1e-4"}).inner.learning_rate == 1e-4
    with pytest.raises(SrpoError, match="no option '--learning-rate'"):
        override(Twice(), {"learning-rate": "1e-4"})


def test_empty_tuple_and_number_instead_of_none() -> None:
    changed = override(Outer(tasks=(1,)), {"tasks": "", "limit": "0"})
    assert changed.tasks == () and changed.limit == 0


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("stesp", "--steps"),
        ("inner.lerning-rate", "--inner.learning-rate"),
        ("iner.clip", "--inner.clip"),
        ("steps.more", "--steps"),
        ("inner.clip.low", "--inner.clip"),
    ],
)
def test_did_you_mean(name: str, nearest: str) -> None:
    with pytest.raises(SrpoError) as caught:
        override(Outer(), {name: "1"})
    assert str(caught.value) == f"There is no option '--{name}'; did you mean '{nearest}'?"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", "2.5", "--steps takes int values, not '2.5'."),
        ("inner.clip", "wide", "--inner.clip takes float values, not 'wide'."),
        ("steps", "none", "--steps takes int values, not 'none'."),
        ("flag", "maybe", "--flag takes true or false, not 'maybe'."),
        ("tasks", "1,b", "--tasks takes int values, not 'b'."),
        ("inner", "1", "--inner cannot be set on the command line."),
        ("settings", "1", "--settings cannot be set on the command line."),
        ("steps", "-1", "steps must not be negative."),
    ],
)
def test_wrong_values(name: str, value: str, message: str) -> None:
    with pytest.raises(SrpoError) as caught:
        override(Outer(), {name: value})
    assert str(caught.value) == message


def test_field_names_are_dotted_and_settable() -> None:
    assert list(field_names(Outer())) == [
        "steps", "flag", "mode", "tasks", "limit", "settings", "inner.learning_rate", "inner.clip", "inner.names",
    ]  # fmt: skip
