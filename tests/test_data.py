"""Sliding windows: against a slow reference, on "The Verdict", and in the memory they take."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import helpers.data
from helpers import GPTDatasetV1, create_dataloader_v1, get_tokenizer, split_text

REPOSITORY = Path(__file__).parent.parent


class FakeTokenizer:
    """Reads "7" as the token ids 100, 101, ..., 106."""

    def encode(self, txt, allowed_special=frozenset()):
        assert "<|endoftext|>" in allowed_special
        return list(range(100, 100 + int(txt))) if txt else []


@pytest.fixture(name="fake")
def fake_gpt2_tokenizer(monkeypatch):
    monkeypatch.setattr(helpers.data, "get_tokenizer", lambda name="gpt2": FakeTokenizer())


def windows_slowly(ids, max_length, stride):
    """Every window that has a target for each of its tokens, as a list of (input, target) lists."""
    pairs = []
    for start in range(0, len(ids), stride):
        inputs, targets = ids[start : start + max_length], ids[start + 1 : start + 1 + max_length]
        if len(targets) == max_length:
            pairs.append((inputs, targets))
    return pairs


@pytest.fixture(name="verdict", scope="module")
def the_verdict():
    folders = [os.environ.get("COURSE_DATA_DIR"), REPOSITORY.parent / "shared" / "data"]
    for folder in filter(None, folders):
        path = Path(folder) / "the-verdict.txt"
        if path.exists():
            return path.read_text(encoding="utf-8")
    pytest.skip("the-verdict.txt is not here: name its folder in COURSE_DATA_DIR")


class TestWindows:
    @pytest.mark.parametrize(("n", "max_length"), list(itertools.product(range(0, 14), range(1, 7))))
    def test_agree_with_a_loop(self, n, max_length):
        for stride in range(1, 9):
            expected = windows_slowly(list(range(100, 100 + n)), max_length, stride)
            if not expected:
                with pytest.raises(ValueError, match=f"txt has {n} tokens; max_length={max_length}"):
                    GPTDatasetV1(str(n) if n else "", FakeTokenizer(), max_length, stride)
                continue
            dataset = GPTDatasetV1(str(n), FakeTokenizer(), max_length, stride)
            found = [
                (inputs.tolist(), targets.tolist()) for inputs, targets in (dataset[i] for i in range(len(dataset)))
            ]
            assert found == expected, f"stride={stride}"

    def test_item(self):
        dataset = GPTDatasetV1("9", FakeTokenizer(), max_length=4, stride=2)
        inputs, targets = dataset[1]
        assert inputs.shape == targets.shape == (4,)
        assert inputs.dtype == targets.dtype == torch.int64
        with pytest.raises(IndexError):
            dataset[len(dataset)]

    def test_end_of_text_is_read_as_a_token(self):
        dataset = GPTDatasetV1("one<|endoftext|>two", get_tokenizer(), max_length=1, stride=1)
        assert 50256 in dataset.target_ids

    @pytest.mark.parametrize(("max_length", "stride"), [(0, 1), (1, 0), (-1, 1), (1, -1)])
    def test_out_of_range(self, max_length, stride):
        with pytest.raises(ValueError, match=rf"max_length={max_length} and stride={stride} .* at least 1"):
            GPTDatasetV1("9", FakeTokenizer(), max_length, stride)


@pytest.mark.usefixtures("fake")
class TestLoader:
    @pytest.mark.parametrize(
        ("n", "batch_size", "max_length", "stride"),
        list(itertools.product((7, 12, 13), (1, 2, 3), (1, 3, 5), (1, 2, 4))),
    )
    def test_agrees_with_a_loop(self, n, batch_size, max_length, stride):
        pairs = windows_slowly(list(range(100, 100 + n)), max_length, stride)
        batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
        full = [batch for batch in batches if len(batch) == batch_size]
        for drop_last, expected in ((False, batches), (True, full)):
            options = {"batch_size": batch_size, "max_length": max_length, "stride": stride, "drop_last": drop_last}
            if not expected:
                with pytest.raises(ValueError, match=f"txt gives {len(pairs)} windows, .*batch_size={batch_size}"):
                    create_dataloader_v1(str(n), shuffle=False, **options)
                continue
            loader = create_dataloader_v1(str(n), shuffle=False, **options)
            assert len(loader) == len(expected)
            for (inputs, targets), batch in zip(loader, expected, strict=True):
                assert inputs.tolist() == [pair[0] for pair in batch]
                assert targets.tolist() == [pair[1] for pair in batch]

    def test_defaults(self):
        inputs, targets = next(iter(create_dataloader_v1("1000")))
        assert inputs.shape == targets.shape == (4, 256)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert len(create_dataloader_v1("1000")) == 1  # six windows: one batch of four, the other two dropped

    def test_shuffling_is_reproducible(self):
        def first_tokens(seed):
            torch.manual_seed(seed)
            loader = create_dataloader_v1("60", batch_size=5, max_length=4, stride=1)
            return torch.cat([inputs[:, 0] for inputs, _ in loader]).tolist()

        assert first_tokens(1) == first_tokens(1)
        assert first_tokens(1) != first_tokens(2)
        assert sorted(first_tokens(1)) != first_tokens(1)
        assert len(set(first_tokens(1))) == 55  # 56 windows in eleven full batches, none of them twice

    def test_drop_last(self):
        kept = list(create_dataloader_v1("10", batch_size=4, max_length=3, stride=1, shuffle=False, drop_last=False))
        dropped = list(create_dataloader_v1("10", batch_size=4, max_length=3, stride=1, shuffle=False))
        assert [len(inputs) for inputs, _ in kept] == [4, 3]
        assert [len(inputs) for inputs, _ in dropped] == [4]

    def test_workers_give_the_same_batches(self):
        options = {"batch_size": 3, "max_length": 4, "stride": 2, "shuffle": False}
        alone = list(create_dataloader_v1("40", **options))
        helped = list(create_dataloader_v1("40", num_workers=2, **options))
        assert len(alone) == len(helped) > 2
        for (inputs, targets), (other_inputs, other_targets) in zip(alone, helped, strict=True):
            assert torch.equal(inputs, other_inputs)
            assert torch.equal(targets, other_targets)

    @pytest.mark.parametrize(
        ("txt", "options", "message"),
        [
            ("", {}, "txt has 0 tokens"),
            ("4", {"max_length": 4}, "txt has 4 tokens; max_length=4 needs at least one more"),
            ("9", {"max_length": 0}, "max_length=0"),
            ("9", {"stride": 0}, "stride=0"),
            ("9", {"batch_size": 0}, "batch_size"),
            ("9", {"batch_size": 0, "drop_last": False}, "batch_size"),
            ("9", {"batch_size": 6}, "txt gives 5 windows, fewer than batch_size=6"),
        ],
    )
    def test_bad_inputs(self, txt, options, message):
        with pytest.raises(ValueError, match=message):
            create_dataloader_v1(txt, **{"batch_size": 1, "max_length": 4, "stride": 1, **options})


class TestTheVerdict:
    def test_tokens(self, verdict):
        assert len(verdict) == 20479
        assert len(get_tokenizer().encode(verdict)) == 5145
        words = split_text(verdict)
        assert len(words) == 4690
        assert len(set(words)) == 1130

    def test_rows_of_exercise_2_2(self, verdict):
        inputs, _ = next(iter(create_dataloader_v1(verdict, 4, max_length=2, stride=2, shuffle=False)))
        assert inputs.tolist() == [[40, 367], [2885, 1464], [1807, 3619], [402, 271]]
        inputs, targets = next(iter(create_dataloader_v1(verdict, 4, max_length=8, stride=2, shuffle=False)))
        assert inputs[0].tolist() == [40, 367, 2885, 1464, 1807, 3619, 402, 271]
        assert inputs[1, :6].tolist() == inputs[0, 2:].tolist()
        assert targets[0, :7].tolist() == inputs[0, 1:].tolist()

    def test_split_of_chapter_5(self, verdict):
        cut = int(0.9 * len(verdict))
        sizes = [
            len(create_dataloader_v1(text, 2, max_length=256, stride=256, drop_last=drop_last, shuffle=drop_last))
            for text, drop_last in ((verdict[:cut], True), (verdict[cut:], False))
        ]
        assert sizes == [9, 1]


def storage_bytes(dataset):
    """The bytes of all memory that the dataset's tensors share or own, each counted once."""
    tensors = [value for value in vars(dataset).values() if isinstance(value, torch.Tensor)]
    for value in vars(dataset).values():
        if isinstance(value, (list, tuple)):
            tensors += [item for item in value if isinstance(item, torch.Tensor)]
    assert tensors
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


