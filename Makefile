# Each target creates what it needs: from a fresh clone, one command is enough.
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu   installs the small CPU-only build of torch
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test test-slow test-nightly lint check bench clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml infra/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		--constraint infra/constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python -m jobs.demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m 'slow and not nightly'

test-nightly: $(INSTALLED)
	$(BIN)/python -m pytest -m nightly

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(BIN)/python -m pytest -m 'not nightly'

bench: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.pipeline
	$(BIN)/python -m tests.benchmarks.evaluation
	$(BIN)/python -m tests.benchmarks.training
	$(BIN)/python -m tests.benchmarks.planning
	$(BIN)/python -m tests.benchmarks.archive
	$(BIN)/python -m tests.benchmarks.registration
	$(BIN)/python -m tests.benchmarks.review
	$(BIN)/python -m tests.benchmarks.snapshot
	$(BIN)/python -m tests.benchmarks.exemplars
	$(BIN)/python -m tests.benchmarks.unknown
	$(BIN)/python -m tests.benchmarks.identities
	$(BIN)/python -m tests.benchmarks.prompts
	$(BIN)/python -m tests.benchmarks.scale

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
