# `make demo` and `make test` do all the set-up on a machine that has Python 3.11 or newer, and nothing twice.

PYTHON ?= python3
TORCH ?= torch==2.13.0
# Any pip requirement: TORCH=torch takes the newest, TORCH='torch --index-url URL' one built for this machine.
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=

.PHONY: setup demo test lint bench docs clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

# The environment is made once and brought up to date when pyproject.toml has changed.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "torchvitals needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); type: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python has no venv module here; type: sudo apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e '.[all,dev]'
	@mkdir -p .types && ln -sfn .. .types/torchvitals
	@touch $@

demo: $(STAMP)
	@$(BIN)/torchvitals demo all --dir .demo $(if $(DEMO_EXIT),,--stay)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tables of docs/ from the code they are about; a test tells when they are old.
docs: $(STAMP)
	@$(BIN)/python docs/generate.py

bench: $(STAMP)
	@for benchmark in $$(grep -l __main__ benchmarks/*.py); do echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1; done

clean:
	rm -rf $(VENV) .types build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
