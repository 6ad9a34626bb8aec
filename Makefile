# sublevel: install, demo, checks. Works with GNU make 3.81 (macOS) and later.
#
#   PYTHON=python3.12          the Python that makes the virtual environment (3.11 or later)
#   CONSTRAINTS=               no constraints file: pip is free to take a CUDA build of PyTorch
#   PIP_ARGS="..."             more arguments for pip, such as where to find a CPU build of PyTorch (see README)
#   JOBS=4                     test processes

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
JOBS ?= 2

# On Linux without an NVIDIA GPU the version of PyTorch is pinned to the one that the tests ran with.
# On macOS PyPI's build is the right one.
ifeq ($(origin CONSTRAINTS),undefined)
CONSTRAINTS := $(shell [ "$$(uname -s)" = Darwin ] || { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1 || echo constraints/cpu.txt)
endif

BIN := $(VENV)/bin
RUNTIME := $(VENV)/.stamp-runtime
DEV := $(VENV)/.stamp-dev
DOCS := $(VENV)/.stamp-docs
# The constraint must be in the same call as the packages it holds back.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) $(PIP_ARGS)
# One thread per process: the networks of the tests and the demo are small.
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS
# Workers start faster from compiled files (make clean removes them).
unexport PYTHONDONTWRITEBYTECODE
# Tests write and delete many small files: in memory, where there are 8 GB of room for them, they wait for no disk.
ROOM := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 8000000 {print "/dev/shm"}')
PYTEST = $(if $(ROOM),TMPDIR=$${TMPDIR:-$(ROOM)}) $(BIN)/pytest -n $(JOBS) --dist loadgroup

.PHONY: help install install-dev install-docs demo test test-full bench lint types contracts format docs docs-figures clean

help:
	@echo "make install      virtual environment in $(VENV) with sublevel, editable"
	@echo "make install-dev  the same with the tools of the checks"
	@echo "make demo         train, prune, measure on a laptop; writes sublevel-runs/demo/report.html"
	@echo "make test         lint, types, import contracts, tests"
	@echo "make test-full    the same with the tests that take minutes"
	@echo "make bench        speed on this machine, beside its targets: about 15 minutes, records in benchmarks/records"
	@echo "make lint | types | contracts | format"
	@echo "make docs         the documentation as pages that open from a disk: build/site/index.html"
	@echo "make docs-figures the figures of the documentation again"
	@echo "make clean        caches and build outputs; $(VENV) and sublevel-runs stay"

install: $(RUNTIME)

install-dev: $(DEV)

install-docs: $(DOCS)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo "Installing sublevel into $(VENV); the first time this takes minutes"
	$(PIP_INSTALL) -e .
	@touch $@

$(DEV): pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo "Installing sublevel and the tools of its checks into $(VENV); the first time this takes minutes"
	$(PIP_INSTALL) -e ".[dev]"
	@touch $(RUNTIME) $@

$(DOCS): pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo "Installing sublevel and what builds its documentation into $(VENV)"
	$(PIP_INSTALL) -e ".[docs]"
	@touch $(RUNTIME) $@

demo: install
	$(BIN)/sublevel run demo
	@echo "Report: $(CURDIR)/sublevel-runs/demo/report.html"

test: lint types contracts
	$(PYTEST) -m "not full"

test-full: lint types contracts
	$(PYTEST)

bench: install
	$(BIN)/python benchmarks/bench.py

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/basedpyright

contracts: install-dev
	$(BIN)/lint-imports

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Documentation: $(CURDIR)/build/site/index.html"

docs-figures: install
	$(BIN)/python docs/figures/geometry.py
	$(BIN)/python docs/figures/gallery.py
	$(BIN)/python docs/figures/report.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
