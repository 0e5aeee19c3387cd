# make quickstart   install, train on the synthetic set, evaluate, draw pictures (about 10 minutes)
# make web          the quickstart's model in the browser (WEB_ARGS="--port 8080")
# make test         install if needed, run all tests
# make bench        speed and memory against transformers and readable code: output/bench.md
# make bench-gpu    on a GPU, with the CUDA torch of PYTHON: kernels, GPU tests, then the same table
#                   (BENCH_GPU_ARGS=--dry-run prints the commands)
# make lint         ruff, formatting included
# make install      only the virtual environment .venv
# make help         this list
SHELL  := /bin/bash
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CORES  := $(shell nproc 2>/dev/null || echo 2)

# Iterations of the quickstart's training; empty: what its config says.
QUICKSTART_ITERS ?=
QUICKSTART_OUTPUT ?= output/quickstart

OPS_SOURCES := $(wildcard mask2former/ops/csrc/*) build_ops.py

.PHONY: install quickstart web test bench bench-gpu lint format clean help

install: $(STAMP)

help:
	@sed -n '/^#/!q; s/^# \?//p' $(firstword $(MAKEFILE_LIST))

# Reinstalled when what is installed changes: the pins, the packaging, or the kernels' sources.
$(STAMP): requirements.txt pyproject.toml setup.py d2lite/d2lite_backend.py d2lite/finder.py $(OPS_SOURCES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps -e .
	$(BIN)/python build_ops.py
	@touch $@

quickstart: $(STAMP)
	$(BIN)/python tools/quickstart.py --output $(QUICKSTART_OUTPUT) $(if $(QUICKSTART_ITERS),--iters $(QUICKSTART_ITERS))

web: $(STAMP)
	$(BIN)/python demo/web.py $(WEB_ARGS)

# One thread a worker: the tests' models are tiny, and as many workers as cores run side by side.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist worksteal -q

bench: $(STAMP)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python tools/benchmark.py table --output output/bench.md

# On a machine that has a GPU, CUDA torch in PYTHON, and nothing else: no virtual environment, so that
# torch stays the one that is there; what else is missing is installed into PYTHON.
bench-gpu:
	$(PYTHON) tools/bench_gpu.py $(BENCH_GPU_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build output .pytest_cache .ruff_cache
