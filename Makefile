# make quickstart   install, and run the first study on synthetic scenes
# make test         install, and run all tests
# make check        ruff and mypy
# make docs         this documentation as a site that needs no network: site/index.html
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)

# Tests wait for other processes half of the time, so three processes fill two cores. A file stays in one process.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder

export RAY_USAGE_STATS_ENABLED ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true
export NO_MKDOCS_2_WARNING ?= 1

.PHONY: quickstart test test-fast coverage check docs install dev clean

quickstart: install
	$(BIN)/rssearch search search_spaces/quickstart.yaml

test: dev
	$(BIN)/pytest $(SIDE_BY_SIDE)

test-fast: dev
	$(BIN)/pytest -m "not slow and not ray" $(SIDE_BY_SIDE)

coverage: dev
	$(BIN)/pytest -m "not slow" --cov --cov-report=xml --cov-report=term

check: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: dev
	$(BIN)/mkdocs build --strict

install: $(VENV)/.installed
dev: $(VENV)/.dev

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "rssearch needs Python 3.11 or 3.12: make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache
