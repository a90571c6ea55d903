"""The two profiles, and the choice of a device."""

import dataclasses

import pytest
import torch

from helpers import PROFILES, get_device, get_profile
from helpers.datasets import BOOK_FILES, EMBEDDED_TEXTS


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

    def test_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            get_profile().name = "other"


def pretend(monkeypatch, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
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
