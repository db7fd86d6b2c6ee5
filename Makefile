# make train: set everything up and run the main job.  make test: set everything up and run all checks.
PYTHON ?= python3
# The first Python 3.8 that runs: python3.8, or one of pyenv's (whose python3.8 may be a shim for a version that is not chosen).
PYTHON38 := $(shell for p in python3.8 $(HOME)/.pyenv/versions/3.8.*/bin/python3.8; do $$p --version >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
VENV_SDK := .venv-sdk
# One process for each core, which takes tests from the others when it has none left, and one thread in each: threads of several
# processes would wait for one another.
PYTEST := -q -n auto --dist worksteal
test test-quick test-sdk: export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: train test test-quick test-sdk lint results clean

train: $(VENV)/installed
	$(VENV)/bin/python train.py --config digits

test: $(VENV)/installed-dev lint
	$(VENV)/bin/python -m pytest $(PYTEST)

test-quick: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest $(PYTEST) -m "not slow"

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

test-sdk:
ifeq ($(PYTHON38),)
	@echo "test-sdk: no Python 3.8 found; nothing run"
else
	$(MAKE) $(VENV_SDK)/installed
	$(VENV_SDK)/bin/python -m pytest $(PYTEST) -m "not slow"
	$(VENV_SDK)/bin/python -m pytest $(PYTEST) -m slow tests/pure
endif

results: $(VENV)/installed
	$(VENV)/bin/python -m benchmarks.digits_norms --output runs/digits-norms

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(VENV)/bin/pip install --quiet -r requirements-dev.txt
	touch $@

$(VENV_SDK)/installed: requirements.txt requirements-sdk.txt
	$(PYTHON38) -m venv $(VENV_SDK)
	$(VENV_SDK)/bin/pip install --quiet -r requirements.txt -c requirements-sdk.txt pytest pytest-xdist hypothesis
	touch $@

clean:
	rm -rf $(VENV) $(VENV_SDK)
