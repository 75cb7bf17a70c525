# The commands of the house. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help demo ui test test-torch test-tf test-slow test-services test-docker test-bench images bench fault-table prediction method measuring lint format env env-torch env-tf env-cuda env-bench lock
.PHONY: clean clean-env

# Imports without cached byte-code take three to four times as long.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
CONFIG ?= configs/quickstart.yaml
# Extra arguments for pytest: make test-torch ARGS="-k ingest -x"
ARGS ?=
# Files of tests that run at once. Each starts workers of its own, so not one per core of a big one.
JOBS ?= 2
# Whole files, since their tests share what takes minutes to make; in order, the longest being first.
PYTEST_JOBS := -n $(JOBS) --dist loadfile --no-loadscope-reorder

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: env ## Run the quickstart study from raw data to report
	$(BIN)/tandem run --config $(CONFIG)

ui: env-torch ## Open the MLflow UI on the study's runs
	$(BIN)/tandem ui

test: env ## Run all tests, each in its environment
	@failed=0; \
	$(MAKE) --no-print-directory test-torch || failed=1; \
	$(MAKE) --no-print-directory test-tf || failed=1; \
	exit $$failed

test-torch: env ## Run the shared and the PyTorch tests
	$(BIN)/python -m pytest $(PYTEST_JOBS) tests --ignore=tests/tf_pipeline -m "not bench and not long and not services and not docker" $(ARGS)

test-tf: env ## Run the TensorFlow tests
	.venv-tf/bin/python -m pytest $(PYTEST_JOBS) tests/tf_pipeline -m "not long" $(ARGS)

test-slow: env ## Run what make test leaves out: the rest of the fault table, every strategy's resume
	@failed=0; \
	$(BIN)/python -m pytest tests --ignore=tests/tf_pipeline -m long $(ARGS) || failed=1; \
	.venv-tf/bin/python -m pytest tests/tf_pipeline -m long $(ARGS) || failed=1; \
	exit $$failed

test-services: env ## Log a whole small study to the tracking server as shipped, on PostgreSQL (ten minutes)
	$(BIN)/python -m pytest tests/infra -m services $(ARGS)

test-docker: env-torch ## Build the images where that is still to do, run them, and in them both DAGs and a study (half an hour)
	$(BIN)/python -m pytest tests/docker -m docker $(ARGS)

test-bench: env env-bench ## Run every benchmark on a few thousand rows
	$(BIN)/python -m pytest tests/test_benchmarks.py -m bench $(ARGS)

images: ## Build the container images (ACCELERATOR=cuda, IMAGES="core tf torch", ARGS=--no-cache)
	@infra/docker/images.sh $(ARGS)

bench: env env-bench ## Measure the data path against others (quarter of an hour)
	@for name in ingest_csv reader ingest_memory compare; do \
		$(BIN)/python -m benchmarks.$$name --output benchmarks/results/$$name.json || exit 1; \
	done

fault-table: env ## Measure what faults cost a run (ten minutes; root for two of them)
	$(BIN)/python -m benchmarks.survival --output benchmarks/results/survival.json

prediction: env ## Predict held-out worker counts and measure them (a quarter of an hour; root)
	$(BIN)/python -m benchmarks.prediction --output benchmarks/results/prediction.json

method: env ## Check the method against itself (hours; goes on where it was stopped)
	$(BIN)/python -m benchmarks.method --output benchmarks/results/method.json $(ARGS)

measuring: env ## Measure what measuring costs (ten minutes)
	$(BIN)/python -m benchmarks.measuring --output benchmarks/results/measuring.json

lint: env-torch ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: env-torch ## Rewrite the code in the common style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

env: ## Make both environments
	@infra/environments.sh all

env-torch: ## Make .venv: PyTorch and the tooling
	@infra/environments.sh torch

env-tf: ## Make .venv-tf: TensorFlow and TFX
	@infra/environments.sh tf

env-cuda: ## Make both environments for GPUs, with builds for the same CUDA
	@infra/environments.sh cuda

env-bench: ## Make .venv-bench: the readers that make bench compares with
	@infra/environments.sh bench

lock: ## Pin the dependencies again (ARGS=--upgrade: newest versions)
	infra/lock.sh $(ARGS)

clean: ## Remove what runs have written (out/)
	@if [ -d out ]; then du -sh out | sed 's/^/Removing /'; rm -rf out; fi

clean-env: ## Remove the environments and their tools
	rm -rf .venv .venv-tf .venv-bench .tools
