"""Reading GGUF files, the form in which llama.cpp keeps models: a header, metadata, and tensors of few bits.

The bonus notebook "From GPT to Llama" builds this reader. It knows numbers in float32 and float16 and the two kinds of
blocks that it explains, Q8_0 and Q4_1; the `gguf` package knows all of them. The format is described in ggml's
repository (docs/gguf.md). A file is data only: nothing in it is run.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .files import first_line, write_whole
from .guards import takes_file

# The kinds of a value in the metadata, by number: fixed sizes as `struct` names them, a text, a list.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
# The kinds of tensors that are read here, by number: name, numbers per block, bytes per block.
KINDS = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}


class GGUFTensor(NamedTuple):
    """Where a tensor lies in a file: its shape as PyTorch has it, its kind (see KINDS), and its bytes, mapped."""

    shape: tuple[int, ...]
    kind: str
    data: np.ndarray


class Bytes:
    """Bytes, and the place up to which they have been read.

    Raises ValueError at their end, KeyError for an unknown kind of value.
    """

    def __init__(self, data: Any):
        self.data, self.place = memoryview(data), 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > len(self.data) - self.place:
            raise ValueError("it ends in the middle of something")
        self.place += count
        return bytes(self.data[self.place - count : self.place])

    def number(self, code: str) -> Any:
        """The next number; `code` is that of `struct`."""
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        """The next text: its length in bytes, then the bytes."""
        return self.take(self.number("Q")).decode("utf-8")

    def value(self, kind: int) -> Any:
        """The next value of a kind: a text, a list of values of one kind, or a number."""
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            inner, count = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(count)]
        return self.number(NUMBERS[kind])


def read_header(data: Any) -> tuple[dict[str, Any], dict[str, tuple[tuple[int, ...], int, int]]]:
    """The metadata in the bytes of a GGUF file, and for each tensor its shape, its kind's number, and its first byte.

    Shapes are as PyTorch has them: in the file the last dimension comes first. Raises as `Bytes`.
    """
    reader = Bytes(data)
    if reader.take(4) != b"GGUF" or reader.number("I") not in (2, 3):
        raise ValueError("it does not begin as a GGUF file of version 2 or 3")
    num_tensors, num_values = reader.number("Q"), reader.number("Q")
    metadata, places = {}, {}
    for _ in range(num_values):
        name, kind = reader.text(), reader.number("I")
        metadata[name] = reader.value(kind)
    for _ in range(num_tensors):
        name, dimensions = reader.text(), reader.number("I")
        shape = tuple(reader.number("Q") for _ in range(dimensions))[::-1]
        places[name] = shape, reader.number("I"), reader.number("Q")
    step = metadata.get("general.alignment", 32)
    begin = (reader.place + step - 1) // step * step  # the tensors begin at a multiple of it
    for name, (shape, kind, offset) in places.items():
        places[name] = shape, kind, begin + offset
    return metadata, places


@takes_file
def read_gguf(path: Path | str) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    """The metadata of a GGUF file and its tensors, by name. The tensors' bytes are mapped, not read.

    Raises FileNotFoundError, or ValueError if the file is not a GGUF file of version 2 or 3, is damaged, or has tensors
    of a kind that is not in KINDS.
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        metadata, places = read_header(data)
        return metadata, {name: _tensor(data, name, *place) for name, place in places.items()}
    except KeyError as error:
        raise ValueError(f"{path} cannot be read as a GGUF file (it has a value of the kind {error})") from None
    except (ValueError, TypeError, OverflowError, MemoryError, ZeroDivisionError) as error:
        raise ValueError(f"{path} cannot be read as a GGUF file ({first_line(error)})") from None


