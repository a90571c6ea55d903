"""Sliding windows: against a slow reference, on "The Verdict", and in the memory they take."""

import gc
import itertools

import pytest
import torch

import helpers.data
from helpers import GPTDatasetV1, create_dataloader_v1, get_tokenizer, split_text
from tests.fakes import Letters


def text(count):
    """A text that `Letters` reads as the token ids 0, 1, ..., 96, 0, 1, ..."""
    return "".join(chr(97 + number % 97) for number in range(count))


@pytest.fixture(name="fake")
def fake_gpt2_tokenizer(monkeypatch):
    monkeypatch.setattr(helpers.data, "get_tokenizer", lambda name="gpt2": Letters())


def windows_slowly(ids, max_length, stride):
    """Every window that has a target for each of its tokens, as a list of (input, target) lists."""
    pairs = []
    for start in range(0, len(ids), stride):
        inputs, targets = ids[start : start + max_length], ids[start + 1 : start + 1 + max_length]
        if len(targets) == max_length:
            pairs.append((inputs, targets))
    return pairs


class TestWindows:
    @pytest.mark.parametrize(("n", "max_length"), list(itertools.product(range(0, 14), range(1, 7))))
    def test_agree_with_a_loop(self, n, max_length):
        for stride in range(1, 9):
            expected = windows_slowly(list(range(n)), max_length, stride)
            if not expected:
                with pytest.raises(ValueError, match=f"txt has {n} tokens; max_length={max_length}"):
                    GPTDatasetV1(text(n), Letters(), max_length, stride)
                continue
            dataset = GPTDatasetV1(text(n), Letters(), max_length, stride)
            found = [
                (inputs.tolist(), targets.tolist()) for inputs, targets in (dataset[i] for i in range(len(dataset)))
            ]
            assert found == expected, f"stride={stride}"

    def test_item(self):
        dataset = GPTDatasetV1(text(9), Letters(), max_length=4, stride=2)
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
            GPTDatasetV1(text(9), Letters(), max_length, stride)


@pytest.mark.usefixtures("fake")
class TestLoader:
    @pytest.mark.parametrize(
        ("n", "batch_size", "max_length", "stride"),
        list(itertools.product((7, 12, 13), (1, 2, 3), (1, 3, 5), (1, 2, 4))),
    )
    def test_agrees_with_a_loop(self, n, batch_size, max_length, stride):
        pairs = windows_slowly(list(range(n)), max_length, stride)
        batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
        full = [batch for batch in batches if len(batch) == batch_size]
        for drop_last, expected in ((False, batches), (True, full)):
            options = {"batch_size": batch_size, "max_length": max_length, "stride": stride, "drop_last": drop_last}
            if not expected:
                with pytest.raises(ValueError, match=f"txt gives {len(pairs)} windows, .*batch_size={batch_size}"):
                    create_dataloader_v1(text(n), shuffle=False, **options)
                continue
            loader = create_dataloader_v1(text(n), shuffle=False, **options)
            assert len(loader) == len(expected)
            for (inputs, targets), batch in zip(loader, expected, strict=True):
                assert inputs.tolist() == [pair[0] for pair in batch]
                assert targets.tolist() == [pair[1] for pair in batch]

    def test_defaults(self):
        inputs, targets = next(iter(create_dataloader_v1(text(1000))))
        assert inputs.shape == targets.shape == (4, 256)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert len(create_dataloader_v1(text(1000))) == 1  # six windows: one batch of four, the other two dropped

    def test_shuffling_is_reproducible(self):
        def first_tokens(seed):
            torch.manual_seed(seed)
            loader = create_dataloader_v1(text(60), batch_size=5, max_length=4, stride=1)
            return torch.cat([inputs[:, 0] for inputs, _ in loader]).tolist()

        assert first_tokens(1) == first_tokens(1)
        assert first_tokens(1) != first_tokens(2)
        assert sorted(first_tokens(1)) != first_tokens(1)
        assert len(set(first_tokens(1))) == 55  # 56 windows in eleven full batches, none of them twice

    def test_drop_last(self):
        kept = list(
            create_dataloader_v1(text(10), batch_size=4, max_length=3, stride=1, shuffle=False, drop_last=False)
        )
        dropped = list(create_dataloader_v1(text(10), batch_size=4, max_length=3, stride=1, shuffle=False))
        assert [len(inputs) for inputs, _ in kept] == [4, 3]
        assert [len(inputs) for inputs, _ in dropped] == [4]

    def test_workers_give_the_same_batches(self):
        options = {"batch_size": 3, "max_length": 4, "stride": 2, "shuffle": False}
        alone = list(create_dataloader_v1(text(40), **options))
        helped = list(create_dataloader_v1(text(40), num_workers=2, **options))
        assert len(alone) == len(helped) > 2
        for (inputs, targets), (other_inputs, other_targets) in zip(alone, helped, strict=True):
            assert torch.equal(inputs, other_inputs)
            assert torch.equal(targets, other_targets)

    @pytest.mark.parametrize(
        ("count", "options", "message"),
        [
            (0, {}, "txt has 0 tokens"),
            (4, {"max_length": 4}, "txt has 4 tokens; max_length=4 needs at least one more"),
            (9, {"max_length": 0}, "max_length=0"),
            (9, {"stride": 0}, "stride=0"),
            (9, {"batch_size": 0}, "batch_size"),
            (9, {"batch_size": 0, "drop_last": False}, "batch_size"),
            (9, {"batch_size": 6}, "txt gives 5 windows, fewer than batch_size=6"),
        ],
    )
    def test_bad_inputs(self, count, options, message):
        with pytest.raises(ValueError, match=message):
            create_dataloader_v1(text(count), **{"batch_size": 1, "max_length": 4, "stride": 1, **options})


