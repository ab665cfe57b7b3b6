# Each target sets up what it needs in $(VENV).
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3 python3.13; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
endif
VENV ?= .venv
BIN := $(VENV)/bin
SEED ?= 0
PYTEST_WORKERS ?= 2
# For example linux-x86_64-python3.11. The lock file of that name, if there is one, pins all versions;
# LOCKED=0 installs the newest versions that the requirements allow instead.
PLATFORM := $(if $(PYTHON),$(shell $(PYTHON) -c 'import sys, sysconfig; \
	print(sysconfig.get_platform() + "-python%d.%d" % sys.version_info[:2])' 2>/dev/null))
LOCKED ?= 1
LOCK := $(if $(filter-out 0,$(LOCKED)),$(wildcard locks/$(PLATFORM).txt))
REQUIREMENTS := $(or $(LOCK),requirements.txt requirements-dev.txt)
INSTALLED := $(VENV)/installed-$(if $(LOCK),locked,newest)
# uv downloads and unpacks several packages at a time. Its own version is in the lock file, too. pip
# is tried after it, because it may know an index that uv does not.
INSTALL_BY_UV = awk '/^[^ \#]/ {of_uv = /^uv==/} of_uv' $(LOCK) >$(VENV)/uv.txt \
	&& $(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/uv.txt \
	&& $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --no-deps \
		--python $(BIN)/python -r $(LOCK)
# Tests and benchmarks import the project from this directory.
export PYTHONPATH := $(CURDIR)
export TF_CPP_MIN_LOG_LEVEL ?= 3
# Otherwise every worker of the tests, and every program that they start, compiles all modules again.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help demo studies test test-all test-fast test-keras3 check lint types dependencies format \
	notebooks lock clean install

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: PYTHON (now $(or $(PYTHON),not found)), VENV ($(VENV)), SEED ($(SEED)),"
	@echo "PYTEST_WORKERS ($(PYTEST_WORKERS)), COVERAGE (1 prints the coverage of the tests),"
	@echo "LOCKED ($(LOCKED); 0 installs the newest versions)."

install: $(INSTALLED) ## Create the virtual environment.

demo: $(INSTALLED) ## Pretrain and evaluate on built-in digits, in minutes on a CPU.
	$(BIN)/python run.py --mode=train_then_eval --seed=$(SEED) \
		--model_dir=runs/demo$(if $(filter-out 0,$(SEED)),-seed$(SEED))

# A folder in which tensorflow-datasets has the data of the studies; its own folder unless given.
DATA_DIR ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
studies: $(INSTALLED) ## Run or resume all studies; DATA_DIR has their data, JOBS run at a time.
	$(BIN)/python run.py --mode=study --study=all --study_results=docs/studies \
		$(if $(DATA_DIR),--data_dir="$(DATA_DIR)") --jobs=$(JOBS) $(STUDY_FLAGS)

# The tests of a file run on one worker, in the order of tests/conftest.py.
IN_FILES := --dist loadfile --no-loadscope-reorder
# With COVERAGE=1 the tests print which lines they did not run. From Python 3.12 on that costs little,
# by sys.monitoring; on Python 3.11 the tests take a fifth longer.
COVERAGE ?=
SYSMON := $(if $(filter %-python3.11,$(PLATFORM)),,COVERAGE_CORE=sysmon)
RUN_TESTS = $(SYSMON) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(IN_FILES) \
	$(if $(COVERAGE),--cov --cov-report=term-missing)
test: $(INSTALLED) ## Run the tests, except those that are marked exhaustive.
	$(RUN_TESTS) -m "not exhaustive"

test-all: export XLA_FLAGS ?= # So that tests/conftest.py does not make XLA optimize less.
test-all: $(INSTALLED) ## Run every test.
	$(RUN_TESTS)

test-fast: $(INSTALLED) ## Run the tests that take seconds.
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(IN_FILES) -m "not slow"

# KERAS3_TESTS="-m keras3" runs the choice that CI runs.
KERAS3_TESTS ?=
test-keras3: export SIMCLR_KERAS := 3
test-keras3: $(INSTALLED) ## Run every test with Keras 3.
	$(RUN_TESTS) $(KERAS3_TESTS)

check: COVERAGE = 1
check: lint types dependencies test-all ## Run all checks required before a merge.

lint: $(INSTALLED) ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## Check types.
	$(BIN)/mypy

dependencies: $(INSTALLED) ## Check that what is imported is in requirements.txt.
	$(BIN)/deptry .

format: $(INSTALLED) ## Format the code and fix what can be fixed.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(INSTALLED) ## Write notebooks/*.ipynb from notebooks/*.py.
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

# On Python 3.13 TensorFlow is a release candidate, which requires a nightly build of Keras. The two
# files say which TensorFlow is locked, and leave that Keras out.
LOCK_3.13 := --constraint locks/python3.13.constraints --override locks/python3.13.overrides
lock: $(INSTALLED) ## Write the lock files; UPGRADE=1 takes the newest versions allowed.
	mkdir -p locks
	for version in 3.11 3.12 3.13; do \
		if [ $$version = 3.13 ]; then options="$(LOCK_3.13)"; else options=""; fi; \
		$(BIN)/uv pip compile --quiet $(if $(UPGRADE),--upgrade) --generate-hashes $$options \
			--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
			--python-version $$version --python-platform x86_64-manylinux_2_28 \
			--output-file locks/linux-x86_64-python$$version.txt \
			requirements.txt requirements-dev.txt || exit 1; \
	done

clean: ## Delete the virtual environment and the caches.
	rm -rf $(VENV) .mypy_cache .ruff_cache .coverage build simclr_tf.egg-info

$(INSTALLED): $(REQUIREMENTS)
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Set PYTHON to Python 3.11 or newer (now: $(or $(PYTHON),none found))."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(if $(LOCK),$(INSTALL_BY_UV) ||) $(BIN)/python -m pip install --quiet \
		--disable-pip-version-check $(if $(LOCK),--no-deps,--upgrade --upgrade-strategy eager) \
		$(REQUIREMENTS:%=-r %)
	rm -f $(VENV)/installed-*
	touch $@
