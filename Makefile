# What newcomers, developers and CI type. Everything is installed into .venv, once; after that
# each target starts at once. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOTS := .:runtime:simulator:reports
# pip may not ask: CI has no standard input.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
PIP_INSTALL := $(PIP) install --constraint constraints-dev.txt
DEMO := quickstart
# Python of a peer's environment (DGL or PyG) and its script for `make bench`; without them only
# ours is timed.
PEER_PYTHON ?=
PEER_SCRIPT ?=
# Tests run in so many processes, each of which starts ranks of its own: two fit two cores.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# Options of the benchmark from the disk: OUT_OF_CORE=--full takes 45 GB of disk.
OUT_OF_CORE ?=

.DELETE_ON_ERROR:
.PHONY: help quickstart test test-deep check docs fits kill fuzz bench guard gpu-check clean

help:
	@echo "make quickstart   install, train, calibrate, predict, compare, write a report"
	@echo "make test         install what tests need and run all of them"
	@echo "make test-deep    the same with eight ranks and more; half an hour longer"
	@echo "make check        format, lint, types, unit and architecture tests"
	@echo "make docs         execute the notebooks and build the manual into build/site"
	@echo "make fits         train every approach under the smallest memory cap said to be enough"
	@echo "make kill         kill commands at random moments, a thousand times"
	@echo "make fuzz         read a hundred thousand mutated files"
	@echo "make bench        time kernels and epochs (PEER_PYTHON=, PEER_SCRIPT=, OUT_OF_CORE=--full)"
	@echo "make gpu-check    check and measure on this machine's GPUs; installs nothing"
	@echo "make clean        remove .venv, caches and the quickstart's results"

quickstart: $(VENV)/installed-runtime $(DEMO)/cluster.toml
	$(BIN)/gnnbench run demo --results $(DEMO)/results
	$(BIN)/gnnbench predict demo --cluster $(DEMO)/cluster.toml \
	  --ranks 1,2,4,8,16,32,64 --results $(DEMO)/results
	$(BIN)/gnnbench compare $(DEMO)/results
	$(BIN)/gnnbench report $(DEMO)/results

$(DEMO)/cluster.toml: | $(VENV)/installed-runtime
	@mkdir -p $(DEMO)
	$(BIN)/gnnbench calibrate --quick --approach single --approach partition --approach sampled \
	  --name this-machine --out $@

test: $(VENV)/installed-dev
	$(PYTEST)

test-deep: $(VENV)/installed-dev
	$(PYTEST) -m "not bench"

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit

# Material announces another MkDocs in every build; that is no warning about these pages.
docs: $(VENV)/installed-dev
	$(BIN)/python -W error scripts/manual/execute.py
	NO_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the manual: build/site/index.html"

# How many, and how many cases: KILLS and MUTATIONS.
KILLS ?= 1000
MUTATIONS ?= 100000

# Twelve minutes on two busy cores.
fits: $(VENV)/installed-dev
	$(BIN)/python -m pytest -s -m "" --timeout 600 tests/distributed/test_fits.py \
	  tests/distributed/test_no_false_fits.py

kill: $(VENV)/installed-dev
	GNNBENCH_KILLS=$(KILLS) $(BIN)/python -m pytest tests/distributed/test_killed.py --timeout 0

fuzz: $(VENV)/installed-dev
	GNNBENCH_MUTATIONS=$(MUTATIONS) $(BIN)/python -m pytest tests/unit/test_mutations.py --timeout 0

bench: $(VENV)/installed-runtime
	$(BIN)/python benchmarks/compare.py $(if $(PEER_PYTHON),--peer-python $(PEER_PYTHON)) \
	  $(if $(PEER_SCRIPT),--peer-script $(PEER_SCRIPT))
	$(BIN)/python benchmarks/bench_simulator.py
	$(BIN)/python benchmarks/bench_temporal.py
	$(BIN)/python benchmarks/bench_out_of_core.py $(OUT_OF_CORE)

# Predictions of a grid against the committed ones, or SINCE=REV: what broke, what moved.
guard: $(VENV)/installed-dev
	$(BIN)/python scripts/guard.py $(if $(SINCE),--since $(SINCE))

# GPU machines bring their own torch: run in place with whatever $(PYTHON) has.
gpu-check:
	PYTHONPATH=$(ROOTS) $(PYTHON) scripts/gpu_check.py --out reports/measured

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The stamps are made last, so an interrupted installation is taken up again.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gnnbench needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into $(VENV): a few minutes, once"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) hatchling
	@touch $@

$(VENV)/installed-runtime: pyproject.toml constraints-dev.txt | $(VENV)/made
	@$(PIP_INSTALL) --no-build-isolation --editable '.[runtime]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints-dev.txt | $(VENV)/installed-runtime
	@$(PIP_INSTALL) --no-build-isolation --editable '.[runtime,dev]'
	@touch $@
