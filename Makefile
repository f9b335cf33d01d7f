# Everything a fresh machine needs is Python 3.11 or newer, make and git.
#   make demo    the whole way on a made-up city: detect, pseudo-label, train, evaluate, one report (offline)
#   make test    the tests
#   make check   format, lint, types, tests: what CI runs
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check format lint types setup clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/semicdvl demo --output demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

check: format lint types test

format: $(READY)
	$(BIN)/ruff format --check src tests tools benchmarks

lint: $(READY)
	$(BIN)/ruff check src tests tools benchmarks

types: $(READY)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache
