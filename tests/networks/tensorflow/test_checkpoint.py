"""Checkpoints of TensorFlow: what is in them, and what is said of damaged ones."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from errseg_rt.errors import DataError
from errseg_rt.networks.tensorflow import checkpoint_files, read_checkpoint
from errseg_rt.networks.tensorflow.crc32c import masked_crc32c
from errseg_rt.networks.tensorflow.wire import fields
from tests.networks.tensorflow.writer import message, write_checkpoint


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(3)
    return {
        **{f"xception_65/block1/unit_{i}/weights": rng.standard_normal((3, 3, i, 2), np.float32) for i in range(1, 13)},
        "scalar": np.float64(rng.standard_normal()),
        "empty": np.zeros((2, 0, 3), np.float32),
        "half": rng.standard_normal(5).astype(np.float16),
        "count": np.int32([7]),
    }


@pytest.fixture
def checkpoint(tmp_path, variables):
    return write_checkpoint(tmp_path / "model.ckpt", variables)


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].numpy().dtype == np.asarray(value).dtype, name
        np.testing.assert_array_equal(found[name].numpy(), value, err_msg=name)


@pytest.mark.parametrize("shards", [1, 3])
def test_variables_come_back(tmp_path, variables, shards):
    prefix = write_checkpoint(tmp_path / "model.ckpt-90000", variables, shards)
    names = [f"model.ckpt-90000.{end}" for end in ("index", *(f"data-{i:05}-of-{shards:05}" for i in range(shards)))]
    for path in (prefix, *map(tmp_path.joinpath, names), tmp_path / "model.ckpt-90000.meta"):
        assert [file.name for file in checkpoint_files(path)] == names
        assert_equal(read_checkpoint(path), variables)


def test_what_only_a_training_needs_is_left_out(tmp_path, variables):
    one = np.ones(3, np.float32)
    beside = ["a/weights/Momentum", "a/weights/Adam_1", "a/gamma/ExponentialMovingAverage"]
    more = {**variables, "global_step": np.int64(9), **dict.fromkeys(beside, one), "Momentum/weights": one}
    assert_equal(read_checkpoint(write_checkpoint(tmp_path / "m", more)), {**variables, "Momentum/weights": one})


def test_strings_are_passed_over(tmp_path, variables):
    extra = {b"_CHECKPOINTABLE_OBJECT_GRAPH": message((1, 7), (4, 0), (5, 9))}
    assert_equal(read_checkpoint(write_checkpoint(tmp_path / "m", variables, extra=extra)), variables)


def test_bfloat16(tmp_path):
    write_checkpoint(tmp_path / "m", {})
    halves = struct.pack("<3H", 0x3FC0, 0xC020, 0x7F80)
    crc = struct.pack("<I", masked_crc32c(halves))
    shape = message((2, message((1, 3))))
    extra = {b"b": message((1, 14), (2, shape), (5, 6), (6, crc))}
    write_checkpoint(tmp_path / "m", {}, extra=extra)
    (tmp_path / "m.data-00000-of-00001").write_bytes(halves)
    assert torch.equal(read_checkpoint(tmp_path / "m")["b"], torch.tensor([1.5, -2.5, torch.inf], dtype=torch.bfloat16))


def test_other_paths_are_no_checkpoints(tmp_path, checkpoint):
    assert checkpoint_files(tmp_path / "model") == []
    assert checkpoint_files(tmp_path / "model.ckpt-1") == []
    assert checkpoint_files(tmp_path) == []


@pytest.mark.parametrize(
    # RFC 3720, appendix B.4: 32 bytes of zeros, of ones, ascending, and descending.
    ("data", "crc"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_checksums_of_the_standard(data, crc):
    assert masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def change(path, edit):
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(edit(data) or data))


def flip(at):
    def edit(data):
        data[at] ^= 0x10

    return edit


INDEX, SHARD = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
DAMAGES = {
    "no_shard": (lambda folder: (folder / SHARD).unlink(), rf"{SHARD}: cannot be read \(No such file"),
    "cut_shard": (lambda f: change(f / SHARD, lambda d: d[:-1]), rf"{SHARD}: the variable .*: the file is cut off"),
    "flipped_shard": (lambda f: change(f / SHARD, flip(9)), rf"{SHARD}: the variable \S+ .*: its checksum is wrong"),
    "flipped_block": (lambda f: change(f / INDEX, flip(9)), rf"{INDEX}: damaged, .*checksum of the block at byte 0"),
    "cut_index": (
        lambda f: change(f / INDEX, lambda d: d[:-1]),
        rf"{INDEX}: damaged, .*\(no table of keys, or cut off",
    ),
    "no_middle": (lambda f: change(f / INDEX, lambda d: d[:20] + d[60:]), rf"{INDEX}: damaged"),
    "empty_index": (lambda f: (f / INDEX).write_bytes(b""), rf"{INDEX}: damaged, .*no table of keys"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_damages_are_named_in_one_line(checkpoint, damage, said):
    damage(checkpoint.parent)
    with pytest.raises(DataError, match=said) as caught:
        read_checkpoint(checkpoint)
    assert "\n" not in str(caught.value)


def test_no_flipped_bit_of_the_index_goes_unnoticed(checkpoint, variables):
    index = checkpoint.with_name(INDEX)
    content = index.read_bytes()
    for at in range(0, len(content), 3):
        index.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        try:
            found = read_checkpoint(checkpoint)
        except DataError:
            continue
        assert_equal(found, variables)  # the metaindex, which holds nothing


KINDS = {
    "compressed": ({"compression": 1}, None, "its blocks are compressed"),
    "big_endian": ({"header": ((2, 1),)}, None, "its numbers are big-endian"),
    "sliced": ({}, ((1, 1), (7, b"")), "kept in slices"),
    "type": ({}, ((1, 11),), "its type, number 11, is none of numbers"),
    "shape": ({}, ((1, 1), (2, b"\x12\x02\x08\x05"), (5, 8)), r"8 bytes, which is not its shape \[5\]"),
    "far_offset": ({}, ((1, 1), (4, 2**63), (5, 4)), "the file is cut off"),
    "shard": ({}, ((1, 1), (3, 4), (5, 4)), r"damaged, .*\(odd lies in shard 4 of 1\)"),
}


@pytest.mark.parametrize(("options", "entry", "said"), KINDS.values(), ids=KINDS)
def test_kinds_that_are_not_read(tmp_path, variables, options, entry, said):
    extra = {} if entry is None else {b"odd": message(*entry)}
    prefix = write_checkpoint(tmp_path / "m", variables, extra=extra, **options)
    with pytest.raises(DataError, match=said):
        read_checkpoint(prefix)


def test_the_old_format_is_named(tmp_path, checkpoint):
    old = tmp_path / "old.ckpt"
    old.write_bytes((tmp_path / INDEX).read_bytes())
    with pytest.raises(DataError, match=r"old\.ckpt: a TensorFlow checkpoint of format 1, .*save it again"):
        checkpoint_files(old)


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x05ab", b"\x0b", b"\x0d\x01", b"\xff" * 11])
def test_broken_messages_are_refused(data):
    with pytest.raises(ValueError, match=r"a number does not end|a field is cut off|unknown wire type"):
        list(fields(data))