class TestTheVerdict:
    def test_tokens(self, the_verdict):
        assert len(the_verdict) == 20479
        assert len(get_tokenizer().encode(the_verdict)) == 5145
        words = split_text(the_verdict)
        assert len(words) == 4690
        assert len(set(words)) == 1130

    def test_rows_of_exercise_2_2(self, the_verdict):
        inputs, _ = next(iter(create_dataloader_v1(the_verdict, 4, max_length=2, stride=2, shuffle=False)))
        assert inputs.tolist() == [[40, 367], [2885, 1464], [1807, 3619], [402, 271]]
        inputs, targets = next(iter(create_dataloader_v1(the_verdict, 4, max_length=8, stride=2, shuffle=False)))
        assert inputs[0].tolist() == [40, 367, 2885, 1464, 1807, 3619, 402, 271]
        assert inputs[1, :6].tolist() == inputs[0, 2:].tolist()
        assert targets[0, :7].tolist() == inputs[0, 1:].tolist()

    def test_split_of_chapter_5(self, the_verdict):
        cut = int(0.9 * len(the_verdict))
        sizes = [
            len(create_dataloader_v1(part, 2, max_length=256, stride=256, drop_last=drop_last, shuffle=drop_last))
            for part, drop_last in ((the_verdict[:cut], True), (the_verdict[cut:], False))
        ]
        assert sizes == [9, 1]


class TestMemory:
    def test_windows_are_views(self):
        dataset = GPTDatasetV1(text(50), Letters(), max_length=8, stride=1)
        pointers = {dataset[i][j].untyped_storage().data_ptr() for i in range(len(dataset)) for j in range(2)}
        assert len(pointers) == 1

    @pytest.mark.usefixtures("fake")
    def test_a_million_tokens_take_8_bytes_each(self):
        """All that a loader keeps after a thousand batches: a copy of every window would take 4 GB."""
        before = tensor_bytes()
        loader = create_dataloader_v1("a" * 1_000_000, batch_size=4, max_length=256, stride=1, shuffle=False)
        assert len(loader.dataset) == 1_000_000 - 256
        for _ in zip(range(1000), loader, strict=False):
            pass
        assert 8_000_000 <= tensor_bytes() - before < 8_100_000


def tensor_bytes():
    """The bytes of all memory that tensors share or own in this process, each counted once."""
    storages = [item.untyped_storage() for item in gc.get_objects() if type(item) is torch.Tensor]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
