# Two commands: `make lab` opens the course, `make test` checks all of it.
# Both make the environment in .venv first if it is not there.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-for-tests
SITE_VENV := .venv-site
SITE_STAMP := $(SITE_VENV)/.installed

# The first Python 3.10-3.13 that is found; or say which: make lab PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	"$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)

# No news and no version checks: JupyterLab would ask the internet for them (and the learner, with a pop-up). What else
# differs from JupyterLab's own settings is in the folder .jupyter; what you have set yourself comes before that.
OFFLINE := --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
	--LabApp.extension_manager=readonly "--LabApp.app_settings_dir=$(CURDIR)/.jupyter"

# As root (a container) Jupyter wants to be told; without a display there is no browser to open.
CHAT_FLAGS := $(if $(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname -s))),,--no-browser)
LAB_FLAGS := $(if $(filter 0,$(shell id -u)),--allow-root) $(CHAT_FLAGS)

.PHONY: lab blank site test test-browser check chat lint refresh bench links clean help

# The course's settings come after your own, and both count.
lab: export JUPYTER_CONFIG_PATH := $(CURDIR)/.jupyter$(if $(JUPYTER_CONFIG_PATH),:$(JUPYTER_CONFIG_PATH))
lab: $(STAMP)  ## open the course in JupyterLab
	$(BIN)/jupyter lab $(LAB_FLAGS) $(OFFLINE) --LabApp.default_url=/lab/tree/notebooks/START.md $(LAB_ARGS)

blank: $(STAMP)  ## copies of the notebooks without outputs, in blank/, for predicting before you see
	@test ! -e blank || { echo "The folder blank exists and may hold your answers: rename it, then run make blank again." >&2; exit 1; }
	$(BIN)/jupyter nbconvert --log-level=WARN --to=notebook --ClearOutputPreprocessor.enabled=True --output-dir=blank notebooks/*.ipynb
	$(BIN)/jupyter nbconvert --log-level=WARN --to=notebook --ClearOutputPreprocessor.enabled=True --output-dir=blank/bonus notebooks/bonus/*.ipynb

site: $(SITE_STAMP)  ## the course as pages to read in a browser, in site/, with the outputs that the notebooks have
	$(SITE_VENV)/bin/python docs/build.py

# Files run side by side, one worker per core (see conftest.py); ARGS="-n 0" runs them in one process.
test: $(TEST_STAMP)  ## run every check; arguments for pytest in ARGS
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder $(ARGS)

# Two notebooks at once; each is run whole, so that this takes about as long as `make test`.
test-browser: $(TEST_STAMP)  ## run every notebook in a real browser (needs Chromium), its widgets and its stop button
	$(BIN)/python -m pytest -n 2 --dist load --maxschedchunk 1 -m whole tests $(ARGS)

check: $(STAMP)  ## is this machine ready, and how long does each notebook take
	$(BIN)/python setup_check.py

chat: $(STAMP)  ## a page to write with the course model; an assistant: make chat CHAT_ARGS="--model assistant"
	$(BIN)/python -m helpers.apps.chat_page $(CHAT_FLAGS) $(CHAT_ARGS)

lint: $(TEST_STAMP)  ## ruff and the notebook lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.notebooks lint

refresh: $(TEST_STAMP)  ## execute notebooks in place: make refresh, or make refresh NB=notebooks/ch02_text_data.ipynb
	$(BIN)/python -m tests.notebooks refresh $(NB)

bench: $(TEST_STAMP)  ## measure speed and memory beside transformers; writes benchmarks/RESULTS.md (about 10 minutes)
	$(BIN)/python -m benchmarks $(BENCH)

links: $(TEST_STAMP)  ## stamp the repository named in pyproject.toml into the notebooks; write README's table of notebooks
	$(BIN)/python -m tests.notebooks links

# Only what tools made in the course's own folders: yours are left alone, and so is what JupyterLab kept of your notebooks.
clean:  ## remove the environments, the site and the caches that tools made
	rm -rf $(VENV) $(SITE_VENV) llm_course_helpers.egg-info build/lib build/bdist.* .pytest_cache .ruff_cache .hypothesis __pycache__
	test ! -f site/.buildinfo || rm -rf site
	find docs helpers tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

# A sentence instead of an error where there is no Python that can make an environment.
define NEEDS_PYTHON
@test -n "$(PYTHON)" || { echo "No Python 3.10, 3.11, 3.12 or 3.13 was found: install one (for instance 'sudo apt install python3 python3-venv', or from python.org) and run make again." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { echo "$(PYTHON) is not Python 3.10 to 3.13: install one of these and run 'make PYTHON=python3.12', with its name." >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) comes without venv: install it (on Debian and Ubuntu: 'sudo apt install python3-venv') and run make again." >&2; exit 1; }
endef

$(STAMP): requirements.txt pyproject.toml
	$(NEEDS_PYTHON)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# What only the checks need, on top of that: learners who never run them never install it.
$(TEST_STAMP): $(STAMP) tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@$(BIN)/python -m helpers.smollm2 || echo "Going on without it: what depends on this file is run, and not compared."
	@touch $@

# Sphinx and its like, apart from the course's packages, which do not need them and whose versions they may not change.
$(SITE_STAMP): docs/requirements.txt
	$(NEEDS_PYTHON)
	$(SITE_VENV)/bin/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv $(SITE_VENV)
	$(SITE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@
