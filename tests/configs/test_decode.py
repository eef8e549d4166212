"""Plain data comes back as the dataclass it was; every complaint names the path, what was got and what is expected."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from configs.decode import decode
from configs.policy import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    word: Literal["yes", "no"] = "yes"
    pair: tuple[int, float] = (1, 2.0)

    def __post_init__(self) -> None:
        if self.pair[0] < 0:
            raise ValueError("pair must not be negative")


@dataclass(frozen=True, kw_only=True)
class Outer:
    needed: str
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()
    named: dict[str, float] = field(default_factory=dict)
    rows: list[bool] = field(default_factory=list)
    maybe: int | None = None


FULL = Outer(
    needed="x", inner=Inner(word="no"), many=(Inner(), Inner(pair=(3, 4))), named={"a": 1}, rows=[True], maybe=2
)


@pytest.mark.parametrize("value", [FULL, Outer(needed=""), PolicyConfig()])
def test_it_is_the_inverse_of_asdict(value: Any) -> None:
    assert decode(type(value), json.loads(json.dumps(asdict(value)))) == value


@pytest.mark.parametrize(
    ("plain", "complaint"),
    [
        ({}, "needed: missing"),
        ([], r"got \[\], expected an object"),
        ({"needed": 1}, "needed: got 1, expected a text"),
        ({"needed": "", "colour": 1}, "colour: not a known field, expected one of needed, inner"),
        ({"needed": "", "inner": None}, "inner: got null, expected an object"),
        (
            {"needed": "", "inner": {"word": "yess"}},
            r"inner.word: got .yess. \(did you mean yes\?\), expected one of yes, no",
        ),
        ({"needed": "", "inner": {"pair": [1]}}, r"inner.pair: got \[1\], expected a list of 2"),
        ({"needed": "", "inner": {"pair": [-1, 1]}}, "inner.pair must not be negative"),
        ({"needed": "", "many": [{}, {"pair": ["x", 1]}]}, r"many\[1\].pair\[0\]: got .x., expected an integer"),
        ({"needed": "", "many": "two"}, "many: got .two., expected a list"),
        ({"needed": "", "named": {"a": "b"}}, "named.a: got .b., expected a number"),
        ({"needed": "", "rows": [1]}, r"rows\[0\]: got 1, expected true or false"),
        ({"needed": "", "maybe": True}, "maybe: got true, expected an integer"),
    ],
)
def test_a_complaint_is_one_line_with_the_path(plain: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}") as caught:
        decode(Outer, plain)
    assert "\n" not in str(caught.value)
