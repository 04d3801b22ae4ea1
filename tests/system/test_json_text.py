"""JSON that somebody may have damaged raises one kind of error."""

from __future__ import annotations

import sys

import pytest

from errseg_rt.system.json_text import parse_json


def test_json() -> None:
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}
    assert parse_json("{}".encode("utf-16")) == {}
    assert parse_json('{"a": 1, "a": 2}', list) == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, b"\xff"], ids=range(5))
def test_what_is_none(text) -> None:
    with pytest.raises(ValueError, match=r"line 1|too deeply|decode"):
        parse_json(text)


@pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="this Python takes numbers of any length")
def test_a_number_of_thousands_of_digits() -> None:
    with pytest.raises(ValueError, match="digits"):
        parse_json("1" * 5000)
