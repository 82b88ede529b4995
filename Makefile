# `make demo` and `make test` need nothing but Python 3.10 or newer: the rest goes into .venv, at the versions of
# constraints.txt. Another interpreter needs a folder of its own: make test PYTHON=python3.12 VENV=../venv-3.12

PYTHON ?= python3
VENV ?= .venv
# A file of versions to install, or nothing for the newest of everything.
CONSTRAINTS ?= constraints.txt
# What pip is told about torch, whose newest release may bring gigabytes: make test-newest TORCH=torch==2.13.0
TORCH ?= torch
# Test processes. Each takes its share of the processors (tests/conftest.py).
WORKERS ?= 2

PIP_INSTALL := $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet $(CONSTRAINTS:%=--constraint %)
PYTEST := $(VENV)/bin/python -m pytest
BASE_INSTALLED := $(VENV)/.base-installed
DEV_INSTALLED := $(VENV)/.dev-installed
SPARK_INSTALLED := $(VENV)/.spark-installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-gpu test-versions test-newest test-lowest check format

help:  ## Print this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BASE_INSTALLED)  ## Train Mamba4Rec on a synthetic log, evaluate it and recommend (about three minutes).
	$(VENV)/bin/hf-seqrec train --config synthetic/mamba4rec --overwrite_output_dir

test: $(DEV_INSTALLED)  ## Run the tests, without the slow ones.
	$(PYTEST) --numprocesses $(WORKERS) -m "not slow and not gpu"

test-all: $(SPARK_INSTALLED)  ## Run the slow tests too, those of Spark among them where there is Java.
	$(PYTEST) --numprocesses $(WORKERS) -m "not gpu"

test-gpu: $(DEV_INSTALLED)  ## Run the tests that need a CUDA device.
	$(PYTEST) -m gpu

test-versions: test-newest test test-lowest  ## Run the tests with the newest, the pinned and the lowest versions.

# The folder is kept: remove it to get what has come out since.
test-newest:  ## Run the tests with the newest version of everything.
	$(MAKE) test VENV=$(VENV)-newest CONSTRAINTS=

test-lowest:  ## Run the tests with the lowest versions that pyproject.toml allows.
	$(MAKE) test VENV=$(VENV)-lowest CONSTRAINTS=constraints-lowest.txt

check: $(DEV_INSTALLED)  ## Lint, check the format and the types.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(DEV_INSTALLED)  ## Fix what ruff can fix, and format.
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Newer than pyproject.toml and the constraints: nothing to install.
$(BASE_INSTALLED): pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(PIP_INSTALL) $(TORCH) --editable ".[cpu,data,plot]"
	touch $@

$(DEV_INSTALLED): pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(PIP_INSTALL) $(TORCH) --editable ".[dev]"
	touch $@ $(BASE_INSTALLED)

$(SPARK_INSTALLED): $(DEV_INSTALLED)
	$(PIP_INSTALL) $(TORCH) --editable ".[dev,spark]"
	touch $@
