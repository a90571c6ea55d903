"""The one list of notebooks, in the order of the course.

README's table and that of the start page, chapter 1's map, appendix B's groups, the setup check's times and the tests
are made from it: a new notebook needs one record here, and `make links` for both tables and the way from one notebook
to the next. setup_check.py runs this file by its path where nothing is installed, so only the standard library may be
imported here.
"""

from __future__ import annotations

from typing import NamedTuple


class Notebook(NamedTuple):
    """One notebook of the course."""

    number: str  # "5", "A" or "bonus-kv-cache"
    file: str  # relative to the folder notebooks/
    title: str  # the notebook's first line, without "Chapter 5: ", "Appendix A: " or "Bonus: "
    builds: str  # what the reader builds, for README's table
    minutes: int | None  # to read and try it, as its opening says; None for the solutions, which nobody reads in a row
    seconds: tuple[int, int]  # to run its code in quick and in book, on the reference machine of setup_check.py
    arithmetic: float  # the share of these seconds that is matrix arithmetic; the rest is plain Python
    needs: tuple[str, ...] = ()  # numbers of the notebooks to read first, all of them earlier in the list
    downloads: tuple[str, ...] = ()  # what its book profile downloads: names of texts.BOOK_FILES, or gpt2-SIZE
    short: str = ""  # a shorter title for a small box on chapter 1's map, where the title is too long

    @property
    def kind(self) -> str:
        """One of "chapter", "appendix" and "bonus"."""
        return "chapter" if self.number.isdigit() else "appendix" if len(self.number) == 1 else "bonus"

    @property
    def name(self) -> str:
        """How a sentence refers to the notebook: chapter 5, appendix A or bonus "The KV cache"."""
        return f'bonus "{self.title}"' if self.kind == "bonus" else f"{self.kind} {self.number}"

    @property
    def heading(self) -> str:
        """The first line of the notebook: "Chapter 5: Pretraining on unlabeled data"."""
        before = "Bonus" if self.kind == "bonus" else f"{self.kind.capitalize()} {self.number}"
        return f"{before}: {self.title}"

    @property
    def prefix(self) -> str:
        """What the numbers of its exercises begin with: "5", "A" or "kv" (for bonus-kv-cache)."""
        return self.number.removeprefix("bonus-").split("-")[0]


