"""The course model: its file format, what is refused, and the model that ships with the course."""

import json
import math
import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import (
    GPTModel,
    generate,
    get_tokenizer,
    load_course_model,
    lora_layers,
    replace_linear_with_lora,
    save_adapter,
    save_model,
)
from helpers.pretrained import COURSE_MODEL_FILE, load_assistant, save_course_model
from tests.tiny import TINY, lively_model, windows


@pytest.fixture(name="path")
def course_file(tmp_path):
    save_course_model(lively_model(3, tied=True), tmp_path / "deep" / "model.safetensors")
    return tmp_path / "deep" / "model.safetensors"


class TestFormat:
    def test_round_trip(self, path):
        model, cfg = load_course_model(path)
        assert cfg == TINY
        assert type(model) is GPTModel and not model.training
        assert model.out_head.weight is model.tok_emb.weight
        before, after = lively_model(3, tied=True).state_dict(), model.state_dict()
        assert before.keys() == after.keys()
        for name, weight in before.items():
            assert after[name].dtype == torch.float32
            if weight.dim() == 2:
                step = weight.abs().amax(dim=1, keepdim=True) / 127
                assert ((after[name] - weight).abs() <= 0.5001 * step).all(), name
                assert not torch.equal(after[name], weight)
            else:
                assert torch.equal(after[name], weight), name
        ids = windows(2, 16)[0]
        exact = lively_model(3, tied=True)(ids)
        assert (model(ids) - exact).norm() < 0.05 * exact.norm()

    def test_saving_again_changes_nothing(self, path, tmp_path):
        model, _ = load_course_model(path)
        save_course_model(model, tmp_path / "again")
        assert load_course_model(tmp_path / "again")[1] == TINY
        one, two = load_course_model(path)[0].state_dict(), load_course_model(tmp_path / "again")[0].state_dict()
        assert all(torch.allclose(one[name], two[name], rtol=1e-5, atol=1e-7) for name in one)

    def test_it_trains(self, path):
        model, _ = load_course_model(path)
        inputs, targets = windows(2)
        torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
        assert all(parameter.requires_grad and parameter.grad is not None for parameter in model.parameters())
        torch.optim.AdamW(model.parameters()).step()
        assert torch.equal(model.out_head.weight, model.tok_emb.weight)

    def test_size(self, path, tmp_path):
        save_model(lively_model(3, tied=True, emb_dim=96), tmp_path / "exact")
        save_course_model(lively_model(3, tied=True, emb_dim=96), tmp_path / "small")
        assert (tmp_path / "small").stat().st_size < 0.32 * (tmp_path / "exact").stat().st_size

    @pytest.mark.parametrize("changes", [{"qkv_bias": True}, {"drop_rate": 0.2}, {"n_layers": 3, "context_length": 9}])
    def test_the_configuration_is_the_models_own(self, tmp_path, changes):
        save_course_model(lively_model(3, tied=True, **changes), tmp_path / "file")
        model, cfg = load_course_model(tmp_path / "file")
        assert cfg == {**TINY, **changes}
        assert (model.out_head.out_features, model.tok_emb.num_embeddings) == (97, 97)
        assert all(torch.equal(block.att.mask, torch.ones_like(block.att.mask).triu(1)) for block in model.trf_blocks)

    def test_only_tied_models(self, tmp_path):
        with pytest.raises(ValueError, match="model has an output layer of its own"):
            save_course_model(lively_model(3), tmp_path / "file")
        assert os.listdir(tmp_path) == []

    def test_nothing_else_is_left(self, path):
        assert os.listdir(path.parent) == [path.name]

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
    def test_anyone_may_read_it(self, path):
        (path.parent / "any").write_text("")
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path.parent / "any").stat().st_mode)


class TestBadFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nothing does not exist"):
            load_course_model(tmp_path / "nothing")

    def damaged(self, path, kind):
        content = path.read_bytes()
        tensors = load_file(path)
        config = {"config": json.dumps(TINY)}
        if kind == "empty":
            path.write_bytes(b"")
        elif kind == "half":
            path.write_bytes(content[: len(content) // 2])
        elif kind == "a byte short":
            path.write_bytes(content[:-1])
        elif kind == "text":
            path.write_text("Every effort moves you\n" * 1000)
        elif kind == "no config":
            save_file(tensors, path)
        elif kind == "config is no JSON":
            save_file(tensors, path, metadata={"config": "{"})
        elif kind == "config is a list":
            save_file(tensors, path, metadata={"config": "[1, 2]"})
        elif kind == "config of another size":
            save_file(tensors, path, metadata={"config": json.dumps({**TINY, "emb_dim": 48})})
        elif kind == "config of another depth":
            save_file(tensors, path, metadata={"config": json.dumps({**TINY, "n_layers": 3})})
        elif kind == "no embedding":
            save_file({name: t for name, t in tensors.items() if not name.startswith("tok_emb")}, path, config)
        elif kind == "a weight is missing":
            save_file({name: t for name, t in tensors.items() if name != "final_norm.scale"}, path, config)
        elif kind == "foreign":
            save_file({"encoder.weight": torch.ones(2)}, path, config)

    @pytest.mark.parametrize(
        "kind",
        [
            "empty",
            "half",
            "a byte short",
            "text",
            "no config",
            "config is no JSON",
            "config is a list",
            "config of another size",
            "config of another depth",
            "no embedding",
            "a weight is missing",
            "foreign",
        ],
    )
    def test_one_line(self, path, kind):
        self.damaged(path, kind)
        with pytest.raises(ValueError, match="is not a course model file") as caught:
            load_course_model(path)
        message = str(caught.value)
        assert "\n" not in message and str(path) in message and len(message) < 200 + len(str(path))

    def test_a_plain_model_file(self, tmp_path):
        save_model(lively_model(), tmp_path / "plain")
        with pytest.raises(ValueError, match="is not a course model file"):
            load_course_model(tmp_path / "plain")


@pytest.mark.skipif(not COURSE_MODEL_FILE.is_file(), reason="the course model does not exist yet")
class TestAssistant:
    """The course model with a merged adapter."""

    @pytest.fixture(name="adapter")
    def adapter_file(self, path, tmp_path):
        model = load_course_model(path)[0].requires_grad_(False)
        replace_linear_with_lora(model, 2, 4, "trf_blocks")
        for layer in lora_layers(model).values():
            layer.lora.B.data.fill_(0.05)
        save_adapter(model, tmp_path / "adapter.safetensors")
        return tmp_path / "adapter.safetensors", model.eval()

    def test_it_computes_what_the_adapted_model_computes(self, path, adapter):
        file, adapted = adapter
        model, cfg = load_assistant(file, path)
        ids = windows(2, 16)[0]
        with torch.no_grad():
            logits, base = model(ids), load_course_model(path)[0](ids)
            assert torch.allclose(logits, adapted(ids), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(logits, base, rtol=1e-2, atol=1e-2)
        assert cfg == TINY and not model.training and not lora_layers(model)
        assert model.out_head.weight is model.tok_emb.weight

    def test_errors(self, path, adapter, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing.*is not a file: an adapter for the course model"):
            load_assistant(tmp_path / "nothing", path)
        with pytest.raises(ValueError, match="not an adapter's file"):
            load_assistant(path, path)
        save_course_model(lively_model(3, tied=True, emb_dim=48), tmp_path / "other")
        with pytest.raises(ValueError, match="for another model"):
            load_assistant(adapter[0], tmp_path / "other")


class TestTheOneThatShips:
    def test_file(self):
        assert COURSE_MODEL_FILE.stat().st_size <= 30e6

    def test_model(self):
        model, cfg = load_course_model()
        assert set(cfg) == set(TINY)
        assert cfg["vocab_size"] == 50257
        assert model.tok_emb.weight.shape == (50257, cfg["emb_dim"])
        assert model.pos_emb.weight.shape == (cfg["context_length"], cfg["emb_dim"])
        assert len(model.trf_blocks) == cfg["n_layers"]
        assert model.out_head.weight is model.tok_emb.weight

    def test_it_reads_english(self):
        model, _ = load_course_model()
        text = "Once upon a time there was a little girl who lived in a small house near the forest."
        ids = torch.tensor([get_tokenizer().encode(text)])
        with torch.no_grad():
            logits = model(ids)
        assert torch.isfinite(logits).all()
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).item()
        assert loss < 0.6 * math.log(50257)  # an untrained model has 10.8

    def test_it_writes(self):
        model, cfg = load_course_model()
        prompt = torch.tensor([get_tokenizer().encode("Once upon a time")])
        out = generate(model, prompt, 20, cfg["context_length"], temperature=0.7, top_k=50, seed=1)
        assert out.shape == (1, prompt.shape[1] + 20)
        assert len(set(out[0].tolist())) > 8
        text = get_tokenizer().decode(out[0].tolist())
        assert text.startswith("Once upon a time")