MEASURE = """
import helpers.data

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024

class Million:
    ids = list(range(1_000_000))

    def encode(self, txt, allowed_special):
        return self.ids

helpers.data.get_tokenizer = lambda name="gpt2": Million()
options = {"batch_size": 4, "max_length": 256, "stride": 1, "shuffle": False}
Million.ids, ids = Million.ids[:1000], Million.ids
next(iter(helpers.data.create_dataloader_v1("", **options)))  # what is loaded on first use is not the dataset's
Million.ids = ids
before = resident()
loader = helpers.data.create_dataloader_v1("", **options)
for number, batch in enumerate(loader):
    if number == 1000:
        break
print(len(loader.dataset), resident() - before)
"""


class TestMemory:
    def test_windows_are_views(self):
        dataset = GPTDatasetV1("50", FakeTokenizer(), max_length=8, stride=1)
        pointers = {dataset[i][j].untyped_storage().data_ptr() for i in range(len(dataset)) for j in range(2)}
        assert len(pointers) == 1

    def test_a_million_tokens_take_8_bytes_each(self):
        dataset = GPTDatasetV1("1000000", FakeTokenizer(), max_length=256, stride=1)
        assert len(dataset) == 1_000_000 - 256
        assert storage_bytes(dataset) <= 20e6
        assert dataset[len(dataset) - 1][1][-1] == 100 + 999_999

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory from Linux's /proc")
    def test_a_million_tokens_add_little_resident_memory(self):
        result = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=120)
        assert result.stderr == ""
        windows, added = map(int, result.stdout.split())
        assert windows == 1_000_000 - 256
        assert added <= 20e6
