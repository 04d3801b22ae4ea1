"""Damage to files, as chance has it: what a bad disk, a broken download or a slip of the hand leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
_TOKENS = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null')
_INSTEAD = (
    b"0", b"1", b"-1", b"2", b"0.5", b"1e999", b"-1e-300", b"NaN", b"Infinity", b"nan", b"inf", b"9" * 30, b"1e6",
    b"true", b"false", b"null", b'""', b'"x"', b'"../x"', b'"\\u0000"', b"[]", b"{}", b"[1]", b'["a"]', b'{"a": 1}',
    b"[[[[]]]]", b"", b"2147483648", b'"\xff"',
)  # fmt: skip
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(data: bytes, rng: Rng) -> bytes:
    """The bytes with one to three faults."""
    for _ in range(int(rng.integers(1, 4))):
        if data:
            data = _FAULTS[int(rng.integers(len(_FAULTS)))](data, rng)
    return data


def mistyped(text: bytes, rng: Rng) -> bytes:
    """A text of JSON or TOML with one to three values changed, or damaged as `damaged` does."""
    if rng.random() < 0.25:
        return damaged(text, rng)
    for _ in range(int(rng.integers(1, 4))):
        tokens = list(_TOKENS.finditer(text))
        if not tokens:
            return text
        token = tokens[int(rng.integers(len(tokens)))]
        other = tokens[int(rng.integers(len(tokens)))].group()
        new = other if rng.random() < 0.2 else _INSTEAD[int(rng.integers(len(_INSTEAD)))]
        text = text[: token.start()] + new + text[token.end() :]
    return text


def changed(value: object, rng: Rng) -> object:
    """A JSON value with some of its leaves or branches replaced, by values that JSON has."""
    text = mistyped(json.dumps(value).encode(), rng)
    try:
        return json.loads(text)
    except ValueError:
        return value


def _flip(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 9))):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _part(data: bytes, rng: Rng) -> tuple[int, int]:
    begin = int(rng.integers(len(data)))
    return begin, min(len(data), begin + int(2 ** rng.uniform(0, 9)))


def _zero(data: bytes, rng: Rng) -> bytes:
    begin, end = _part(data, rng)
    return data[:begin] + bytes(end - begin) + data[end:]


def _noise(data: bytes, rng: Rng) -> bytes:
    begin, end = _part(data, rng)
    return data[:begin] + rng.bytes(end - begin) + data[end:]


def _drop(data: bytes, rng: Rng) -> bytes:
    begin, end = _part(data, rng)
    return data[:begin] + data[end:]


def _repeat(data: bytes, rng: Rng) -> bytes:
    begin, end = _part(data, rng)
    return data[:end] + data[begin:end] + data[end:]


def _cut(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _extreme(data: bytes, rng: Rng) -> bytes:
    size, order = int(rng.choice([1, 2, 4])), ("little", "big")[int(rng.integers(2))]
    number = _EXTREMES[int(rng.integers(len(_EXTREMES)))] % (1 << 8 * size)
    at = int(rng.integers(min(len(data), 4096)))
    return data[:at] + number.to_bytes(size, order) + data[at + size :]


_FAULTS: tuple[Callable[[bytes, Rng], bytes], ...] = (_flip, _flip, _zero, _noise, _drop, _repeat, _cut, _extreme)
