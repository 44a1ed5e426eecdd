# `make` lists the targets. Everything is installed into a virtual environment inside the checkout.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
SEED ?= 0
DRAW ?= 1
DATA ?= ../shared/data

# The first Python version that TensorFlow supports.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup train test soak fuzz faults faults-smoke faults-outside check bench format docs gallery clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.done ## Create the virtual environment (other targets do it when needed)

$(VENV)/.done: pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed"; \
		echo "hint: install one, or set its path: make PYTHON=/path/to/python3.12"; exit 2; }
	@echo "setting up $(VENV) with $(PYTHON) (TensorFlow is large: this takes some minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

train: $(VENV)/.done ## Train and diagnose the default experiment; ARGS="model=l2 loss=ssim" changes it
	@$(BIN)/cae train $(ARGS)

test: $(VENV)/.done ## Run the tests, those without TensorFlow first
	@$(BIN)/python -m pytest -q -n 2 tests --ignore tests/tf
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/tf

soak: $(VENV)/.done ## Long tests that kill, crowd and resume runs, a third of their cases (an hour or two); SEED=1: others
	@CAE_SEED=$(SEED) $(BIN)/python -m pytest -q -n 2 --dist worksteal -m soak tests

fuzz: $(VENV)/.done ## Long tests with random command lines, configs, files and run folders (40 minutes)
	@CAE_FUZZ=500 $(BIN)/python -m pytest -q -n 2 tests/test_fuzz.py
	@CAE_FUZZ=500 $(BIN)/python -m pytest -q -n 2 -k folder_of_anything tests/tf/test_hostile_folders.py
	@CAE_FUZZ=100 $(BIN)/python -m pytest -q tests/tf/test_fuzz.py

faults: $(VENV)/.done ## Measure how often the diagnosis and its fixes are right (hours); DATA=FOLDER
	@$(BIN)/python -m benchmarks.faults --data $(DATA) --record $(ARGS)

faults-smoke: $(VENV)/.done ## Small version of faults; fails if a verdict is wrong (minutes)
	@$(BIN)/python -m benchmarks.faults --part smoke --no-fixes --out runs/faults-smoke

faults-outside: $(VENV)/.done ## Draw published faults into plain Keras scripts (2 hours); DRAW=3 DATA=FOLDER
	@$(BIN)/python -m benchmarks.faults --part outside --draw $(DRAW) --data $(DATA) --record $(ARGS)

check: $(VENV)/.done ## Check formatting, style, types and the import contract
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.done ## Compare the speed with Keras, PyTorch and JAX (30 minutes); ARGS="--only training"
	@$(BIN)/python -m benchmarks.speed $(ARGS)

format: $(VENV)/.done ## Format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

docs: $(VENV)/.done ## Regenerate the generated documentation
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m benchmarks.faults.page

gallery: $(VENV)/.done ## Train three runs and take pictures of their pages (needs Chromium); DATA=FOLDER
	@$(BIN)/python docs/gallery.py --data $(DATA)

clean: ## Remove the virtual environment and caches; runs are kept
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
