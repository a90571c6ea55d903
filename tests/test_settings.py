"""How the course runs: the two profiles, the choice of a device, and no change of the process unless asked for."""

import asyncio
import dataclasses
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch

from helpers import GPT_CONFIG_124M, PROFILES, GPTModel, get_device, get_profile
from helpers.settings import bfloat16_is_native
from helpers.texts import BOOK_FILES, EMBEDDED_TEXTS
from tests.nbval_numbers import WIDGET

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    monkeypatch.delenv("COURSE_DEVICE", raising=False)


class TestProfiles:
    def test_quick_is_the_default(self):
        assert get_profile() is PROFILES["quick"]
        assert set(PROFILES) == {"quick", "book"}
        assert all(profile.name == name for name, profile in PROFILES.items())

    def test_by_name(self):
        assert get_profile("book").pretraining_text == "the-verdict"

    def test_environment_overrides(self, monkeypatch):
        monkeypatch.setenv("COURSE_PROFILE", "book")
        assert get_profile("quick").name == "book"
        monkeypatch.setenv("COURSE_PROFILE", "")
        assert get_profile("quick").name == "quick"

    def test_quick_uses_only_what_is_embedded(self):
        assert PROFILES["quick"].pretraining_text in EMBEDDED_TEXTS
        assert PROFILES["book"].pretraining_text in BOOK_FILES

    def test_unknown(self, monkeypatch):
        with pytest.raises(ValueError, match="name='slow' is not a profile; there are quick and book"):
            get_profile("slow")
        monkeypatch.setenv("COURSE_PROFILE", "fast")
        with pytest.raises(ValueError, match="COURSE_PROFILE='fast' is not a profile"):
            get_profile("quick")

    @pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
    def test_pretraining(self, profile):
        assert set(profile.pretraining_config) == set(GPT_CONFIG_124M)
        assert profile.pretraining_config["vocab_size"] == 50257
        assert profile.pretraining_epochs >= 1 and profile.pretraining_eval_freq >= 1
        assert 0 < profile.pretraining_lr < 0.1
        with torch.device("meta"):
            model = GPTModel(profile.pretraining_config)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        assert parameters < 20e6 if profile.name == "quick" else parameters > 160e6

    def test_book_has_the_published_settings(self):
        book = get_profile("book")
        assert book.pretraining_config == {**GPT_CONFIG_124M, "context_length": 256}
        assert (book.pretraining_epochs, book.pretraining_lr, book.pretraining_eval_freq) == (10, 4e-4, 5)

    def test_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            get_profile().name = "other"


def pretend(monkeypatch, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if cuda else 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


class TestDevice:
    @pytest.mark.parametrize(
        ("cuda", "mps", "chosen"),
        [(False, False, "cpu"), (False, True, "cpu"), (True, False, "cuda"), (True, True, "cuda")],
    )
    def test_default(self, monkeypatch, cuda, mps, chosen):
        pretend(monkeypatch, cuda, mps)
        assert get_device() == torch.device(chosen)

    def test_by_name(self, monkeypatch):
        pretend(monkeypatch, cuda=True, mps=True)
        assert get_device("cpu") == torch.device("cpu")
        assert get_device("mps") == torch.device("mps")
        assert get_device("cuda:1") == torch.device("cuda", 1)
        for wrong in ("cuda:7", "cuda:2", "cuda:x", "cuda:", "cuda:-1", "cuda:01", "cpu:x", "cpu:3", "mps:1", "gpu"):
            with pytest.raises(ValueError, match=f"device '{wrong}' is not available; this machine has cpu, cuda, mps"):
                get_device(wrong)

    def test_by_device(self, monkeypatch):
        pretend(monkeypatch, cuda=True, mps=False)
        assert get_device(torch.device("cpu")) == torch.device("cpu")
        assert get_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
        with pytest.raises(ValueError, match="device 'cuda:7' is not available"):
            get_device(torch.device("cuda", 7))

    def test_environment(self, monkeypatch):
        pretend(monkeypatch, cuda=True, mps=False)
        monkeypatch.setenv("COURSE_DEVICE", "cpu")
        assert get_device() == torch.device("cpu")
        assert get_device("cuda") == torch.device("cuda")  # what the code asks for comes first
        monkeypatch.setenv("COURSE_DEVICE", "")
        assert get_device() == torch.device("cuda")

    @pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "tpu", "gpu", "cpuu"])
    def test_not_there(self, monkeypatch, name):
        pretend(monkeypatch, cuda=False, mps=False)
        with pytest.raises(ValueError, match=f"device '{name}' is not available; this machine has cpu"):
            get_device(name)
        monkeypatch.setenv("COURSE_DEVICE", name)
        with pytest.raises(ValueError, match=f"device '{name}' is not available"):
            get_device()


