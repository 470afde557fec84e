# Needs Python 3.11 or newer with pip, nothing else: every target makes the environment it uses.
PYTHON ?= python3
VENV := .venv
FLOORS := .venv-floors
FLOORS_WEBSOCKET := .venv-floors-websocket
BENCH := .venv-bench
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test check format test-servers test-floors bench soak clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

demo: $(VENV)/demo.stamp ## 200 tasks share 8 SQLite connections, and one of them breaks
	@$(BIN)/python examples/demo.py

test: $(VENV)/dev.stamp ## every test that needs no server
	$(BIN)/python -m pytest

check: $(VENV)/dev.stamp ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/dev.stamp ## rewrite the files the way `make check` wants them
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-servers: $(VENV)/dev.stamp ## the tests with MariaDB, PgBouncer, nginx, etcd, Node and Chromium, which it installs from Debian, and the long ones
	@.ci/install-servers
	$(BIN)/python -m pytest -m servers

test-floors: $(FLOORS)/test.stamp $(FLOORS_WEBSOCKET)/test.stamp ## the tests again, on the oldest dependencies we declare
	$(FLOORS)/bin/python -m pytest tests/core tests/database tests/grpc tests/http tests/examples
	$(FLOORS_WEBSOCKET)/bin/python -m pytest tests/websocket

bench: $(BENCH)/bench.stamp ## the benchmarks, with the peers; about a quarter of an hour
	@$(BENCH)/bin/python -m benchmarks

soak: $(VENV)/dev.stamp ## a million random operations with faults of every kind; the books must balance
	@$(BIN)/python -m benchmarks soak

clean: ## remove everything that a target made
	rm -rf $(VENV) $(FLOORS) $(FLOORS_WEBSOCKET) $(BENCH) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per set of packages: `make demo` installs only what the demo needs.
$(VENV)/demo.stamp: pyproject.toml
	@echo "installing the demo's packages into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml
	@echo "installing the development packages into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) --editable '.[dev]'
	@touch $@

$(FLOORS)/test.stamp: pyproject.toml .ci/floors.txt
	@echo "installing the oldest declared dependencies into $(FLOORS)"
	@$(PYTHON) -m venv $(FLOORS)
	@$(FLOORS)/bin/python $(PIP) --constraint .ci/floors.txt --editable '.[test]'
	@touch $@

$(FLOORS_WEBSOCKET)/test.stamp: pyproject.toml .ci/floors-websocket.txt
	@echo "installing the oldest dependencies of WebSockets into $(FLOORS_WEBSOCKET)"
	@$(PYTHON) -m venv $(FLOORS_WEBSOCKET)
	@$(FLOORS_WEBSOCKET)/bin/python $(PIP) --constraint .ci/floors-websocket.txt --editable '.[test,websocket]'
	@touch $@

$(BENCH)/bench.stamp: pyproject.toml
	@echo "installing the benchmarks' peers into $(BENCH)"
	@$(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python $(PIP) --editable '.[bench]'
	@touch $@
