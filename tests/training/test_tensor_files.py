"""Tensor files: what goes in comes out, and what is damaged in the middle is noticed, too."""

from __future__ import annotations

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from errseg_rt.training.tensor_files import read_tensors, write_tensors

TENSORS = {"b": torch.arange(12.0).reshape(3, 4), "a": torch.ones(5, dtype=torch.float16), "none": torch.zeros(0, 3)}


@pytest.fixture
def path(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {**TENSORS, "t": TENSORS["b"].T}, {"note": "a b", "crc": "1"})
    return tmp_path / "x.safetensors"


def test_tensors_and_notes_come_back(path):
    tensors, notes = read_tensors(path)
    assert notes == {"note": "a b", "crc": "1"}
    for name, tensor in {**TENSORS, "t": TENSORS["b"].T}.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)
    assert load_file(path).keys() == tensors.keys()  # for others, it is a file as any


def test_every_byte_of_the_tensors_counts(path):
    content = path.read_bytes()
    body = sum(tensor.numel() * tensor.element_size() for tensor in read_tensors(path)[0].values())
    for offset in range(1, body + 1):
        damaged = bytearray(content)
        damaged[-offset] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(SafetensorError, match="its checksum is wrong"):
            read_tensors(path)


def test_files_without_a_checksum_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "old.safetensors")
    save_file(TENSORS, tmp_path / "noted.safetensors", {"note": "x"})
    assert read_tensors(tmp_path / "old.safetensors")[1] == {}
    tensors, notes = read_tensors(tmp_path / "noted.safetensors")
    assert notes == {"note": "x"}
    torch.testing.assert_close(tensors, TENSORS, rtol=0, atol=0)
