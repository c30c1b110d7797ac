# `make demo`: from a fresh clone to a report that shows SRPO at work.   `make test`: the tests.
# Both set up everything they need in .venv (and, as root on Debian or Ubuntu, Mesa's software OpenGL).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?= runs/demo
SEED   ?= 0
PRESET ?= libero-quick
SEEDS  ?= 0 1 2
METHODS ?= srpo grpo

export MUJOCO_GL ?= egl
export OMP_WAIT_POLICY ?= PASSIVE
# Packages are compiled when they are first imported, not all of them at installation.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-dev demo results test lint clean
.NOTPARALLEL:

setup: $(VENV)/.ready
setup-dev: $(VENV)/.ready-dev

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "srpo needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# A machine without a GPU gets torch's CPU build where one is on offer (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL).
	$(BIN)/pip install --quiet --no-compile -c constraints.txt torch
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[libero,compact]'
	@sh scripts/install_gl.sh $(BIN)/python
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[libero,compact,vla,dev]'
	@touch $@

demo: setup
	$(BIN)/srpo doctor
	test -f $(RUN)/sft/policy/model.safetensors || { \
	$(BIN)/srpo collect $(PRESET) --out $(RUN)/demos && \
	$(BIN)/srpo sft $(PRESET) --seed $(SEED) --demos $(RUN)/demos --run $(RUN)/sft --resume; }
	$(BIN)/srpo train $(PRESET) --seed $(SEED) --policy $(RUN)/sft/policy --run $(RUN)/srpo --resume
	@echo && echo "Open the report in a browser: $(RUN)/srpo/report.html"

# SRPO against GRPO on all ten tasks of LIBERO-Spatial, from a clone that solves half: all tasks together, then every task
# by itself, then one policy cloned for all. About three hours a seed and method; resumable.
results: setup
	for seed in $(SEEDS); do for method in $(METHODS); do \
	run=runs/suite/libero_spatial/easy/$${method}_$$seed; \
	$(BIN)/python benchmarks/libero_suite.py --starts easy --methods $$method --seeds $$seed --episodes 1280 --states 20 && \
	$(BIN)/python benchmarks/specialists.py --method $$method --seed $$seed --policy $$run/policy --practised $$run \
		--demos runs/suite/libero_spatial/demos --steps 20 --again 40 30 30 || exit 1; \
	done; done
	$(BIN)/python benchmarks/stages.py

test: setup-dev
	$(BIN)/python -m pytest

lint: setup-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
