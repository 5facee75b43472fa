# Each target sets itself up on a fresh machine; `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST_READY := $(LOWEST)/.ready
# Of the tests, those that hold what depends on Polars, DuckDB, Arrow and NumPy, and need no PyTorch.
ON_LOWEST := golden amazon_beauty amazon_meta amazon_parse alibaba_parse alibaba_rows windows tables \
	vocabulary sql parquet_shards
PARALLEL = -n logical --maxprocesses $(or $(WORKERS),8) --dist worksteal

# pip says nothing, or hundreds of lines: this says every few seconds how far it is.
define install
@echo "installing $(1): a few minutes on a fresh machine, seconds later"
@set -o pipefail; \
	$(or $(3),$(BIN))/python -m pip install --disable-pip-version-check --progress-bar off $(2) \
	2> >(grep -v '^WARNING: Location .* is ignored' >&2) | { \
	packages=0; told=0; at=preparing; \
	while read -r -t 10 doing what _ || [ $$? -gt 128 ]; do \
		case $$doing in \
			Collecting | Processing) packages=$$((packages + 1)); what=$${what##*/}; at="found $${what%%[<>=~-]*}" ;; \
			Installing) [ $$what != collected ] || at="unpacking, which takes longest" ;; \
		esac; \
		[ $$SECONDS -lt $$((told + 10)) ] || { told=$$SECONDS; echo "$$told s, $$packages packages: $$at"; }; \
	done; } && echo "$$SECONDS s: done"
endef
extra = $(call install,the extra $(1),-c constraints.txt -e '.[$(1)]')

.PHONY: help setup test test-more lowest test-lowest export-test container-test spark cluster-test check train bench docs docs-check docs-pages docs-site fuzz mutants coverage audit clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv with tinprep and what its checks need

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tinprep needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(call install,tinprep with what its checks need,-c constraints.txt -e '.[dev]')
	@touch $@

test: $(READY) ## run every test, in WORKERS=8 processes, or one a core
	$(BIN)/python -m pytest $(PARALLEL)

test-more: $(READY) ## every test but those of Spark: test, export-test and container-test in one go
	TINPREP_EXPORTS=1 TINPREP_CONTAINER=1 $(BIN)/python -m pytest $(PARALLEL) --ignore tests/spark

lowest: $(LOWEST_READY)

$(LOWEST_READY): pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(call install,the oldest libraries allowed,-r constraints-lowest.txt,$(LOWEST)/bin)
	$(call install,tinprep,--no-deps -e .,$(LOWEST)/bin)
	@touch $@

test-lowest: lowest ## what reads, orders and writes rows, with the oldest libraries that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest $(PARALLEL) $(ON_LOWEST:%=tests/test_%.py)

export-test: $(READY) ## every model as an ONNX graph; `make test` has a few, as each takes seconds
	TINPREP_EXPORTS=1 $(BIN)/python -m pytest $(PARALLEL) tests/trainer/test_export.py

container-test: $(READY) ## the steps of docs/Containerfile, in an environment of their own
	TINPREP_CONTAINER=1 $(BIN)/python -m pytest tests/test_server.py -k container

spark: $(READY) # without the rest of its extra: pandas would switch on tests of benchmarks
	$(call install,Spark,-c constraints.txt --no-deps pyspark)

cluster-test: $(READY) ## --engine spark, also on a cluster on the loopback that loses a worker
	@command -v java > /dev/null || echo "no java here: Spark needs Java 17, and its tests are skipped"
	$(call extra,spark)
	TINPREP_CLUSTER=1 $(BIN)/python -m pytest -rs $(PARALLEL) tests/spark

check: $(READY) ## lint, types, import layers, SQL
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/sqlfluff lint --disable-progress-bar sql

train: $(READY) ## make the synthetic demo data, train TIN on it, print its table
	$(BIN)/tinprep amazon --demo --bins 10 --out data/amazon-demo
	$(BIN)/tinprep train data/amazon-demo --model tin --run runs/tin-demo --resume

bench: $(READY) ## run the benchmarks; SCALE=0.1 makes them shorter
	$(call extra,bench)
	$(BIN)/python benchmarks/amazon.py --scale $(or $(SCALE),1.0)
	$(BIN)/python benchmarks/alibaba.py --scales 0.01 0.05
	$(BIN)/python benchmarks/training.py

docs: $(READY) ## measure docs/results.md anew, on the demo data: long
	$(BIN)/tinprep reproduce all --setting small --out docs
	$(BIN)/tinprep results docs --readme docs/paper-results.md

docs-check: $(READY) ## fail where docs/results.md or the part of it in docs/paper-results.md is stale
	$(BIN)/tinprep results docs --readme docs/paper-results.md --check

docs-pages: $(READY) ## write docs/cli.md and the keys of docs/description.md anew
	$(BIN)/python -m tests.docs_pages

docs-site: $(READY) ## build/site: docs/ as a site with search; needs no network once its generator is there
	$(if $(wildcard $(BIN)/zensical),,$(call extra,docs))
	$(BIN)/zensical build --strict --config-file zensical.toml

fuzz: $(READY) ## look for inputs that break a reader; RUNS=10000 a target
	$(call extra,fuzz)
	$(BIN)/python -m fuzz.run --runs $(or $(RUNS),10000)

mutants: $(READY) ## change the pure steps in one place at a time, and list what no test notices
	$(call extra,mutants)
	rm -rf mutants
	$(BIN)/mutmut run
	$(BIN)/mutmut results

coverage: $(READY) ## run every test, and fail if they reach less than 95% of the lines
	$(call extra,coverage)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

audit: $(READY) ## look the installed versions up among known vulnerabilities (needs the network)
	$(call extra,audit)
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

clean: ## remove what the targets above made, but not data/
	rm -rf $(VENV) $(LOWEST) mutants build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