NOTEBOOKS = (
    Notebook(
        number="1",
        file="ch01_understanding_llms.ipynb",
        title="Understanding large language models",
        short="Understanding language models",
        builds="a model of counted pairs beside a trained GPT: their next-token probabilities, the loop that writes, "
        "perplexity; a map of the course",
        minutes=60,
        seconds=(8, 8),
        arithmetic=0.2,
        downloads=("the-verdict",),
    ),
    Notebook(
        number="2",
        file="ch02_text_data.ipynb",
        title="Working with text data",
        builds="two tokenizers, three merges of byte-pair encoding, sliding windows and their loader, embeddings",
        minutes=75,
        seconds=(13, 13),
        arithmetic=0.1,
        downloads=("the-verdict",),
    ),
    Notebook(
        number="3",
        file="ch03_attention.ipynb",
        title="Coding attention mechanisms",
        short="Coding attention",
        builds="self-attention in five steps, up to the causal multi-head attention of GPT-2",
        minutes=120,
        seconds=(14, 14),
        arithmetic=0.1,
        needs=("2",),
    ),
    Notebook(
        number="4",
        file="ch04_gpt.ipynb",
        title="A GPT model from scratch",
        builds="LayerNorm, GELU, shortcuts, the transformer block, a GPT with 124 million parameters that writes "
        "(gibberish)",
        minutes=90,
        seconds=(20, 20),
        arithmetic=0.5,
        needs=("2", "3"),
    ),
    Notebook(
        number="5",
        file="ch05_pretraining.ipynb",
        title="Pretraining on unlabeled data",
        short="Pretraining",
        builds="the loss, the training loop, temperature, top-k and top-p, checkpoints that resume to the last bit, "
        "loading pretrained weights",
        minutes=150,
        seconds=(70, 600),
        arithmetic=0.8,
        needs=("2", "4"),
        downloads=("the-verdict", "gpt2-124M"),
    ),
    Notebook(
        number="6",
        file="ch06_classification.ipynb",
        title="Fine-tuning for classification",
        builds="a spam filter made of a pretrained model, judged beside a count of words, its mistakes read, its "
        "answer made independent of padding",
        minutes=120,
        seconds=(60, 3000),
        arithmetic=0.7,
        needs=("3", "5"),
        downloads=("sms-spam-collection", "gpt2-124M"),
    ),
    Notebook(
        number="7",
        file="ch07_instructions.ipynb",
        title="Fine-tuning to follow instructions",
        builds="an assistant made of a pretrained model, its answers scored before and after, by kind of task, "
        "against references and by a judge",
        minutes=120,
        seconds=(75, 7200),
        arithmetic=0.8,
        needs=("5",),
        downloads=("instruction-data", "gpt2-355M"),
    ),
    Notebook(
        number="A",
        file="appendix_a_pytorch.ipynb",
        title="Introduction to PyTorch",
        builds="tensors and their memory, gradients by hand and by autograd, the graph drawn from its real pointers, "
        "a network, loaders, the training loop, safe saving, a run of two processes",
        minutes=150,
        seconds=(28, 28),
        arithmetic=0.1,
    ),
    Notebook(
        number="B",
        file="appendix_b_references.ipynb",
        title="References and further reading",
        short="References",
        builds="a paper's formula turned into code, its claim and its assumption tested; what to read first for each "
        "chapter; the whole list of references, to filter",
        minutes=45,
        seconds=(7, 7),
        arithmetic=0.1,
        needs=("4",),
    ),
    Notebook(
        number="C",
        file="appendix_c_solutions.ipynb",
        title="Exercise solutions",
        builds="a solution to every exercise, with the reasoning and the likely slip, each accepted by its checker",
        minutes=None,
        seconds=(20, 60),
        arithmetic=0.5,
        downloads=("the-verdict", "gpt2-124M"),
    ),
    Notebook(
        number="D",
        file="appendix_d_training_loop.ipynb",
        title="Bells and whistles for the training loop",
        short="Bells and whistles for training",
        builds="warm-up, cosine decay, gradient clipping, accumulation, mixed precision, and runs with and without "
        "each side by side",
        minutes=90,
        seconds=(75, 700),
        arithmetic=0.8,
        needs=("5",),
        downloads=("the-verdict",),
    ),
    Notebook(
        number="E",
        file="appendix_e_lora.ipynb",
        title="Fine-tuning with LoRA",
        short="LoRA: fine-tuning with few weights",
        builds="a product of two thin matrices beside each frozen weight: trained, compared with training "
        "everything, merged, saved, and several of them on one model",
        minutes=90,
        seconds=(60, 20_000),
        arithmetic=0.8,
        needs=("4", "5"),
        downloads=("the-verdict", "sms-spam-collection", "gpt2-124M"),
    ),
    Notebook(
        number="bonus-bpe",
        file="bonus/bpe_from_scratch.ipynb",
        title="Byte-pair encoding from scratch",
        builds="a tokenizer that learns its merges, slowly and then fast, and gives GPT-2's ids from GPT-2's merges",
        minutes=75,
        seconds=(9, 9),
        arithmetic=0.0,
        needs=("2",),
        downloads=("the-verdict",),
    ),
    Notebook(
        number="bonus-embedding",
        file="bonus/embedding_layer_and_linear_layer.ipynb",
        title="Embedding layers and linear layers",
        builds="one as the other, their gradients and costs, mixtures of tokens, one table for both ends of a GPT",
        minutes=40,
        seconds=(6, 6),
        arithmetic=0.2,
        needs=("2",),
    ),
    Notebook(
        number="bonus-buffers",
        file="bonus/buffers.ipynb",
        title="Buffers, the tensors that are not trained",
        builds="each mistake one can make with a tensor that is not trained, made on purpose",
        minutes=35,
        seconds=(5, 5),
        arithmetic=0.0,
        needs=("3",),
    ),
    Notebook(
        number="bonus-kv-cache",
        file="bonus/kv_cache.ipynb",
        title="The KV cache",
        builds="why the plain loop repeats itself, a cache that does not, the mistakes it invites, its memory, and "
        "what fewer bits and several texts at once bring",
        minutes=60,
        seconds=(14, 14),
        arithmetic=0.3,
        needs=("3", "4"),
    ),
    Notebook(
        number="bonus-attention",
        file="bonus/attention_implementations.ipynb",
        title="Nine ways to compute attention",
        builds="chapter 3's attention nine times over with the same weights, shown to agree, timed and measured; "
        "FlashAttention from a softmax that is computed in parts",
        minutes=75,
        seconds=(35, 35),
        arithmetic=0.6,
        needs=("3", "4"),
    ),
    Notebook(
        number="bonus-flops",
        file="bonus/flops.ipynb",
        title="FLOPs, from one product to a training run",
        builds="a count of a GPT's operations that agrees with PyTorch's counter, what training costs and how a budget "
        "is best split, and a machine's limits with the training loop measured against them",
        minutes=75,
        seconds=(22, 22),
        arithmetic=0.7,
        needs=("4", "5", "bonus-attention"),
    ),
    Notebook(
        number="bonus-memory",
        file="bonus/memory_efficient_weights.ipynb",
        title="Memory-efficient weights",
        builds="the peak memory of saving and loading, measured and brought down from twice the weights; weights in "
        "16, 8 and 4 bits and what each costs in perplexity",
        minutes=45,
        seconds=(45, 45),
        arithmetic=0.4,
        needs=("4", "5"),
    ),
    Notebook(
        number="bonus-llama",
        file="bonus/from_gpt_to_llama.ipynb",
        title="From GPT to Llama",
        builds="RMSNorm, rotary positions, SwiGLU and grouped-query attention in the place of GPT's parts; a reader "
        "for GGUF files; from it an assistant with 135 million parameters, fine-tuned with LoRA and tried as a judge",
        minutes=120,
        seconds=(42, 110),
        arithmetic=0.8,
        needs=("3", "4", "7", "E", "bonus-bpe", "bonus-kv-cache"),
    ),
    Notebook(
        number="bonus-dpo",
        file="bonus/dpo_preference_tuning.ipynb",
        title="Preference tuning with DPO",
        builds="preference pairs, a loss from the choice between two answers, a model whose manner is turned around, "
        "what that costs and when it goes too far",
        minutes=75,
        seconds=(65, 65),
        arithmetic=0.8,
        needs=("7",),
        downloads=("instruction-data",),
    ),
    Notebook(
        number="bonus-reasoning",
        file="bonus/reasoning_models.ipynb",
        title="Reasoning models, four ways",
        builds="votes and verifiers over many answers, reinforcement learning with group advantages (GRPO) that finds "
        "out that steps pay and how to cheat, a cold start, a distilled student, all compared at equal cost",
        minutes=90,
        seconds=(55, 55),
        arithmetic=0.6,
        needs=("4", "5", "7"),
    ),
)
