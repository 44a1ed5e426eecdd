# `make` alone lists the targets. Everything goes into a virtual environment inside the checkout.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
SEED ?= 0
DATA ?= ../shared/data

# The first Python that TensorFlow has packages for.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup train test soak fuzz faults faults-smoke check bench format docs clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.done ## Make the virtual environment (done by the others when needed)

$(VENV)/.done: pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed"; \
		echo "hint: install one, or name it: make PYTHON=/path/to/python3.12"; exit 2; }
	@echo "setting up $(VENV) with $(PYTHON) (TensorFlow is large: some minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

train: $(VENV)/.done ## Train and diagnose the default experiment; ARGS="model=l2 loss=ssim" changes it
	@$(BIN)/cae train $(ARGS)

test: $(VENV)/.done ## Run the tests, those without TensorFlow first
	@$(BIN)/python -m pytest -q -n 2 tests --ignore tests/tf
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/tf

soak: $(VENV)/.done ## Kill, crowd and resume for long (half an hour); SEED=1 for other moments
	@$(BIN)/python -m tests.tf.kills --kills 200 --seed $(SEED)
	@$(BIN)/python -m tests.tf.crowd --runs 20 --sweeps 3

fuzz: $(VENV)/.done ## Try thousands of command lines, configs and files, other ones every time (half an hour)
	@CAE_FUZZ=500 $(BIN)/python -m pytest -q -n 2 tests/test_fuzz.py
	@CAE_FUZZ=100 $(BIN)/python -m pytest -q tests/tf/test_fuzz.py
	@$(BIN)/python -m tests.tf.trainings --cases 60 --seed $(SEED)

faults: $(VENV)/.done ## Score the diagnosis and its fixes on trainings with known faults (hours); DATA=FOLDER
	@$(BIN)/python -m benchmarks.faults --data $(DATA) --docs docs/fault_benchmark.md $(ARGS)

faults-smoke: $(VENV)/.done ## The same on a handful of small cases; fails if a verdict is wrong (minutes)
	@$(BIN)/python -m benchmarks.faults --part smoke --no-treat --out runs/faults-smoke

check: $(VENV)/.done ## Check format, style, types and layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.done ## Measure the speed beside Keras, PyTorch and JAX (half an hour); ARGS="--only training"
	@$(BIN)/python benchmarks/speed.py $(ARGS)

format: $(VENV)/.done ## Format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

docs: $(VENV)/.done ## Write the generated documentation again
	@$(BIN)/python docs/generate.py

clean: ## Remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
