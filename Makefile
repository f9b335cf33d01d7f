# Everything a fresh machine needs is Python 3.11 or newer, make and git.
#   make demo    the whole way on a synthetic city: detect, pseudo-label, train, evaluate, one report (offline)
#   make test    the tests
#   make test-slow   the tests that take minutes: tutorials, notebooks, pinned outputs
#   make test-robustness   all malformed inputs, of which `make test` runs a share
#   make check   format, lint, types, tests: what CI runs
#   make docs    the documentation site, into site/
#   make web     the review page, from web/ into the package; the only target that needs Node
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready

.PHONY: demo test test-slow test-robustness check docs web format lint types setup clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

$(DOCS_READY): $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[docs]"
	touch $(DOCS_READY)

demo: $(READY)
	$(BIN)/semicdvl demo --output demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not robustness"

test-robustness: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m robustness tests/robustness
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.robustness.report --seed 1

check: format lint types test

docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

web: $(READY)
	$(BIN)/python tools/build_page.py

format: $(READY)
	$(BIN)/ruff format --check src tests tools benchmarks docs/hooks

lint: $(READY)
	$(BIN)/ruff check src tests tools benchmarks docs/hooks

types: $(READY)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo site .mypy_cache .ruff_cache .pytest_cache
