"""GGUF files: what is read is what the `gguf` package reads, and damaged or hostile files end in a sentence."""

from __future__ import annotations

import random
import struct

import gguf
import numpy as np
import pytest
from gguf import quants

from helpers.gguf import KINDS, Bytes, dequantize, read_gguf, read_header, read_q4_1, read_q8_0, write_gguf
from helpers.smollm2 import find_smollm2

SMOLLM2 = find_smollm2()
NUMBERS = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)


@pytest.mark.parametrize(("name", "ours"), [("Q4_1", read_q4_1), ("Q8_0", read_q8_0)])
def test_blocks(name, ours):
    kind = gguf.GGMLQuantizationType[name]
    packed = quants.quantize(NUMBERS, kind)
    assert packed.size == NUMBERS.size // 32 * KINDS[kind.value][2]
    expected = quants.dequantize(packed, kind)
    np.testing.assert_array_equal(ours(packed).reshape(NUMBERS.shape), expected)
    assert np.abs(expected - NUMBERS).max() < (0.2 if name == "Q4_1" else 0.02)


def test_a_block_by_hand():
    half = np.array([0.5, -1.0], dtype=np.float16).tobytes()
    block = np.frombuffer(half + bytes([0x2F] + 15 * [0x00]), dtype=np.uint8)
    numbers = read_q4_1(block)[0]
    assert numbers[0] == 0.5 * 15 - 1 and numbers[16] == 0.5 * 2 - 1 and set(numbers[1:16]) == {-1.0}
    block = np.frombuffer(half[:2] + np.array([-128, 127] + 30 * [0], dtype=np.int8).tobytes(), dtype=np.uint8)
    assert read_q8_0(block)[0, :3].tolist() == [-64.0, 63.5, 0.0]


VALUES = {
    "a.text": "häuser 🏠",
    "a.number": 4_000_000_000,
    "a.float": 0.5,
    "yes": True,
    "some.texts": ["a", "", "c"],
    "some.numbers": [1, 2, 3],
}


