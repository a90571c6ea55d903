"""The loader of chapter 2 beside a dataset that keeps a tensor for every window, as the book builds it."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import _measure
from helpers import create_dataloader_v1, get_tokenizer, load_text

COPIES, BATCH, LENGTH, EPOCHS = 20, 8, 256, 5


class ListDataset(Dataset):
    """Every window as two tensors of its own."""

    def __init__(self, text: str, stride: int):
        ids = get_tokenizer("gpt2").encode(text, allowed_special={"<|endoftext|>"})
        starts = range(0, len(ids) - LENGTH, stride)
        self.pairs = [(torch.tensor(ids[i : i + LENGTH]), torch.tensor(ids[i + 1 : i + LENGTH + 1])) for i in starts]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pairs[index]


def epochs(loader: DataLoader) -> None:
    for _ in range(EPOCHS):
        for _ in loader:
            pass


def run(rounds: int = 3, copies: int = COPIES) -> str:
    """Measure on the story `copies` times over, and return the section for RESULTS.md."""
    text = load_text("story") * copies
    rows = []
    for stride in (LENGTH, 4):

        def theirs(stride: int = stride) -> DataLoader:
            return DataLoader(ListDataset(text, stride), batch_size=BATCH, shuffle=True, drop_last=True)

        def ours(stride: int = stride) -> DataLoader:
            return create_dataloader_v1(text, batch_size=BATCH, max_length=LENGTH, stride=stride)

        built = {"a tensor per window": theirs(), "`create_dataloader_v1`": ours()}
        build = _measure.race(dict(zip(built, (theirs, ours), strict=True)), rounds, warm_up=False)
        epoch = _measure.race({name: lambda it=it: epochs(it) for name, it in built.items()}, rounds)
        peer, own = built
        tokens = EPOCHS * len(built[peer]) * BATCH * LENGTH
        kept = {
            peer: sum(2 * x.nbytes for x, _ in built[peer].dataset.pairs),
            own: built[own].dataset.input_ids.untyped_storage().nbytes(),
        }
        for name in built:
            seconds = _measure.best(epoch[name])
            speed, build_time = _measure.best(epoch[peer]) / seconds, _measure.best(build[name])
            numbers = (f"{build_time:.2f}", f"{tokens / seconds:,.0f}", f"{speed:.2f}", f"{kept[name] / 1e6:,.1f}")
            rows.append((stride, name, *numbers))
    header = ("stride", "", "seconds to build", "tokens/s", "ratio", "MB of token ids")
    return (
        f"## Loader\n\nThe embedded story {copies} times over, windows of {LENGTH} tokens in batches of {BATCH}, "
        f"shuffled; building includes tokenizing; {rounds} rounds, best times.\n\n{_measure.table(header, rows)}"
    )


if __name__ == "__main__":
    print(_measure.machine(), run(), sep="\n\n")