def _tensor(data: np.ndarray, name: str, shape: tuple[int, ...], number: int, first: int) -> GGUFTensor:
    if number not in KINDS:
        known = ", ".join(kind for kind, _, _ in KINDS.values())
        raise ValueError(f"{name} is of kind {number}; those that are read here are {known}")
    kind, per_block, size = KINDS[number]
    if not shape or shape[-1] % per_block:
        raise ValueError(f"{name} of shape {shape} is not made of whole blocks of {per_block}")
    last = first + math.prod(shape) // per_block * size
    if last > len(data):
        raise ValueError(f"{name} should end at byte {last}, and the file ends at byte {len(data)}")
    return GGUFTensor(shape, kind, data[first:last])


def read_q8_0(data: np.ndarray) -> np.ndarray:
    """Blocks of 34 bytes, a float16 scale and 32 whole numbers from -128 to 127, as float32: scale times number."""
    blocks = data.reshape(-1, 34)
    scale = blocks[:, :2].view(np.float16).astype(np.float32)  # (blocks, 1)
    return scale * blocks[:, 2:].view(np.int8)  # (blocks, 32)


def read_q4_1(data: np.ndarray) -> np.ndarray:
    """Blocks of 20 bytes, scale, minimum and 32 numbers from 0 to 15, as float32: scale times number plus minimum.

    Two numbers share a byte: its lower four bits are number i of the block, its upper four bits number i + 16.
    """
    blocks = data.reshape(-1, 20)
    scale = blocks[:, 0:2].view(np.float16).astype(np.float32)  # (blocks, 1)
    minimum = blocks[:, 2:4].view(np.float16).astype(np.float32)  # (blocks, 1)
    packed = blocks[:, 4:]  # (blocks, 16)
    numbers = np.concatenate((packed & 15, packed >> 4), axis=1)  # (blocks, 32)
    return scale * numbers + minimum


def dequantize(tensor: GGUFTensor) -> np.ndarray:
    """The numbers of a tensor of any kind in KINDS, in float32 and in its shape."""
    if tensor.kind in ("F32", "F16"):
        kind = np.float32 if tensor.kind == "F32" else np.float16
        numbers = tensor.data.view(kind).astype(np.float32)
    else:
        numbers = read_q8_0(tensor.data) if tensor.kind == "Q8_0" else read_q4_1(tensor.data)
    return numbers.reshape(tensor.shape)


def write_gguf(
    path: Path | str, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[str, Sequence[int], bytes]]
) -> None:
    """Write a GGUF file of version 3; `tensors` has for each name its kind, its shape and its bytes.

    For stand-ins and tests: whole numbers are written as uint32, lists have entries of one type. The file is written
    whole or not at all.
    """
    numbers = {name: number for number, (name, _, _) in KINDS.items()}
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for name, value in metadata.items():
        head += _text(name) + _value(value)
    offset = 0
    for name, (kind, shape, content) in tensors.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += struct.pack("<IQ", numbers[kind], offset)
        offset += -(-len(content) // 32) * 32

    def write(temporary: str) -> None:
        with Path(temporary).open("wb") as file:
            file.write(head + bytes(-len(head) % 32))
            for _, _, content in tensors.values():
                file.write(content)
                file.write(bytes(-len(content) % 32))

    write_whole(path, write)


def _text(text: str) -> bytes:
    content = text.encode("utf-8")
    return struct.pack("<Q", len(content)) + content


def _value(value: Any, with_kind: bool = True) -> bytes:
    """A value as the metadata has it, its kind before it."""
    if isinstance(value, list):
        kind, content = LIST, _value(value[0])[:4] + struct.pack("<Q", len(value))
        content += b"".join(_value(entry, with_kind=False) for entry in value)
    elif isinstance(value, str):
        kind, content = TEXT, _text(value)
    elif isinstance(value, bool):
        kind, content = 7, struct.pack("<?", value)
    elif isinstance(value, int):
        kind, content = 4, struct.pack("<I", value)
    else:
        kind, content = 6, struct.pack("<f", value)
    return struct.pack("<I", kind) * with_kind + content
