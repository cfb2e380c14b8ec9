# make help lists what can be done. Everything happens in .venv, made on first use.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3.11
STAMP := $(VENV)/.installed
export RAY_USAGE_STATS_ENABLED = 0
export MLFLOW_DISABLE_TELEMETRY = true

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv and install everything, pinned

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or give PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## train the digits policy (about 6 minutes), print a table, leave a report
	@if [ -f runs/digits/summary.json ]; then echo "runs/digits is complete; make clean-runs starts over"; fi
	$(BIN)/adanat-rl train
	@echo "look at runs/digits/report.html; the dashboard: make ui"

demo-mnist: install ## train the MNIST policy (at most 15 minutes), print a table, leave a report
	@if [ -f runs/mnist/summary.json ]; then echo "runs/mnist is complete; make clean-runs starts over"; fi
	$(BIN)/adanat-rl train --preset mnist
	@echo "look at runs/mnist/report.html; the dashboard: make ui"

test: install ## run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

coverage: install ## run all tests and count the lines that they reach, in workers too
	$(BIN)/coverage erase
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered $(ARGS)

check: install ## format, lint, types, import layers, duplicates, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python -m pylint --disable=all --enable=duplicate-code adanat_rl benchmarks
	$(BIN)/python docs/make_docs.py --check

fuzz: install ## throw odd input at every command: 20,000 times in a process, 1,000 times as one (hours)
	$(BIN)/python -m tests.fuzz --examples 20000 --processes 1000 $(ARGS)

format: install ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## all measurements that README quotes (about 3.5 hours on two cores)
	$(BIN)/python -m benchmarks

docs: install ## make the generated pages and pictures again
	$(BIN)/python docs/make_docs.py
	$(BIN)/python docs/make_picture.py

ui: install ## the MLflow dashboard on 127.0.0.1:5000
	$(BIN)/adanat-rl ui

constraints: ## pin the versions that are installed now
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/^torch==\([0-9.]*\)+.*/torch==\1/' | sort -f; } > constraints.new
	@mv constraints.new constraints.txt

clean-runs: ## delete runs/
	rm -rf runs

clean: ## delete .venv and everything that was built or cached, but not runs/
	rm -rf $(VENV) *.egg-info build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache htmlcov
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help install demo demo-mnist test coverage check fuzz format bench docs ui constraints clean-runs clean
