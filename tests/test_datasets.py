"""Texts and data files: the embedded story, COURSE_DATA_DIR, the cache, and downloads from servers on this machine."""

import dataclasses
import hashlib
import io
import json
import zipfile

import pytest

from helpers import get_tokenizer, load_instructions, load_messages, load_text, texts
from tests.fakes import StubServer

CONTENT = ("It was a bright cold day, and the clocks were striking thirteen.\n" * 300).encode()
NAME = "a-text.txt"


class Source(StubServer):
    """Answers every request in one way."""

    def __init__(self, behaviour, content=CONTENT, name=NAME):
        def answer(handler):
            if behaviour == "502":
                handler.send_error(502)
                return
            body = content.replace(b"bright", b"blight") if behaviour == "wrong bytes" else content
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[: len(body) // 2] if behaviour == "half-way" else body)
            handler.close_connection = True

        super().__init__(answer)
        self.url += f"/{name}"

    @property
    def count(self):
        return len(self.received)


@pytest.fixture(name="serve")
def servers():
    started = []

    def start(*arguments):
        started.append(Source(*arguments))
        return started[-1]

    yield start
    for source in started:
        source.close()


@pytest.fixture(name="cache", autouse=True)
def empty_cache(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("COURSE_CACHE_DIR", str(cache))
    monkeypatch.delenv("COURSE_DATA_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(texts, "_RETRY_PAUSES", (0.0, 0.0, 0.0))
    return cache


def data_file(*sources):
    urls = tuple(source if isinstance(source, str) else source.url for source in sources)
    return texts.DataFile(name=NAME, sha256=hashlib.sha256(CONTENT).hexdigest(), urls=urls)


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


class TestDownloads:
    def test_first_source(self, serve, cache, capfd):
        first, second = serve("right"), serve("right")
        path = texts.fetch(data_file(first, second))
        assert path == cache / NAME
        assert path.read_bytes() == CONTENT
        assert (first.count, second.count) == (1, 0)
        assert capfd.readouterr() == ("", "")  # a notebook's output must not depend on what was there already

    @pytest.mark.parametrize("behaviour", ["502", "half-way", "wrong bytes"])
    def test_second_source(self, serve, cache, capfd, behaviour):
        first, second = serve(behaviour), serve("right")
        path = texts.fetch(data_file(first, second))
        assert path.read_bytes() == CONTENT
        assert (first.count, second.count) == (1, 1)
        assert files_in(cache) == [NAME]
        assert capfd.readouterr() == ("", "")

    def test_nothing_listens_at_the_first_source(self, serve, cache):
        gone = serve("right")
        gone.close()
        assert texts.fetch(data_file(gone, serve("right"))).read_bytes() == CONTENT
        assert files_in(cache) == [NAME]

    def test_nothing_is_downloaded_twice(self, serve):
        source = serve("right")
        paths = {texts.fetch(data_file(source)) for _ in range(3)}
        assert len(paths) == 1
        assert source.count == 1

    def test_a_broken_file_in_the_cache_is_replaced(self, serve, cache, capfd):
        cache.mkdir()
        (cache / NAME).write_bytes(CONTENT[:100])
        source = serve("right")
        assert texts.find(data_file(source)) is None
        assert texts.fetch(data_file(source)).read_bytes() == CONTENT
        assert files_in(cache) == [NAME]
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("behaviours", [("502", "502"), ("half-way", "wrong bytes"), ("wrong bytes", "502")])
    def test_no_source_delivers(self, serve, cache, behaviours):
        first, second = map(serve, behaviours)
        with pytest.raises(ConnectionError) as failure:
            texts.fetch(data_file(first, second))
        message = str(failure.value)
        assert "\n" not in message
        assert all(word in message for word in (NAME, "COURSE_DATA_DIR", first.url, second.url))
        assert (first.count, second.count) == (3, 3)  # every round asks both
        assert files_in(cache) == []

    def test_a_failure_without_a_message(self, monkeypatch):
        import pooch

        def fail(*args, **kwargs):
            raise TimeoutError

        monkeypatch.setattr(pooch, "retrieve", fail)
        with pytest.raises(ConnectionError, match="TimeoutError"):
            texts.fetch(data_file("http://127.0.0.1/nothing"))

    def test_a_source_that_recovers(self, cache, monkeypatch):
        import pooch

        outcomes = [OSError("down"), OSError("down"), ValueError("wrong"), cache / NAME]

        def retrieve(*args, **kwargs):
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return str(outcome)

        monkeypatch.setattr(pooch, "retrieve", retrieve)
        assert texts.fetch(data_file("http://127.0.0.1/one", "http://127.0.0.1/two")) == cache / NAME

    def test_after_a_failure_the_next_call_tries_again(self, serve):
        with pytest.raises(ConnectionError):
            texts.fetch(data_file(serve("half-way")))
        assert texts.fetch(data_file(serve("right"))).read_bytes() == CONTENT


def archive(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return buffer.getvalue()


class TestArchives:
    """A file that its sources keep in a .zip."""

    def file(self, *sources):
        return dataclasses.replace(data_file(*sources), member="folder/text")

    def test_the_member_is_kept_and_nothing_else(self, serve, cache, tmp_path):
        content = archive({"folder/text": CONTENT, "../outside": b"", str(tmp_path / "absolute"): b""})
        source = serve("right", content, "data.zip")
        path = texts.fetch(self.file(source))
        assert path == cache / NAME and path.read_bytes() == CONTENT
        assert files_in(tmp_path) == ["a-text.txt", "cache"]
        assert texts.fetch(self.file(source)) == path and source.count == 1

    def test_a_bomb_is_not_unpacked(self, serve, monkeypatch):
        """A small archive may hold a member of any size; it is looked at before it is read."""
        monkeypatch.setattr(texts, "_LARGEST_MEMBER", 10)
        source = serve("right", archive({"folder/text": CONTENT}), "data.zip")
        with pytest.raises(ConnectionError, match="is larger than any of the course's files"):
            texts.fetch(self.file(source))

    @pytest.mark.parametrize(
        "content", [archive({"other": CONTENT}), archive({"folder/text": CONTENT[1:]}), CONTENT, b""]
    )
    def test_a_wrong_archive(self, serve, cache, content):
        first, second = serve("right", content, "data.zip"), serve("right", archive({"folder/text": CONTENT}), "b.zip")
        with pytest.raises(ConnectionError, match=r"data\.zip"):
            texts.fetch(self.file(first))
        assert files_in(cache) == []
        assert texts.fetch(self.file(first, second)).read_bytes() == CONTENT
        assert files_in(cache) == [NAME]


class TestDataDir:
    """COURSE_DATA_DIR, for classrooms without internet. The source would be asked if the folder were not."""

    @pytest.fixture(name="folder")
    def folder_with_the_file(self, tmp_path):
        folder = tmp_path / "place" / "data"
        folder.mkdir(parents=True)
        (folder / NAME).write_bytes(CONTENT)
        return folder

    def test_absolute(self, folder, serve, cache, monkeypatch):
        source = serve("right")
        monkeypatch.setenv("COURSE_DATA_DIR", str(folder))
        assert texts.fetch(data_file(source)) == folder / NAME
        assert source.count == 0
        assert files_in(cache) == []

    def test_relative_to_the_working_directory(self, folder, monkeypatch):
        monkeypatch.chdir(folder.parent)
        monkeypatch.setenv("COURSE_DATA_DIR", "data")
        assert texts.fetch(data_file()).samefile(folder / NAME)

    def test_relative_to_the_repository(self, folder, tmp_path, monkeypatch):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        monkeypatch.setattr(texts, "_REPOSITORY", folder.parent)
        monkeypatch.setenv("COURSE_DATA_DIR", "data")
        assert texts.fetch(data_file()).samefile(folder / NAME)

    def test_home_folder(self, folder, monkeypatch):
        monkeypatch.setenv("HOME", str(folder.parent))
        monkeypatch.setenv("USERPROFILE", str(folder.parent))
        monkeypatch.setenv("COURSE_DATA_DIR", "~/data")
        assert texts.fetch(data_file()).samefile(folder / NAME)

    def test_comes_before_the_cache(self, folder, cache, monkeypatch):
        cache.mkdir()
        (cache / NAME).write_bytes(CONTENT)
        monkeypatch.setenv("COURSE_DATA_DIR", str(folder))
        assert texts.find(data_file()) == folder / NAME

    @pytest.mark.parametrize("value", ["no/such/folder", "/no/such/folder"])
    def test_missing_folder(self, serve, monkeypatch, value):
        source = serve("right")
        monkeypatch.setenv("COURSE_DATA_DIR", value)
        with pytest.raises(ValueError, match=f"COURSE_DATA_DIR='{value}' is not a folder"):
            texts.fetch(data_file(source))
        assert source.count == 0

    def test_wrong_content(self, folder, serve, monkeypatch):
        source = serve("right")
        (folder / NAME).write_bytes(CONTENT + b"more")
        monkeypatch.setenv("COURSE_DATA_DIR", str(folder))
        with pytest.raises(ValueError, match=r"a-text\.txt is not the file the course expects \(its SHA-256"):
            texts.fetch(data_file(source))
        assert (folder / NAME).read_bytes() == CONTENT + b"more"  # it is the user's: neither changed nor replaced
        assert source.count == 0

    def test_folder_without_the_file(self, folder, serve, cache, monkeypatch):
        (folder / NAME).unlink()
        monkeypatch.setenv("COURSE_DATA_DIR", str(folder))
        assert texts.fetch(data_file(serve("right"))) == cache / NAME
        assert files_in(folder) == []

    def test_empty_is_unset(self, serve, cache, monkeypatch):
        monkeypatch.setenv("COURSE_DATA_DIR", "")
        assert texts.fetch(data_file(serve("right"))) == cache / NAME


class TestCacheDir:
    def test_default_is_the_systems_cache(self, monkeypatch):
        import pooch

        for value in (None, ""):
            if value is None:
                monkeypatch.delenv("COURSE_CACHE_DIR")
            else:
                monkeypatch.setenv("COURSE_CACHE_DIR", value)
            assert texts.cache_dir() == pooch.os_cache("llm-course")

    def test_cached_file_needs_no_source(self, cache):
        cache.mkdir()
        (cache / NAME).write_bytes(CONTENT)
        assert texts.fetch(data_file("http://127.0.0.1:9/closed")) == cache / NAME


class TestLoadText:
    def test_a_text_of_the_book_is_fetched(self, serve, monkeypatch):
        source = serve("right")
        entry = dataclasses.replace(
            texts.BOOK_FILES["the-verdict"], sha256=hashlib.sha256(CONTENT).hexdigest(), urls=(source.url,)
        )
        monkeypatch.setitem(texts.BOOK_FILES, "the-verdict", entry)
        assert load_text("the-verdict") == load_text("the-verdict") == CONTENT.decode()
        assert source.count == 1

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="name='moby-dick' is not a text; there are story, the-verdict"):
            load_text("moby-dick")

    def test_messages(self):
        table = load_messages("messages")
        assert list(table.columns) == ["Label", "Text"] and set(table["Label"]) == {"ham", "spam"}
        assert len(table) >= 1500 and table["Text"].str.len().min() > 0

    def test_instructions(self):
        entries = load_instructions("instructions")
        assert len(entries) >= 1100
        assert all(list(entry) == ["instruction", "input", "output"] for entry in entries)

    def test_quoting_of_messages(self, serve, monkeypatch):
        """A quotation mark at the start of a message swallows the line's end, as in the book."""
        content = b'ham\t"Two\nspam\tlines"\nspam\tone "line"\n'
        entry = texts.DataFile("m.tsv", hashlib.sha256(content).hexdigest(), (serve("right", content).url,))
        monkeypatch.setitem(texts.BOOK_FILES, "sms-spam-collection", entry)
        table = load_messages("sms-spam-collection")
        assert table.to_numpy().tolist() == [["ham", "Two\nspam\tlines"], ["spam", 'one "line"']]

    def test_instructions_of_the_book(self, serve, monkeypatch):
        entries = [{"instruction": "Say yes.", "input": "", "output": "Yes."}]
        content = json.dumps(entries).encode()
        entry = texts.DataFile("i.json", hashlib.sha256(content).hexdigest(), (serve("right", content).url,))
        monkeypatch.setitem(texts.BOOK_FILES, "instruction-data", entry)
        assert load_instructions("instruction-data") == entries

    @pytest.mark.parametrize(
        ("load", "known"),
        [(load_messages, "messages, paraphrases, sms-spam-coll"), (load_instructions, "instructions, instr")],
    )
    def test_unknown_data(self, load, known):
        with pytest.raises(ValueError, match=f"name='story' is not a set of .*; there are {known}"):
            load("story")

    @pytest.mark.parametrize("file", texts.BOOK_FILES.values(), ids=lambda file: file.name)
    def test_files_of_the_book(self, file):
        hosts = {url.split("/")[2] for url in file.urls}
        assert len(hosts) >= 2, "a second source on another host"
        assert all(url.startswith("https://") for url in file.urls)
        assert len(bytes.fromhex(file.sha256)) == 32


class TestStory:
    def test_needs_neither_network_nor_folder(self, serve, cache, monkeypatch):
        monkeypatch.setenv("COURSE_DATA_DIR", "/no/such/folder")
        assert load_text("story")
        assert files_in(cache) == []

    def test_length(self):
        assert 5_000 <= len(get_tokenizer().encode(load_text("story"))) <= 6_000

    def test_characters(self):
        story = load_text("story")
        assert story.isascii()  # so its quotes are straight and its dashes are "--"
        assert "\t" not in story
        assert "\r" not in story
        assert '"' in story
        assert story.endswith("\n")
        assert all(line == line.rstrip() for line in story.splitlines())


class TestKinds:
    def test_of_every_entry(self):
        entries = load_instructions("instructions")
        kinds = [texts.kind_of(entry) for entry in reversed(entries)]  # found wherever the entry has been put
        assert kinds[::-1] == json.loads(texts.INSTRUCTION_KINDS.read_text(encoding="utf-8"))
        assert len(set(kinds)) >= 12

    @pytest.mark.parametrize(
        "entry", [{"instruction": "Fly.", "input": "", "output": "No."}, {"instruction": "Fly."}, {}]
    )
    def test_of_a_foreign_entry(self, entry):
        with pytest.raises(ValueError, match="is not an entry of the embedded instruction set"):
            texts.kind_of(entry)


class TestFolders:
    def test_home_folder(self, serve, cache, tmp_path, monkeypatch):
        for variable in ("HOME", "USERPROFILE"):
            monkeypatch.setenv(variable, str(tmp_path))
        monkeypatch.setenv("COURSE_CACHE_DIR", "~/cache")
        assert texts.cache_dir() == cache
        assert texts.fetch(data_file(serve("right"))) == cache / NAME

    def test_the_users_folder_comes_first(self, cache, tmp_path, monkeypatch):
        assert texts.data_folders() == [cache]
        monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path))
        assert texts.data_folders() == [tmp_path, cache]
        monkeypatch.setenv("COURSE_DATA_DIR", "no/such/folder")
        with pytest.raises(ValueError, match="COURSE_DATA_DIR='no/such/folder' is not a folder"):
            texts.data_folders()
