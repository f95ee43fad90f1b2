# Dragoman. `make help` lists what there is to do; every target sets up what it needs.

PYTHON     ?= python3
VENV       ?= .venv
BIN        := $(VENV)/bin
# Exact versions of everything; CONSTRAINTS=constraints-torch2.6.txt is the oldest supported torch.
CONSTRAINTS ?= constraints.txt
# Package index that torch comes from, for example the CPU-only one; empty: pip's own.
TORCH_INDEX ?=
TORCH      := $(shell grep -i '^torch==' $(CONSTRAINTS))

EXPERIMENT ?= transformer
# The run folder: by default the one trained last.
RUN        ?= $(shell ls -td checkpoints/*/best 2>/dev/null | head -n 1 | xargs -r dirname)
# What `make bench` compares: training, recurrent, decoding or prepare.
SUITE      ?= training
# The split to score, for example test_2016_flickr; empty: the validation split.
SPLIT      ?=
# Anything else for the command, such as ARGS="seed=2 train.max_steps=2000".
ARGS       ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint data train eval translate attention tensorboard results bench bench-quick clean

help:  ## list the targets
	@echo "usage: make TARGET [EXPERIMENT=... RUN=... SPLIT=... ARGS=...]"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16
	@echo "experiments: $(basename $(notdir $(wildcard configs/experiment/*.yaml)))"

setup: $(VENV)/.ready  ## virtual environment and pinned packages (TORCH_INDEX=<url> for torch)

$(VENV)/.ready: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); this takes a minute or two, more where torch is downloaded"
	@$(BIN)/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	@$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[dev]"
	@touch $@

# The slow tests also need the extras that dev leaves out.
$(VENV)/.ready-slow: $(VENV)/.ready-dev
	@$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[dev,slow]"
	@touch $@

demo: $(VENV)/.ready  ## train, score and look at a small Transformer on the embedded corpus
	@$(BIN)/python train.py +experiment=demo run_name=demo $(ARGS)
	@$(BIN)/dragoman evaluate checkpoints/demo --split test --samples 5
	@$(BIN)/dragoman attention checkpoints/demo --aer test
	@echo "watch        make tensorboard   (logs in checkpoints/demo/tensorboard)"

test: lint  ## lint, types and the whole fast test suite
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: $(VENV)/.ready-slow  ## the slow tests: random kills, the wheel, the README's commands
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow $(ARGS)

lint: $(VENV)/.ready-dev  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

data: $(VENV)/.ready  ## fetch Multi30k (MULTI30K=<folder> copies it; ARGS="--languages de en")
	@$(BIN)/dragoman data $(if $(MULTI30K),--from $(MULTI30K)) $(ARGS)

train: $(VENV)/.ready  ## train EXPERIMENT, or go on with it
	@$(BIN)/python train.py +experiment=$(EXPERIMENT) $(ARGS)

# Said where a run is needed and there is none.
NO_RUN = $(if $(RUN),,$(error no run to use yet: train one, or name it with RUN=checkpoints/<name>))

eval: $(VENV)/.ready  ## score RUN on SPLIT
	$(NO_RUN)@$(BIN)/dragoman evaluate $(RUN) $(if $(SPLIT),--split $(SPLIT)) $(ARGS)

translate: $(VENV)/.ready  ## translate standard input with RUN, line by line
	$(NO_RUN)@$(BIN)/dragoman translate $(RUN) $(ARGS)

attention: $(VENV)/.ready  ## draw the attention of RUN (ARGS='--sentence "..."')
	$(NO_RUN)@$(BIN)/dragoman attention $(RUN) $(ARGS)

tensorboard: $(VENV)/.ready  ## watch all runs in TensorBoard
	@$(BIN)/tensorboard --logdir checkpoints $(ARGS)

results: $(VENV)/.ready  ## train what is missing of docs/results.md (ARGS="--list" says what)
	@$(BIN)/python scripts/results.py $(if $(MULTI30K),data.root=$(MULTI30K)) $(ARGS)

bench: $(VENV)/.ready  ## speed beside other tools, 40 minutes (SUITE=training, recurrent, decoding, prepare)
	@$(BIN)/python scripts/benchmark.py --suite $(SUITE) --out docs/benchmarks $(if $(MULTI30K),--multi30k $(MULTI30K)) $(ARGS)

bench-quick: $(VENV)/.ready  ## Dragoman beside the nn.Transformer loop, and where a step's time goes
	@$(BIN)/python scripts/benchmark.py --quick $(if $(MULTI30K),--multi30k $(MULTI30K)) $(ARGS)

clean:  ## remove caches of tools and tests (never data or checkpoints)
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
