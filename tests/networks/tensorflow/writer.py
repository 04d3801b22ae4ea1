"""Checkpoints as TensorFlow writes them: a LevelDB table of where variables lie, and their bytes in shards."""

from __future__ import annotations

import struct

import numpy as np

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def crc32c(data, crc=0xFFFFFFFF):
    """Bit by bit, as the polynomial is defined."""
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(number):
    parts = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(part | 0x80 for part in parts[:-1]), parts[-1]])


def message(*pairs):
    """Fields by number: an integer is a varint, bytes stand behind their length; four bytes of a checksum are fixed."""
    out = b""
    for number, value in pairs:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif number == 6:
            out += varint(number << 3 | 5) + value
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def table(entries, per_block=7, restart=3, compression=0):
    """A LevelDB table: keys share what they begin with, but for every `restart`-th."""
    content, index = b"", []

    def add(pairs):
        nonlocal content
        block, restarts, last = b"", [], b""
        for number, (key, value) in enumerate(pairs):
            shared = 0
            if number % restart == 0:
                restarts.append(len(block))
            else:
                shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), len(last))
            block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            last = key
        block += b"".join(struct.pack("<I", offset) for offset in restarts) + struct.pack("<I", len(restarts))
        place = varint(len(content)) + varint(len(block))
        kind = bytes([compression])
        content += block + kind + masked(block + kind)
        return place

    pairs = sorted(entries.items())
    for start in range(0, len(pairs), per_block):
        part = pairs[start : start + per_block]
        index.append((part[-1][0], add(part)))
    metaindex, root = add([]), add(index)
    return content + (metaindex + root).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def entry(array, offset, crc, shard=0):
    shape = message(*((2, message((1, side))) for side in array.shape))
    fields = [(1, DTYPES[array.dtype.name]), (2, shape), (4, offset), (5, array.nbytes), (6, crc)]
    return message(*fields[:2], *([(3, shard)] if shard else []), *fields[2:])


def write_checkpoint(prefix, variables, shards=1, checksum=masked, extra=None, header=(), **of_table):
    """Write variables by name, spread over some shards; gives the prefix."""
    entries = {b"": message((1, shards), *header, (3, message((1, 1))))}
    data = [bytearray() for _ in range(shards)]
    for number, name in enumerate(sorted(variables)):
        array, shard = np.ascontiguousarray(variables[name]), number % shards
        content = array.tobytes()
        entries[name.encode()] = entry(array, len(data[shard]), checksum(content), shard)
        data[shard] += content
    for shard, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}").write_bytes(content)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table({**entries, **(extra or {})}, **of_table))
    return prefix
