"""What several test files need: a tiny model and loaders of random windows."""

import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers import GPTModel, gpt_config

TINY = gpt_config(vocab_size=97, context_length=16, emb_dim=24, n_heads=3, n_layers=2, drop_rate=0.0)
CPU = torch.device("cpu")


def tiny_model(seed=1, tied=False, **changes):
    torch.manual_seed(seed)
    model = GPTModel({**TINY, **changes})
    if tied:
        model.out_head.weight = model.tok_emb.weight
    return model


def lively_model(seed=1, tied=False, **changes):
    """A tiny model with large weights, whose next tokens depend visibly on all that came before; no dropout."""
    model = tiny_model(seed, tied, **changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def windows(rows, tokens=8, seed=0, vocabulary=97):
    """Random windows: int64 inputs and targets (rows, tokens), the targets shifted by one."""
    ids = torch.randint(0, vocabulary, (rows, tokens + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def loader(rows=8, batch_size=2, shuffle=False, seed=0, **options):
    return DataLoader(TensorDataset(*windows(rows, seed=seed)), batch_size=batch_size, shuffle=shuffle, **options)
