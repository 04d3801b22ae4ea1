"""One line, whatever is in it."""

from __future__ import annotations

import pytest

from errseg_rt.system.lines import escaped, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two  spaces.png", "two  spaces.png"),
        ("Error(s):\n\tmissing key\r\n", "Error(s): missing key"),
        ("a\u2028b\x85c\x0bd", "a b c d"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("tab\tand é 图 \N{ZERO WIDTH JOINER}", "tab\\tand é 图 \N{ZERO WIDTH JOINER}"),
        ("", ""),
    ],
)
def test_one_line(text, line) -> None:
    assert one_line(text) == line
    assert len(one_line(text).splitlines()) <= 1


def test_an_escaped_name_can_be_told_from_others() -> None:
    assert escaped("new\nline\r.png") == r"new\nline\r.png"
    assert escaped("plain  name é.png") == "plain  name é.png"
