# Crossbank. Two commands do everything: `make demo` and `make test`.
# All targets work from one .venv here, made when it is missing. PYTHON=python3.12 picks the interpreter.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export NUMBA_CACHE_DIR := $(CURDIR)/.numba_cache
export PYTHONDONTWRITEBYTECODE :=
DATA ?=
KEEP ?=
BROKEN_BANK ?=
PEERS ?=
LARGE ?=
TESTS ?=

.PHONY: help setup demo test test-slow test-sweeps test-engines check bench bench-scaling bench-large bench-peers docs docs-figures stubs pins clean

help: ## show what can be done
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml $(wildcard pins/*.txt) .ci/setup-venv.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh .ci/setup-venv.sh
	@touch $(READY)

setup: $(READY) ## make .venv with the pinned packages

demo: $(READY) ## run a whole consortium: four banks, Airflow, the neutral node (DATA=dir, KEEP=1, BROKEN_BANK=1)
	@$(BIN)/python -m simulator demo $(if $(DATA),--data $(DATA)) $(if $(KEEP),--keep) $(if $(BROKEN_BANK),--broken-bank)

test: $(READY) ## run the tests on all cores (under 8 minutes on 2; TESTS="-n 0 tests/unit" chooses)
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(TESTS)

test-slow: $(READY) ## run the long tests
	@$(BIN)/python -m pytest -m "slow and not sweep" --timeout 1800 --ignore tests/engines

test-sweeps: $(READY) ## refuse each write of a bank in turn, for hours; not run by CI
	@$(BIN)/python -m pytest -m sweep --timeout 0 tests/full_disk

test-engines: $(READY) ## run the tests of PostgreSQL and Spark, long ones too (as root it installs what is missing)
	@VENV="$(VENV)" sh .ci/test-engines.sh

check: $(READY) ## ruff and its format, mypy, import-linter, freshness of the generated stubs and docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/architecture/stubs.py --check
	$(BIN)/python -m docs.generate --check

bench: $(READY) ## measure: federated against pooled XGBoost, windows and bins against pandas and Polars
	@$(BIN)/python -m simulator bench
	@$(BIN)/python -m simulator bench --banks 4 --rows 250000 --features 40 --trees 100 --out .bench/large
	@$(BIN)/python -m simulator bench-risk

bench-scaling: $(READY) ## plot how time grows with rows, banks and ciphertexts
	@$(BIN)/python -m simulator bench-scaling

bench-large: $(READY) ## measure 13 banks, ten million generated payments, encrypted (LARGE="--rows 650000")
	@$(BIN)/python -m simulator bench-large $(LARGE)

bench-peers: $(READY) ## compare with XGBoost, FLARE, Flower, FedTree, installed into .bench/peers (PEERS="--rows 5000")
	@$(BIN)/python -m tests.benchmarks.peers $(PEERS)

docs: $(READY) ## generate docs/reference and the marked blocks of the pages from the code
	$(BIN)/python -m docs.generate

docs-figures: $(READY) ## put what `make demo` and `make bench*` measured into README and docs/benchmarks.md
	$(BIN)/python -m docs.generate --figures

stubs: $(READY) ## generate protocol/crossbank_pb2* from the schema
	$(BIN)/python tests/architecture/stubs.py

pins: $(READY) ## renew pins/ from pyproject.toml
	for v in 3.11 3.12 3.13; do $(BIN)/uv pip compile -q -U --python-version $$v --no-header --no-annotate \
	  --no-emit-index-url --extra airflow --extra postgres --group dev pyproject.toml -o pins/py$$(echo $$v | tr -d .).txt; done
	grep -o 'pyspark>[^"]*' pyproject.toml | $(BIN)/uv pip compile -q -U --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url - -o pins/spark.txt

clean: ## remove .venv, caches and what the demo left
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m simulator stop || true; fi
	rm -rf $(VENV) .demo .bench .numba_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build