def write_with_the_package(path):
    """A file by the package's own writer, with values and tensors of every kind that is read here."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("a.text", VALUES["a.text"])
    writer.add_uint32("a.number", VALUES["a.number"])
    writer.add_float32("a.float", VALUES["a.float"])
    writer.add_bool("yes", True)
    writer.add_array("some.texts", VALUES["some.texts"])
    writer.add_array("some.numbers", VALUES["some.numbers"])
    writer.add_int64("small", -5)
    writer.add_float64("double", 0.1)
    writer.add_tensor("plain", NUMBERS)
    writer.add_tensor("half", NUMBERS.astype(np.float16))
    for name in ("Q4_1", "Q8_0"):
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(name, quants.quantize(NUMBERS, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_that_the_package_wrote(tmp_path):
    metadata, tensors = read_gguf(write_with_the_package(tmp_path / "a.gguf"))
    assert {name: metadata[name] for name in VALUES} == VALUES
    assert (metadata["small"], metadata["double"], metadata["general.architecture"]) == (-5, 0.1, "llama")
    assert {name: (tensor.shape, tensor.kind) for name, tensor in tensors.items()} == {
        "plain": ((6, 64), "F32"),
        "half": ((6, 64), "F16"),
        "Q4_1": ((6, 64), "Q4_1"),
        "Q8_0": ((6, 64), "Q8_0"),
    }
    np.testing.assert_array_equal(dequantize(tensors["plain"]), NUMBERS)
    np.testing.assert_array_equal(dequantize(tensors["half"]), NUMBERS.astype(np.float16).astype(np.float32))
    for name in ("Q4_1", "Q8_0"):
        kind = gguf.GGMLQuantizationType[name]
        np.testing.assert_array_equal(
            dequantize(tensors[name]), quants.dequantize(quants.quantize(NUMBERS, kind), kind)
        )


def test_the_package_reads_what_is_written_here(tmp_path):
    content = quants.quantize(NUMBERS, gguf.GGMLQuantizationType.Q8_0).tobytes()
    tensors = {"odd": ("F32", (3,), np.arange(3, dtype=np.float32).tobytes()), "blocks": ("Q8_0", (6, 64), content)}
    write_gguf(tmp_path / "b.gguf", VALUES, tensors)
    reader = gguf.GGUFReader(tmp_path / "b.gguf")
    read = {tensor.name: quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    assert read["odd"].tolist() == [0.0, 1.0, 2.0]
    np.testing.assert_array_equal(read["blocks"], dequantize(read_gguf(tmp_path / "b.gguf")[1]["blocks"]))
    assert reader.fields["some.texts"].contents() == VALUES["some.texts"]
    assert {name: read_gguf(tmp_path / "b.gguf")[0][name] for name in VALUES} == VALUES


def test_it_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    tensors = {"a": ("F32", (1,), np.float32(2).tobytes())}
    write_gguf("~/new/c.gguf", VALUES, tensors)
    path = tmp_path / "new" / "c.gguf"
    whole = path.read_bytes()
    with pytest.raises(TypeError):
        write_gguf(path, VALUES, {**tensors, "b": ("F32", (1,), ["no bytes"])})
    assert path.read_bytes() == whole and list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(SMOLLM2 is None, reason="SmolLM2's file is not on this machine: python -m helpers.smollm2")
def test_every_tensor_of_smollm2():
    reader = gguf.GGUFReader(SMOLLM2)
    metadata, tensors = read_gguf(SMOLLM2)
    assert list(tensors) == [tensor.name for tensor in reader.tensors] and len(tensors) == 272
    for tensor in reader.tensors:
        expected = quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(dequantize(tensors[tensor.name]), expected)
    for name in ("tokenizer.chat_template", "llama.rope.freq_base", "tokenizer.ggml.merges"):
        assert metadata[name] == reader.fields[name].contents()


def test_cut_anywhere(tmp_path):
    """A file that ends early is refused wherever it ends: in the header, the metadata, the tensors."""
    whole = write_with_the_package(tmp_path / "a.gguf").read_bytes()
    path, rng = tmp_path / "cut.gguf", random.Random(0)
    for end in [0, 3, 4, 8, 20, 24, *rng.sample(range(24, len(whole) - 40), 60)]:
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"cut\.gguf cannot be read as a GGUF file \("):
            read_gguf(path)


def test_a_byte_changed_anywhere(tmp_path):
    """It is read, or refused in a sentence; nothing else."""
    whole = write_with_the_package(tmp_path / "a.gguf").read_bytes()
    path, rng = tmp_path / "changed.gguf", random.Random(0)
    refused = 0
    for _ in range(300):
        place = rng.randrange(1000)
        path.write_bytes(whole[:place] + bytes([rng.randrange(256)]) + whole[place + 1 :])
        try:
            read_gguf(path)
        except ValueError as error:
            assert str(error).startswith(f"{path} cannot be read as a GGUF file (")
            refused += 1
    assert refused > 50


HEAD = b"GGUF" + struct.pack("<I", 3)
LIST_OF_LISTS = struct.pack("<IQ", 9, 1) * 3000
TENSOR = struct.pack("<Q", 1) + b"t"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no model at all", "does not begin as a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "does not begin as a GGUF file"),
        (HEAD + struct.pack("<QQ", 0, 2**60), "ends in the middle"),
        (HEAD + struct.pack("<QQ", 2**60, 0), "ends in the middle"),
        (HEAD + struct.pack("<QQQ", 0, 1, 2**62), "ends in the middle"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 2**50), "ends in the middle"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<I", 77), "a value of the kind 77"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<I", 9) + LIST_OF_LISTS, "nested too deeply"),
        (HEAD + struct.pack("<QQ", 1, 0) + TENSOR + struct.pack("<IQIQ", 1, 4, 2, 0), "t is of kind 2; those that are"),
        (HEAD + struct.pack("<QQ", 1, 0) + TENSOR + struct.pack("<IQIQ", 1, 2**40, 0, 0), "should end at byte"),
        (HEAD + struct.pack("<QQ", 1, 0) + TENSOR + struct.pack("<IQIQ", 1, 33, 8, 0), "not made of whole blocks"),
        (HEAD + struct.pack("<QQ", 1, 0) + TENSOR + struct.pack("<IIQ", 0, 0, 0), "not made of whole blocks"),
    ],
)
def test_hostile_files(tmp_path, content, message):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_gguf(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_gguf(tmp_path / "none.gguf")


def test_bytes():
    reader = Bytes(struct.pack("<Q", 2) + b"hi" + struct.pack("<I", 7))
    assert (reader.text(), reader.number("I")) == ("hi", 7)
    with pytest.raises(ValueError, match="ends in the middle"):
        reader.take(1)
    with pytest.raises(ValueError, match="does not begin"):
        read_header(b"GGML" + bytes(20))
