"""The Makefile, with make-believe Pythons: what it installs when, how it starts JupyterLab, and what it refuses.

Everything happens in a copy of the Makefile in a temporary folder, so that the environment of this repository is
never touched.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None or sys.platform == "win32", reason="needs make, as on Linux and macOS")

# Answers what the Makefile asks of a Python, and writes down what it was asked to install.
FAKE_PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c "*version_info*) exit {too_old} ;;
    "-c "*ensurepip*)
        if [ {no_venv} = 1 ]; then echo "ModuleNotFoundError: No module named 'ensurepip'" >&2; exit 1; fi ;;
    "-m venv")
        for last; do :; done
        mkdir -p "$last/bin"
        cp "$0" "$last/bin/python"
        printf '#!/bin/sh\\necho "$JUPYTER_CONFIG_PATH" > "config path"\\necho "jupyter $@"\\n' > "$last/bin/jupyter"
        chmod +x "$last/bin/jupyter"
        echo "venv" >> log ;;
    "-m pip")
        case "$*" in
            *install*) echo "install" >> log; exit {install_fails} ;;
        esac ;;
    "-m pytest"|"-m helpers.apps.chat_page") shift; echo "python $@" ;;
    "docs/build.py ") echo "$0 $@" ;;
esac
"""


def write_script(path, text):
    path.write_text(text)
    path.chmod(0o755)


class Course:
    """A folder with the Makefile, and a PATH on which there is nothing but what a test puts there."""

    def __init__(self, folder):
        self.folder = folder / "a course"
        self.bin = folder / "bin"
        self.folder.mkdir()
        self.bin.mkdir()
        (self.folder / "tests").mkdir()
        (self.folder / "docs").mkdir()
        names = ("Makefile", "requirements.txt", "pyproject.toml", "tests/requirements.txt", "docs/requirements.txt")
        for name in names:
            shutil.copy(REPOSITORY / name, self.folder / name)
        for tool in ("sh", "mkdir", "cp", "chmod", "touch", "grep", "sed", "rm"):
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.add_tools(user=1000, system="Linux")
        self.variables = {"PATH": str(self.bin)}

    def add_tools(self, user, system):
        write_script(self.bin / "id", f"#!/bin/sh\necho {user}\n")
        write_script(self.bin / "uname", f"#!/bin/sh\necho {system}\n")

    def add_python(self, name, too_old=False, no_venv=False, install_fails=False):
        facts = {"too_old": int(too_old), "no_venv": int(no_venv), "install_fails": int(install_fails)}
        script = FAKE_PYTHON
        for fact, value in facts.items():
            script = script.replace("{" + fact + "}", str(value))
        write_script(self.bin / name, script)
        return self.bin / name

    def make(self, *arguments):
        return subprocess.run(
            [MAKE, *arguments], cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=60
        )

    def steps(self):
        """What was done, and forgets it."""
        log = self.folder / "log"
        done = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return done


@pytest.fixture(name="course")
def course_with_a_makefile(tmp_path):
    return Course(tmp_path)


def sentence(result):
    """What a failed make said, without make's own last line. It must be one line, and nothing may have been done."""
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if not line.startswith(("make", "gmake"))]
    assert len(said) == 1, said
    assert result.stdout == ""
    assert said[0].endswith(".")
    return said[0]


@pytest.mark.parametrize("target", ["lab", "test", "lint", "refresh", "site"])
class TestNoPython:
    def test_none_found(self, course, target):
        said = sentence(course.make(target))
        assert said.startswith("No Python 3.10, 3.11, 3.12 or 3.13 was found: install one")
        assert not (course.folder / ".venv").exists()

    def test_only_an_old_one_found(self, course, target):
        course.add_python("python3", too_old=True)
        assert sentence(course.make(target)).startswith("No Python 3.10")
        assert course.steps() == []

    def test_named_one_is_too_old(self, course, target):
        old = course.add_python("oldpython", too_old=True)
        assert sentence(course.make(target, f"PYTHON={old}")).startswith(f"{old} is not Python 3.10 to 3.13")
        assert course.steps() == []

    def test_named_one_is_not_there(self, course, target):
        said = sentence(course.make(target, "PYTHON=/no/such/python"))
        assert said.startswith("/no/such/python is not Python 3.10 to 3.13")

    def test_without_venv(self, course, target):
        course.add_python("python3", no_venv=True)
        said = sentence(course.make(target))
        assert said.startswith("python3 comes without venv: install it")
        assert "python3-venv" in said
        assert course.steps() == []
        assert not list(course.folder.glob(".venv*"))


class TestChoiceOfPython:
    def test_a_newer_name_if_python3_is_too_old(self, course):
        course.add_python("python3", too_old=True)
        course.add_python("python3.12", no_venv=True)
        assert sentence(course.make("lab")).startswith("python3.12 comes without venv")

    def test_python3_first(self, course):
        course.add_python("python3.12", too_old=True)
        course.add_python("python3")
        assert course.make("lab").returncode == 0
        assert course.steps() == ["venv", "install"]

    def test_from_the_environment(self, course):
        course.variables["PYTHON"] = str(course.add_python("mine", no_venv=True))
        assert sentence(course.make("lab")).startswith(f"{course.variables['PYTHON']} comes without venv")


def lab_arguments(course, *arguments):
    """The arguments with which JupyterLab is started."""
    course.add_python("python3")
    result = course.make("lab", *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    last = result.stdout.splitlines()[-1].split()
    assert last[:2] == ["jupyter", "lab"]
    return last[2:]


class TestLab:
    def test_with_a_display(self, course):
        course.variables["DISPLAY"] = ":0"
        arguments = lab_arguments(course)
        assert "--no-browser" not in arguments
        assert "--allow-root" not in arguments

    def test_with_wayland(self, course):
        course.variables["WAYLAND_DISPLAY"] = "wayland-0"
        assert "--no-browser" not in lab_arguments(course)

    def test_without_a_display(self, course):
        assert "--no-browser" in lab_arguments(course)

    def test_on_macos_there_is_always_a_display(self, course):
        course.add_tools(user=501, system="Darwin")
        assert "--no-browser" not in lab_arguments(course)

    def test_as_root(self, course):
        course.add_tools(user=0, system="Linux")
        assert "--allow-root" in lab_arguments(course)

    def test_further_arguments_come_last(self, course):
        assert lab_arguments(course, "LAB_ARGS=--port=9999")[-1] == "--port=9999"

    def test_asks_nobody_for_news_and_updates(self, course):
        arguments = lab_arguments(course)
        assert "--LabApp.news_url=None" in arguments
        assert "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate" in arguments

    def test_opens_the_start_page_with_the_courses_settings(self, course):
        line = " ".join(lab_arguments(course))
        assert "--LabApp.default_url=/lab/tree/notebooks/START.md" in line
        assert f"--LabApp.app_settings_dir={course.folder}/.jupyter " in line  # a folder with a space in its name
        assert (course.folder / "config path").read_text().strip() == f"{course.folder}/.jupyter"
        course.variables["JUPYTER_CONFIG_PATH"] = "/my/own"
        lab_arguments(course)
        assert (course.folder / "config path").read_text().strip() == f"{course.folder}/.jupyter:/my/own"
        settings = json.loads((REPOSITORY / ".jupyter" / "overrides.json").read_text())
        assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


class TestInstallation:
    def test_once(self, course):
        course.add_python("python3")
        assert course.make("lab").returncode == 0
        assert course.steps() == ["venv", "install"]
        assert course.make("lab").returncode == 0
        assert course.make("check").returncode == 0
        assert course.steps() == []

    def test_what_only_the_checks_need_comes_with_them(self, course):
        course.add_python("python3")
        assert course.make("test").returncode == 0
        assert course.steps() == ["venv", "install", "install"]
        assert course.make("test").returncode == 0 and course.make("lab").returncode == 0
        assert course.steps() == []
        later = time.time() + 5
        os.utime(course.folder / "tests" / "requirements.txt", (later, later))
        assert course.make("lab").returncode == 0 and course.steps() == []
        assert course.make("test").returncode == 0 and course.steps() == ["install"]

    def test_needs_no_python_afterwards(self, course):
        python = course.add_python("python3")
        assert course.make("lab").returncode == 0
        python.unlink()
        assert course.make("lab").returncode == 0

    @pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
    def test_again_when_the_requirements_change(self, course, name):
        course.add_python("python3")
        assert course.make("lab").returncode == 0
        assert course.steps() == ["venv", "install"]
        later = time.time() + 5
        os.utime(course.folder / name, (later, later))
        assert course.make("lab").returncode == 0
        assert course.steps() == ["install"]

    def test_again_after_a_failure(self, course):
        course.add_python("python3", install_fails=True)
        result = course.make("lab")
        assert result.returncode != 0
        assert "jupyter" not in result.stdout.splitlines()[-1]
        assert course.steps() == ["venv", "install"]
        (course.folder / ".venv" / "bin" / "python").unlink()
        course.add_python("python3")
        assert course.make("lab").returncode == 0
        assert course.steps() == ["venv", "install"]

    def test_an_environment_that_was_left_half_made_is_completed(self, course):
        half_made = course.folder / ".venv" / "bin"
        half_made.mkdir(parents=True)
        write_script(half_made / "python", "#!/bin/sh\nexit 1\n")  # a Python without pip
        course.add_python("python3")
        result = course.make("lab")
        assert result.returncode == 0, result.stderr
        assert course.steps() == ["venv", "install"]


class TestOtherTargets:
    def test_arguments_for_pytest(self, course):
        course.add_python("python3")
        words = course.make("test", "ARGS=-x -k gpt").stdout.splitlines()[-1].split()
        assert words[:2] == ["python", "pytest"] and words[-3:] == ["-x", "-k", "gpt"]
        # What ARGS says comes later and counts, as in ARGS="-n 0".
        assert " ".join(words[2:-3]) == "-n auto --dist loadscope --no-loadscope-reorder"

    def test_in_the_browser(self, course):
        course.add_python("python3")
        words = course.make("test-browser", "ARGS=-k ch03").stdout.splitlines()[-1].split()
        assert words[:2] == ["python", "pytest"] and words[-2:] == ["-k", "ch03"]
        assert " ".join(words[2:-2]) == "-n 2 --dist load --maxschedchunk 1 -m whole tests"

    def test_blank(self, course):
        """Copies elsewhere: nbconvert's own --clear-output would empty the notebooks themselves."""
        course.add_python("python3")
        lines = course.make("blank").stdout.splitlines()
        calls = [line.split() for line in lines if line.startswith("jupyter nbconvert")]
        assert [call[-2] for call in calls] == ["--output-dir=blank", "--output-dir=blank/bonus"]
        for call in calls:
            assert "--ClearOutputPreprocessor.enabled=True" in call and "--clear-output" not in call
        (course.folder / "blank").mkdir()
        result = course.make("blank")
        assert result.returncode != 0 and "The folder blank exists" in result.stderr

    @pytest.mark.parametrize(("display", "flags"), [("", ["--no-browser"]), (":0", [])])
    def test_chat(self, course, display, flags):
        course.add_python("python3")
        course.variables["DISPLAY"] = display
        line = course.make("chat", "CHAT_ARGS=--model x").stdout.splitlines()[-1]
        assert line.split() == ["python", "helpers.apps.chat_page", *flags, "--model", "x"]

    def test_help_lists_every_target(self, course):
        result = course.make("help")
        makefile = (course.folder / "Makefile").read_text()
        targets = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
        assert {"lab", "test", "chat", "lint", "refresh", "clean", "help"} <= set(targets)
        described = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
        assert sorted(target for target, _ in described) == sorted(targets)
        assert not (course.folder / ".venv").exists()

    def test_a_file_called_test_does_not_stop_make_test(self, course):
        course.add_python("python3")
        (course.folder / "test").write_text("")
        assert course.make("test").stdout.splitlines()[-1].startswith("python pytest ")


class TestSite:
    def test_it_has_an_environment_of_its_own(self, course):
        course.add_python("python3")
        result = course.make("site")
        assert result.stdout.splitlines()[-1] == ".venv-site/bin/python docs/build.py"
        assert course.steps() == ["venv", "install"]
        assert not (course.folder / ".venv").exists()
        course.make("site")
        assert course.steps() == []  # nothing is installed twice

    @pytest.mark.parametrize(("marked", "kept"), [(True, False), (False, True)])
    def test_only_a_site_that_was_made_here_is_cleaned(self, course, marked, kept):
        (course.bin / "find").symlink_to(shutil.which("find"))
        (course.folder / "site").mkdir()
        (course.folder / "helpers").mkdir()
        (course.folder / "benchmarks").mkdir()
        (course.folder / "site" / (".buildinfo" if marked else "my page.html")).write_text("")
        assert course.make("clean").returncode == 0
        assert (course.folder / "site").exists() is kept


class TestClean:
    MADE = (
        ".venv/bin/python",
        ".venv-site/bin/python",
        "site/.buildinfo",
        "docs/__pycache__/build.pyc",
        ".pytest_cache/README.md",
        "llm_course_helpers.egg-info/PKG-INFO",
        "build/lib/helpers/gpt.py",
        "build/bdist.linux-x86_64/wheel/a",
        "__pycache__/setup_check.pyc",
        "helpers/__pycache__/gpt.pyc",
        "helpers/course/checks/__pycache__/ch01.pyc",
        "tests/__pycache__/tiny.pyc",
    )
    KEPT = (
        "helpers/gpt.py",
        "tests/tiny.py",
        "benchmarks/loader.py",
        "my notes/day 1.md",
        "my notes/__pycache__/mine.pyc",
        "my",  # what "my notes/__pycache__" falls into at its space
        "notes/__pycache__/mine.pyc",
        "helpers/my own/idea.py",
        "notebooks/my notes/.ipynb_checkpoints/day 1.ipynb",
        "notebooks/.ipynb_checkpoints/ch02_text_data-checkpoint.ipynb",
        "build/a model of mine.txt",
        "runs.egg-info",
    )

    def test_nothing_of_the_learners_is_deleted(self, course):
        (course.bin / "find").symlink_to(shutil.which("find"))
        for name in self.MADE + self.KEPT:
            (course.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (course.folder / name).write_text(name)
        linked = course.folder.parent / "elsewhere" / "__pycache__"
        linked.mkdir(parents=True)
        (course.folder / "helpers" / "a link").symlink_to(linked.parent)
        before = (course.folder / "Makefile").read_bytes()
        for _ in range(2):  # the second time there is nothing left to delete
            result = course.make("clean")
            assert (result.returncode, result.stderr) == (0, "")
        assert [name for name in self.KEPT if not (course.folder / name).is_file()] == []
        assert [name for name in self.MADE if (course.folder / name).exists()] == []
        assert linked.is_dir() and (course.folder / "Makefile").read_bytes() == before
