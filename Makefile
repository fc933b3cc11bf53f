# Needs make, Python 3.11 or newer with its venv module, and a network to a Python package index.
# Everything is installed into .venv; `make clean` takes it away again.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

VENV := .venv
BIN := $(VENV)/bin
# Files that say what .venv holds, so that a second `make` has nothing to do.
VENV_MADE := $(VENV)/.made
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
LOCKS := requirements.txt requirements-dev.txt requirements-phoenix.txt
# A trace backend and a collector for test groups of their own; `make test` needs neither.
PHOENIX := .venv-phoenix/.made
BUILT_OTELCOL := .otelcol/otelcol

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# pyright would ask the network whether it is the newest; the lock says which one runs.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# A .venv that was moved or copied here, or whose Python is gone, points at the wrong place: it is made anew.
STALE := $(shell [ ! -s $(VENV_MADE) ] || { [ -x $(BIN)/python ] && [ "$$(cat $(VENV_MADE))" = "$$(pwd -P)" ]; } \
  || echo stale)

PYTEST := $(BIN)/python -m pytest
# Some images forbid it; without, every worker compiles all tests anew, for most of a minute.
export PYTHONDONTWRITEBYTECODE :=
# Whole files go to one worker, so that a server or database started for a file is started once. Three workers for two
# cores, since tests wait for servers, too; with four, tests that wait for a time failed.
WORKERS := $(shell cores=$$(getconf _NPROCESSORS_ONLN) && workers=$$((cores * 3 / 2)) && echo $$((workers > 8 ? 8 : workers)))
PARALLEL := -n $(WORKERS) --dist loadfile

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(RUNTIME) ## run an agent through the proxy and show what the proxy saw
	@$(BIN)/llm-proxy demo

serve: $(RUNTIME) ## serve ./proxy.yaml (or $LLM_PROXY_CONFIG); writes a starter where there is none
	@if [ -z "$${LLM_PROXY_CONFIG:-}" ] && [ ! -e proxy.yaml ]; then $(BIN)/llm-proxy init .; fi
	@exec $(BIN)/llm-proxy serve $(ARGS)

test: $(DEV) ## run the whole test suite; ARGS='-k ledger' narrows it
	@$(PYTEST) $(PARALLEL) -m 'not soak' $(ARGS)

soak: $(DEV) ## run the long lane: soak tests, and every property with many more examples
	@$(PYTEST) $(PARALLEL) -m 'soak or hypothesis' --hypothesis-profile soak --timeout 0 $(ARGS)

test-browser: $(DEV) ## the console in a real Chromium, which has to be installed
	@$(PYTEST) $(PARALLEL) -m browser tests/browser $(ARGS)

test-phoenix: $(DEV) $(PHOENIX) ## what Phoenix shows of a run; installs it first (850 MB)
	@$(PYTEST) -m phoenix tests/backends $(ARGS)

test-collector: $(DEV) $(if $(OTELCOL),,$(BUILT_OTELCOL)) ## otel-collector.yaml in $OTELCOL, else in one that Go builds
	@$(PYTEST) $(PARALLEL) --dist load -m collector tests/backends $(ARGS)

check: $(DEV) ## lint, formatting, types, import rules, locks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	@if grep -nE '://|^[[:space:]]*-(i|f|-[a-z-]*(index|find-links|trusted-host))' $(LOCKS); then \
	  echo 'These lines name an index; "make lock" writes the files without.' >&2; exit 1; fi

fmt: $(DEV) ## format the code and fix what lint can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## compare the proxy with a bare pass-through, in one run; ARGS=--quick for a short one
	@$(BIN)/python -m bench.run $(ARGS)

bench-console: $(DEV) ## every page of the console over 1,000,000 calls, and load beside a person; ARGS='--calls 100000'
	@$(BIN)/python -m bench.console $(ARGS)

# Pins that still satisfy pyproject.toml stay as they are; UPGRADE=1 takes the newest of everything.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-header --no-annotate $(if $(UPGRADE),--upgrade)
lock: $(DEV) ## write requirements*.txt anew from pyproject.toml; UPGRADE=1 for the newest versions
	$(LOCK) --group build -o requirements.txt pyproject.toml
	$(LOCK) --group build --group dev --group clients -c requirements.txt -o requirements-dev.txt pyproject.toml
	$(LOCK) --no-strip-extras --group phoenix -o requirements-phoenix.txt

venv: $(DEV) ## only set up .venv, for an editor

clean: ## remove all that make made; databases and config stay
	rm -rf $(VENV) $(dir $(PHOENIX)) $(dir $(BUILT_OTELCOL)) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find llm_proxy routing budgets tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo serve test soak test-browser test-phoenix test-collector check fmt bench bench-console lock venv clean stale

# A python that is too old, or only a version manager's shim, is passed over. A .venv that still works stays.
stale: ;
$(VENV_MADE): $(STALE)
	@if [ -z "$(STALE)" ] && $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then pwd -P >$@; exit; fi; \
	if [ -n "$$PYTHON" ]; then set -- "$$PYTHON"; \
	else set -- python3.13 python3.12 python3.11 python3 python3.14 python; fi; \
	bare=; \
	for python do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    echo "Making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV) && pwd -P >$@; exit; \
	  fi; \
	  bare=$${bare:-$$python}; \
	done; \
	if [ -n "$$bare" ]; then \
	  echo "$$bare cannot make a virtual environment: its ensurepip module is missing." >&2; \
	  echo "Install it (on Debian and Ubuntu: apt install $$(basename "$$bare")-venv) and run make again." >&2; \
	else \
	  echo "No Python 3.11 or newer among: $$*" >&2; \
	  echo "Install one, or name one: make PYTHON=/path/to/python3.12" >&2; \
	fi; exit 1

PIP_INSTALL = $(BIN)/python -m pip install --quiet
# The project itself, for its console script. Its build tool is in the lock, so nothing else is fetched.
PROJECT = --no-deps --no-build-isolation --editable .

$(RUNTIME): requirements.txt pyproject.toml $(VENV_MADE)
	@echo "Installing requirements.txt into $(VENV) (the first time takes a minute or so)"
	@$(PIP_INSTALL) --require-hashes -r requirements.txt
	@$(PIP_INSTALL) $(PROJECT)
	@touch $@

$(DEV): requirements-dev.txt pyproject.toml $(VENV_MADE)
	@echo "Installing requirements-dev.txt into $(VENV) (the first time takes a minute or two)"
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	@$(PIP_INSTALL) $(PROJECT)
	@touch $@ $(RUNTIME)

# In a venv of its own: what it needs and what the proxy needs are no concern of each other.
$(PHOENIX): requirements-phoenix.txt $(VENV_MADE)
	@echo "Installing requirements-phoenix.txt into $(@D) (850 MB, a minute or two)"
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --require-hashes -r requirements-phoenix.txt
	@touch $@

$(BUILT_OTELCOL): tests/backends/otelcol.yaml
	@command -v go >/dev/null || { \
	  echo 'No Go to build a collector with. Install it (https://go.dev/dl), or name an otelcol-contrib' >&2; \
	  echo 'v0.159 or newer: make test-collector OTELCOL=/path/to/otelcol-contrib' >&2; exit 1; }
	@echo "Building $@ from $< (a few minutes)"
	@CGO_ENABLED=0 go run go.opentelemetry.io/collector/cmd/builder@v0.159.0 --config $<
