# make demo | run | test | test-system | bench | lint | lock | manifests | clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export COREMOND_COMMIT_HASH ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
export COREMOND_BUILD_DATE ?= $(shell date -u +%Y-%m-%dT%H:%M:%SZ)

.PHONY: setup demo run test test-system bench lint lock manifests clean

setup: $(READY)

$(READY): requirements-dev.txt pyproject.toml
	@tests/make-venv "$(PYTHON)" $(VENV)
	@$(BIN)/pip install --quiet --require-hashes -r requirements-dev.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Start the bundle under ./var, crash a real program through the kernel, show what became of it.
demo: setup
	@$(BIN)/python -m tests.demo

# Keep the bundle in the foreground, under ./var. In another shell: corectl --env var/coremond.env
run: setup
	@$(BIN)/python -m tests.workspace var
	@$(BIN)/coremond-bundle --env var/coremond.env

test: setup
	@tests/install-prerequisites
	@$(BIN)/python -m pytest -n 4 --dist loadgroup --ignore=tests/system

# The bundle where it is at home: in containers, and in a cluster.
test-system: setup
	@tests/install-prerequisites
	@tests/system/install-prerequisites
	@$(BIN)/python -m pytest tests/system

bench: setup
	@tests/install-prerequisites
	@$(BIN)/python -m tests.benchmarks.idle_memory
	@$(BIN)/python -m tests.benchmarks.packing
	@$(BIN)/python -m tests.benchmarks.intake
	@$(BIN)/python -m tests.benchmarks.identity

lint: setup
	@$(BIN)/python -m pytest -q tests/test_conventions.py

# Pin every dependency, with hashes and without the address of any index.
lock: setup
	@tests/lock "$(BIN)"

# Write container/kustomize anew, from the chart.
manifests: setup
	@$(BIN)/python -m tests.manifests

clean:
	rm -rf $(VENV) var build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
