"""Checkers for appendix E."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...gpt import GPTModel, gpt_config
from ...lora import lora_layers, replace_linear_with_lora
from ._core import (
    AnswerError,
    Hint,
    all_agree,
    copies,
    exercise,
    expect,
    expect_close,
    explained,
    read_integer,
    read_number,
    read_parts,
    read_tensor,
    same,
    self_test,
)

_ABOUT_SHAPES = "shape|size"  # in PyTorch's messages


def _untouched(given: Sequence, before: Sequence) -> None:
    """Raise `Hint` if one of the tensors that were handed in has changed."""
    for a, b in zip(given, before, strict=True):
        kept = not isinstance(a, torch.Tensor) or torch.equal(a, b)
        expect(kept, "A tensor that was handed in has changed. Make a new one.")


def _target(generator: torch.Generator, d_in: int, d_out: int) -> torch.Tensor:
    """A matrix whose singular values fall by a third each, so that its best copies are easy to tell apart."""
    size = min(d_in, d_out)
    u = torch.linalg.qr(torch.randn(d_in, size, generator=generator))[0]
    v = torch.linalg.qr(torch.randn(d_out, size, generator=generator))[0]
    return u * 3 * 0.65 ** torch.arange(size) @ v.T


@exercise("E.1", "low_rank_copy(target, rank)")
def exercise_e_1(answer: Callable[..., tuple]) -> str:
    """Check `low_rank_copy(target, rank)`, which returns A (d_in, rank) and B (rank, d_out)."""
    generator = torch.Generator().manual_seed(4)
    for d_in, d_out, rank in ((7, 5, 2), (5, 8, 1), (6, 6, 3)):
        target = _target(generator, d_in, d_out)
        case = f"With a target of shape ({d_in}, {d_out}) and rank={rank}:"
        given = target.clone()
        with explained(RuntimeError, f"{case} A has as many rows as the target, B as many columns.", _ABOUT_SHAPES):
            got = answer(given, rank)
        _untouched([given], [target])
        parts = read_parts(got, 2, f"{case} A and B are expected, as a tuple of two tensors.")
        a, b = (read_tensor(part, f"{case} A tensor") for part in parts)
        shapes = tuple(a.shape), tuple(b.shape)
        expected = (d_in, rank), (rank, d_out)
        expect(
            shapes == expected,
            f"{case} A has shape {shapes[0]} and B {shapes[1]}; {expected[0]} and {expected[1]} are expected.",
        )
        left = float((target.double() - a @ b).square().sum() / target.square().sum())
        values = torch.linalg.svdvals(target).square()
        best = float(values[rank:].sum() / values.sum())
        expect(left == left, f"{case} there are NaNs in A or B. Is the learning rate too high?")
        expect(
            bool((a @ b).any()),
            f"{case} your A B is zero. Section E.1.3 says what happens if both A and B begin at zero.",
        )
        expect(left < 1, f"{case} your copy is further from the target than a matrix of zeros. Does the loss fall?")
        expect(
            left <= best + 0.01,
            f"{case} your copy leaves {left:.0%} of the target's squared length, and {best:.0%} is possible. Look at "
            "the loss while it falls: more updates, or another learning rate?",
        )
    return (
        "Your copy is as near to the target as a matrix of that rank can be, though nobody told the training how. "
        "Section E.4.7 computes the same copy without training."
    )


def _lora_forward(x, weight, bias, A, B, alpha) -> torch.Tensor:
    return x @ weight.T + bias + alpha / A.shape[1] * (x @ A @ B)


# What known mistakes in E.2 give, each with its hint.
_FORWARD_SLIPS = (
    (
        lambda x, weight, bias, A, B, alpha: x @ weight.T + bias + alpha * (x @ A @ B),
        "The product is scaled by alpha alone. What divides it?",
    ),
    (lambda x, weight, bias, A, B, alpha: x @ weight.T + bias + x @ A @ B, "The product is not scaled."),
    (
        lambda x, weight, bias, A, B, alpha: x @ weight.T + bias + alpha / len(A) * (x @ A @ B),
        "The product is scaled by alpha / d_in. The rank is the number of columns of A.",
    ),
    (lambda x, weight, bias, A, B, alpha: alpha / A.shape[1] * (x @ A @ B), "The linear layer's part is missing."),
    (lambda x, weight, bias, A, B, alpha: x @ weight.T + alpha / A.shape[1] * (x @ A @ B), "The bias is missing."),
    (lambda x, weight, bias, A, B, alpha: x @ weight.T + bias, "That is the linear layer's output alone."),
    (
        lambda x, weight, bias, A, B, alpha: alpha / A.shape[1] * (x @ weight.T + bias + x @ A @ B),
        "The output of the linear layer is scaled as well.",
    ),
)


@exercise("E.2", "lora_forward(x, weight, bias, A, B, alpha)")
def exercise_e_2(answer: Callable[..., torch.Tensor]) -> str:
    """Check `lora_forward(x, weight, bias, A, B, alpha)`, with weight (d_out, d_in) as in `nn.Linear`."""
    generator = torch.Generator().manual_seed(5)
    cases, names, results = [], [], []
    for d_in, d_out, rank, alpha in ((5, 3, 2, 8.0), (3, 6, 1, 0.5), (4, 4, 2, 3.0), (6, 6, 4, 2.0)):
        shapes = ((2, 3, d_in), (d_out, d_in), (d_out,), (d_in, rank), (rank, d_out))
        case = [*(torch.randn(shape, generator=generator) for shape in shapes), alpha]
        given, name = copies(case), f"With d_in={d_in}, d_out={d_out}, rank={rank}, alpha={alpha:g}:"
        with explained(RuntimeError, f"{name} nn.Linear keeps its weight as (d_out, d_in).", _ABOUT_SHAPES):
            got = answer(*given)
        results.append(read_tensor(got, f"{name} A tensor"))
        _untouched(given, case)
        cases.append(case)
        names.append(name)
    expected = [_lora_forward(*case) for case in cases]
    slips = (((slip(*case) for case in cases), hint) for slip, hint in _FORWARD_SLIPS)
    if not all_agree(results, expected, slips):
        flipped = [_lora_forward(x, weight.T, *rest) for x, weight, *rest in cases[2:]]
        hint = "In the square layers weight lies the wrong way round: nn.Linear keeps it as (d_out, d_in)."
        expect(not all_agree(results[2:], flipped), hint)
    for name, got, right in zip(names, results, expected, strict=True):
        expect_close(got, right, name)
    return (
        "Two paths from the same input, one through the frozen weight and its bias, one through r numbers, scaled by "
        "alpha / r. Whether the product is taken as (x A) B or as x (A B) is the same, but the first is less work."
    )


def _small_gpt(seed: int, emb_dim: int = 12, n_layers: int = 2, classes: int = 2) -> GPTModel:
    """A GPT with a new output layer, its weights drawn from a seed."""
    torch.default_generator.manual_seed(seed)
    config = gpt_config(vocab_size=31, context_length=8, emb_dim=emb_dim, n_heads=2, n_layers=n_layers, drop_rate=0.0)
    model = GPTModel(config)
    model.out_head = torch.nn.Linear(emb_dim, classes)
    return model.eval()


def _prepared(targets: str | None = "trf_blocks", freeze: bool = True, late: bool = False) -> GPTModel:
    """A model with LoRA in its blocks (or everywhere), frozen before, after (`late`) or not at all."""
    model = _small_gpt(1).requires_grad_(not freeze)
    replace_linear_with_lora(model, 2, 2, targets)
    if late:
        model.requires_grad_(False)
    model.out_head.requires_grad_(targets is not None)
    if targets is None:
        model.out_head.lora.requires_grad_(True)
    return model


def _stir(model: GPTModel, part: str = "B", number: int | None = None) -> GPTModel:
    """Give the `part` of one LoRA layer, or of all, numbers; the other part stays."""
    layers = list(lora_layers(model).values())
    for layer in layers if number is None else layers[number : number + 1]:
        torch.nn.init.normal_(getattr(layer.lora, part))
    return model


def _zero(model: GPTModel, number: int) -> GPTModel:
    torch.nn.init.zeros_(list(lora_layers(model).values())[number].lora.A)
    return model


def _thaw(model: GPTModel, name: str, on: bool = True) -> GPTModel:
    model.get_parameter(name).requires_grad_(on)
    return model


# What the model is, how it is made, and the conditions that it does not meet.
_MODELS = (
    ("a model that is ready", lambda: _prepared(), []),
    ("a model that was frozen after LoRA had been added", lambda: _prepared(late=True), [1]),
    ("a model that was never frozen", lambda: _prepared(freeze=False), [2]),
    ("a model in which every B has been drawn at random", lambda: _stir(_prepared()), [3]),
    ("a model in which one A has been set to zero", lambda: _zero(_prepared(), 3), [4]),
    ("a model whose one A is zero and whose B there is not", lambda: _stir(_zero(_prepared(), 3), "B", 3), []),
    ("a model in which one LayerNorm is trained, too", lambda: _thaw(_prepared(), "final_norm.scale"), [2]),
    (
        "a model in which the bias of one layer beside LoRA is trained, too",
        lambda: _thaw(_prepared(), "trf_blocks.1.ff.layers.0.linear.bias"),
        [2],
    ),
    ("a model with a trained output layer and without LoRA", lambda: _head_only(), [1]),
    (
        "a model in which one B is frozen",
        lambda: _thaw(_prepared(), "trf_blocks.0.att.W_query.lora.B", on=False),
        [1],
    ),
    ("a model with LoRA beside its output layer as well", lambda: _prepared(targets=None), []),
    (
        "a model that was never frozen and in which one B is not zero",
        lambda: _stir(_prepared(freeze=False), "B", 5),
        [2, 3],
    ),
)


def _head_only() -> GPTModel:
    model = _small_gpt(2).requires_grad_(False)
    model.out_head.requires_grad_(True)
    return model


@exercise("E.3", "unmet(model)")
def exercise_e_3(answer: Callable[[GPTModel], Sequence[int]]) -> str:
    """Check `unmet(model)`, the numbers of the conditions that a model prepared for LoRA does not meet."""
    for what, make, expected in _MODELS:
        model = make()
        before = [(parameter.requires_grad, parameter.detach().clone()) for parameter in model.parameters()]
        got = answer(model)
        got = got.tolist() if hasattr(got, "tolist") else got
        expect(isinstance(got, list | tuple | set), f"A list of numbers is expected, not {type(got).__name__}.")
        numbers = sorted(read_integer(number, "Each entry of the list") for number in got)
        after = [(parameter.requires_grad, parameter) for parameter in model.parameters()]
        kept = len(before) == len(after) and all(
            old == new and torch.equal(a, b) for (old, a), (new, b) in zip(before, after, strict=True)
        )
        expect(kept, f"For {what}: your function has changed the model. It is only to look at it.")
        missed = [number for number in expected if number not in numbers]
        too_many = [number for number in numbers if number not in expected]
        expect(
            not missed, f"For {what} you return {list(got)}: condition {missed[:1]} is not met and you do not say so."
        )
        expect(not too_many, f"For {what} you return {list(got)}: condition {too_many[:1]} is met.")
    return (
        "None of these faults raises an error: the training runs, and trains too much, too little or from another "
        "start. A dozen lines that look at the model before the first update find them all."
    )


@exercise("E.4", "join(A1, B1, alpha1, A2, B2, alpha2)")
def exercise_e_4(answer: Callable[..., tuple]) -> str:
    """Check `join(A1, B1, alpha1, A2, B2, alpha2)`, which returns A, B and alpha of the two in one."""
    generator = torch.Generator().manual_seed(7)
    for d_in, d_out, r1, alpha1, r2, alpha2 in ((4, 6, 2, 8.0, 2, 1.0), (5, 3, 2, 4.0, 1, 0.5), (4, 4, 3, 3.0, 2, 5.0)):
        shapes = ((d_in, r1), (r1, d_out), (d_in, r2), (r2, d_out))
        a1, b1, a2, b2 = (torch.randn(shape, generator=generator) for shape in shapes)
        case = f"With ranks {r1} and {r2}, alphas {alpha1:g} and {alpha2:g}:"
        before = [a1, b1, alpha1, a2, b2, alpha2]
        given = copies(before)
        with explained(RuntimeError, f"{case} A1 and A2 have equally many rows, B1 and B2 columns.", _ABOUT_SHAPES):
            got = answer(*given)
        _untouched(given, before)
        parts = read_parts(got, 3, f"{case} A, B and alpha are expected, as a tuple.")
        a, b, alpha = (*(read_tensor(part, f"{case} A tensor") for part in parts[:2]), read_number(parts[2], "alpha"))
        rank, expected = r1 + r2, (d_in, r1 + r2)
        expect(
            tuple(a.shape) == expected and tuple(b.shape) == (rank, d_out),
            f"{case} A has shape {tuple(a.shape)} and B {tuple(b.shape)}; {expected} and {(rank, d_out)} are expected.",
        )
        result = alpha / rank * (a @ b)
        if same(result, alpha1 / r1 * a1 @ b1 + alpha2 / r2 * a2 @ b2):
            continue
        crossed = r1 == r2 and same(a @ b, a1 @ b2 + a2 @ b1)
        expect(not crossed, f"{case} the columns of A meet the rows of the other adapter's B.")
        plain = same(a @ b, a1 @ b1 + a2 @ b2)
        expect(
            not plain,
            f"{case} A B is the sum of both products, but each is to be scaled by its own alpha over its own rank, and "
            "the joint adapter has one factor for all.",
        )
        scaled = same(a @ b, alpha1 / r1 * a1 @ b1 + alpha2 / r2 * a2 @ b2)
        expect(
            not scaled, f"{case} A B is right by itself; with your alpha it is multiplied by {alpha / rank:.3g} again."
        )
        raise Hint(f"{case} alpha / (r1 + r2) · A B is not the sum of what the two adapters add.")
    return (
        "A sum of two products is one product of wider and taller matrices, so two adapters are one of the joint rank. "
        "What differed in scale has gone into the numbers of A or B."
    )


@exercise("E.5", "attach(model, budget)")
def exercise_e_5(answer: Callable[[GPTModel, int], int]) -> str:
    """Check `attach(model, budget)`, which prepares a model with LoRA of the largest rank that the budget allows."""
    for seed, (emb_dim, n_layers, classes), spare in (
        (1, (12, 2, 2), lambda head, step: head + 3 * step),
        (2, (8, 1, 3), lambda head, step: head + 3 * step - 1),
        (3, (16, 3, 2), lambda head, step: head + 5 * step + 7),
        (4, (12, 1, 2), lambda head, step: head + step - 1),
    ):
        model = _small_gpt(seed, emb_dim, n_layers, classes)
        names = [n for n, m in model.trf_blocks.named_modules(prefix="trf_blocks") if isinstance(m, torch.nn.Linear)]
        step = sum(m.in_features + m.out_features for m in map(model.get_submodule, names))
        head = sum(p.numel() for p in model.out_head.parameters())
        budget, inputs = spare(head, step), torch.arange(6)[None]
        state = {name: values.clone() for name, values in model.state_dict().items()}
        with torch.no_grad():
            before = model(inputs)
        case = f"With {n_layers} blocks of width {emb_dim}, {classes} classes and budget={budget}:"
        if budget < head + step:
            try:
                got = answer(model, budget)
            except AnswerError as stopped:
                if not isinstance(stopped.error, ValueError):
                    raise
                now = model.state_dict()
                kept = now.keys() == state.keys() and all(torch.equal(now[name], state[name]) for name in state)
                expect(kept, f"{case} the model was changed before the ValueError was raised.")
                continue
            raise Hint(f"{case} not even rank 1 fits, so a ValueError is expected; you return {got!r:.40}.")
        got = read_integer(answer(model, budget), f"{case} What you return, the rank,")
        layers = lora_layers(model)
        beside_head = any(name.startswith("out_head") for name in layers)
        expect(not beside_head, f"{case} there is LoRA beside the output layer. Here it is to be trained itself.")
        missing = [name for name in names if name not in layers]
        expect(not missing, f"{case} {len(missing)} linear layers of the blocks have no LoRA, {missing[:1]} first.")
        expect(all(p.requires_grad for p in model.out_head.parameters()), f"{case} the output layer is not trained.")
        adapter = [p for layer in layers.values() for p in layer.lora.parameters()]
        expect(
            all(p.requires_grad for p in adapter), f"{case} some A or B is not trained. In which order do you freeze?"
        )
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        expected = head + sum(p.numel() for p in adapter)
        expect(trained == expected, f"{case} {trained - expected:,} numbers of the base are trained as well.")
        expect(
            trained <= budget,
            f"{case} you train {trained:,} numbers. Have you counted the output layer and all layers?",
        )
        expect(trained + step > budget, f"{case} you train {trained:,} numbers, and the next rank would fit, too.")
        ranks = {layer.lora.rank for layer in layers.values()}
        expect(ranks == {got}, f"{case} you return {got}, and the layers have the rank {sorted(ranks)}.")
        with torch.no_grad():
            expect(torch.equal(model(inputs), before), f"{case} the model computes something else than before.")
    return (
        "All layers share one rank, so what is left of the budget after the output layer has room for so many whole "
        "steps, and each step costs the sum of all inputs and outputs."
    )


self_test_e = self_test("e", "appendix_e")
