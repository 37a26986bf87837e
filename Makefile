# Everything here sets itself up: a bare Debian with Python 3.11, git and make is enough.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
IMAGE_PINS := uv pip compile --quiet --generate-hashes --python-version 3.11 --universal \
  --no-annotate --no-header -c constraints.txt

# Hundreds of processes are started: without bytecode on the disk each compiles all of src again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo unit test lint faults bench bench-pins docs pins image-pins clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): constraints.txt pyproject.toml
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash .ci/setup
	@touch $@

setup: $(READY) ## the virtual environment, from pinned versions with hashes

demo: setup ## the whole journey, on this machine, with real parts
	@$(BIN)/servesync demo

unit: setup ## the fast loop, below a minute: tests of single modules and of the agent in the simulator
	$(BIN)/pytest -n 2 -m "not slow" tests/unit tests/sim

test: setup ## every test, the long ones in a short form
	$(BIN)/pytest -n 4 --dist loadfile

lint: setup ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: setup ## the fault and soak tests in their long form
	LONG_TESTS=1 $(BIN)/pytest --timeout 3600

bench: setup ## measured against what a user would take instead: docs/performance.md (BENCH="--cases tar.gz --rounds 3")
	@PYTHON="$(PYTHON)" bash bench/setup
	@$(BIN)/python bench/run.py $(BENCH)

bench-pins: ## makes bench/requirements.txt anew (needs uv on PATH)
	uv pip compile --quiet --generate-hashes --python-version 3.11 --no-annotate --no-header \
	  --upgrade bench/requirements.in -o bench/requirements.txt

docs: setup ## makes docs/settings.md anew from the code and config.example.yaml
	$(BIN)/python docs/settings_markdown.py > docs/settings.md

pins: ## makes constraints.txt, and then the images' lists, anew from pyproject.toml (needs uv on PATH)
	uv pip compile --quiet --generate-hashes --python-version 3.11 --universal --all-extras \
	  --no-annotate --no-header --upgrade pyproject.toml -o constraints.txt
	$(MAKE) image-pins

image-pins: ## makes the images' lists anew from constraints.txt (needs uv on PATH)
	$(IMAGE_PINS) pyproject.toml -o deploy/docker/requirements.slim.txt
	$(IMAGE_PINS) --extra tensorflow pyproject.toml -o deploy/docker/requirements.full.txt
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(IMAGE_PINS) - -o deploy/docker/requirements.build.txt

clean: ## removes what the other targets made
	rm -rf $(VENV) .bench-venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
