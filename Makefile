# One environment, .venv, serves every target; it is installed once, and again only when
# pyproject.toml or the constraints change.

# The first of these that is Python 3.11 or newer; name another with `make PYTHON=...`.
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; \
	done)
BIN := .venv/bin
READY := .venv/.installed

# What is installed beside the package: `make venv EXTRAS=dev,third-party` for all of the tests.
EXTRAS ?= dev
STUDY ?= experiments/studies/quickstart.yaml
OUTPUT ?= runs/$(basename $(notdir $(STUDY)))
# Files side by side; each in one process, as the tests of a file share what they train.
PYTEST_ARGS ?= -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
BENCH_ARGS ?=

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(READY) ## set up .venv with the tested versions (the other targets do so themselves)

$(READY): pyproject.toml .ci/constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint .ci/constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

.PHONY: study
study: $(READY) ## run the quickstart study into runs/ (STUDY=file.yaml OUTPUT=folder)
	$(BIN)/critical-periods study run $(STUDY) --output $(OUTPUT)

.PHONY: test
test: $(READY) ## run tests and doctests, and build the site (PYTEST_ARGS="-k rsv -n 2")
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-third-party
test-third-party: $(READY) ## try the callbacks in other libraries (make venv EXTRAS=dev,third-party)
	$(BIN)/python -m pytest tests/third_party $(PYTEST_ARGS)

.PHONY: coverage
coverage: $(READY) ## run the tests and say which lines they reach; htmlcov/ shows them
	$(BIN)/python -m pytest --cov=critical_periods --cov-report=term --cov-report=html $(PYTEST_ARGS)

.PHONY: test-lowest
test-lowest: $(READY) ## run the tests with the lowest versions that pyproject.toml allows
	$(BIN)/uv venv --allow-existing --python $(PYTHON) .venv-lowest
	$(BIN)/uv pip install --python .venv-lowest --resolution lowest-direct --editable '.[test]'
	.venv-lowest/bin/python -m pytest $(PYTEST_ARGS)

.PHONY: docs
docs: $(READY) ## build the site into docs/_build/html
	$(BIN)/python -m sphinx -n -W --keep-going docs docs/_build/html

.PHONY: notebooks
notebooks: $(READY) ## run every notebook from a clean kernel and keep its outputs
	cd notebooks && ../$(BIN)/jupyter execute --inplace *.ipynb

.PHONY: format
format: $(READY) ## mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lint
lint: $(READY) ## check style, format, types and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: $(READY) ## measure ours beside its peers, in less than 10 minutes (make venv EXTRAS=dev,bench)
	$(BIN)/python experiments/benchmarks/bench.py $(BENCH_ARGS)

.PHONY: bench-gpu
bench-gpu: $(READY) ## measure training on one GPU, in less than 8 minutes
	$(BIN)/python experiments/benchmarks/bench_gpu.py $(BENCH_ARGS)

.PHONY: build
build: $(READY) ## build wheel and sdist into dist/
	rm -rf dist
	$(BIN)/python -m build

.PHONY: clean
clean: ## remove caches, dist/ and the site, keep .venv and runs/
	rm -rf dist docs/_build docs/notebooks htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache
	find critical_periods experiments tests -name __pycache__ -type d -exec rm -rf {} +