class TestBfloat16:
    @pytest.mark.parametrize(
        ("capabilities", "native"),
        [
            ({}, False),
            ({"avx2": True, "avx512_f": True}, False),
            ({"avx512_bf16": False, "amx_bf16": False}, False),
            ({"avx512_bf16": True, "amx_bf16": False}, True),
            ({"amx_bf16": True}, True),
            ({"bf16": True, "cpu_name": "Neoverse"}, True),
            ({"cpu_name": "a bf16 machine", "l2_cache_size": 7}, False),
        ],
    )
    def test_processors(self, monkeypatch, capabilities, native):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
        assert bfloat16_is_native("cpu") is native
        assert bfloat16_is_native(torch.device("cpu")) is native

    def test_a_release_that_cannot_tell(self, monkeypatch):
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        assert bfloat16_is_native("cpu") is False

    @pytest.mark.parametrize(
        ("capability", "native"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)]
    )
    def test_gpus(self, monkeypatch, capability, native):
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert bfloat16_is_native("cuda") is native
        assert bfloat16_is_native(torch.device("cuda", 1)) is native

    def test_amd_gpus(self, monkeypatch):
        monkeypatch.setattr(torch.version, "hip", "6.2")
        assert bfloat16_is_native("cuda") is True

    def test_others(self):
        assert bfloat16_is_native("mps") is False
        assert bfloat16_is_native("meta") is False


TRAINING = """
import ctypes, sys

class Library(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "mallopt":
            print("mallopt")
        return super().__getattr__(name)

ctypes.CDLL = Library
import torch
import helpers
from tests.fakes import Letters
from tests.tiny import CPU, loader, tiny_model

model = tiny_model()
optimizer = torch.optim.AdamW(model.parameters())
helpers.train_model_simple(model, loader(), loader(), optimizer, CPU, 1, 2, 1, "a", Letters())
helpers.generate(model, torch.ones(1, 4, dtype=torch.long), 8, 16)
print("helpers.speed.memory" in sys.modules)
if sys.argv[1:]:
    from helpers.speed.memory import keep_freed_memory
    keep_freed_memory()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt belongs to Linux's C library")
@pytest.mark.parametrize(("asked", "calls"), [([], 0), (["asked"], 1)])
def test_memory_settings_of_the_process_change_only_when_asked(asked, calls):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, *asked], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("mallopt") == calls
    assert lines.count("False") == 1  # the module that could was not even imported


class TestServerConfig:
    """What `make lab` tells JupyterLab's server by the file in .jupyter."""

    def config(self):
        config = SimpleNamespace(FileContentsManager=SimpleNamespace(), ServerApp=SimpleNamespace())
        path = REPOSITORY / ".jupyter" / "jupyter_server_config.py"
        exec(path.read_text(encoding="utf-8"), {"get_config": lambda: config, "__name__": "config"})
        return config

    def hook(self):
        return self.config().FileContentsManager.pre_save_hook

    @pytest.mark.parametrize(
        ("data", "saved"),
        [
            ({"text/plain": "A figure."}, {"text/plain": "A figure."}),
            ({WIDGET: {}, "text/plain": "A figure."}, {"text/plain": "A figure. Run this cell to use it."}),
            ({WIDGET: {}, "text/plain": ["A ", "bar."]}, {"text/plain": "A bar. Run this cell to use it."}),
            ({WIDGET: {}}, {"text/plain": ""}),
        ],
    )
    def test_widgets_are_saved_as_their_description(self, data, saved):
        outputs = [{"output_type": "display_data", "data": data}, {"output_type": "stream", "text": "x"}]
        cells = [{"cell_type": "code", "outputs": outputs}, {"cell_type": "markdown"}]
        self.hook()(model={"type": "notebook", "content": {"cells": cells}}, path="a.ipynb", contents_manager=None)
        assert outputs[0]["data"] == saved

    def test_other_files_are_left_alone(self):
        self.hook()(model={"type": "file", "content": "text"}, path="a.txt", contents_manager=None)

    def test_a_notebook_is_opened_as_if_this_python_had_saved_it(self, tmp_path):
        language = {"name": "python", "version": "3.1.4", "file_extension": ".py"}
        nbformat.write(nbformat.v4.new_notebook(metadata={"language_info": language}), tmp_path / "a.ipynb")
        nbformat.write(nbformat.v4.new_notebook(metadata={"language_info": {"name": "R"}}), tmp_path / "b.ipynb")
        (tmp_path / "c.txt").write_text("text")
        files = self.config().ServerApp.contents_manager_class(root_dir=str(tmp_path))
        opened = asyncio.run(files.get("a.ipynb"))["content"]["metadata"]["language_info"]
        assert opened == {**language, "version": platform.python_version()}
        assert asyncio.run(files.get("b.ipynb", content=True))["content"]["metadata"]["language_info"] == {"name": "R"}
        assert asyncio.run(files.get("a.ipynb", False))["content"] is None
        assert asyncio.run(files.get("c.txt"))["content"] == "text"
        assert len(asyncio.run(files.get(""))["content"]) == 3
