# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3.9 python3; do \
	$$p -c 'import sys' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
SEED ?= 0
BIN := $(VENV)/bin
# Tests and benchmarks import the project from this folder; two tests run at a time.
export PYTHONPATH := $(CURDIR)
export TF_CPP_MIN_LOG_LEVEL ?= 3
PYTEST_WORKERS ?= 2

.PHONY: demo test test-fast check lint types format clean

demo: $(VENV)/installed ## Pretrains on the embedded digits and says how good it is.
	$(BIN)/python run.py --mode=train_then_eval --seed=$(SEED) \
		--model_dir=runs/demo$(if $(filter-out 0,$(SEED)),-seed$(SEED))

test: $(VENV)/installed ## Runs every test.
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile

test-fast: $(VENV)/installed ## Runs the tests that take seconds.
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile -m "not slow"

check: lint types test ## Everything that must be green.

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
