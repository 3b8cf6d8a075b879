# Targets for people: install, demo, cluster-demo, test, slow, check, chaos, strikes, docs, shapes, shapes-images, distill, evaluate, bench, clean.
PYTHONS := python3.13 python3.12 python3.11
# The newest that runs, since a pyenv shim may exist and not run; `make PYTHON=python3.11` chooses.
PYTHON ?= $(firstword $(foreach name,$(PYTHONS),$(shell $(name) -c "print('$(name)')" 2>/dev/null)) python3)
# uv is used where it is installed; `make UV=` uses pip.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= shapes-wan
MODEL_TESTS := tests/nag tests/pipelines
# of MINUTES the model has four fifths and its LoRA one
LIMIT = $(if $(MINUTES),--minutes $(shell awk 'BEGIN { print $(MINUTES) * $(1) / 5 }'))
CLUSTER_TESTS = $(shell grep -rl --include='test_*.py' 'mark\.cluster' tests)

.PHONY: help install demo cluster-demo test test-models test-cluster test-farm types slow check chaos strikes docs format shapes shapes-images distill evaluate bench wheel clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

install: $(VENV)/.installed  ## make .venv with .venv/bin/nagfarm, from pinned versions

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing nagfarm into $(VENV) (a few minutes the first time) ..."
ifdef UV
	uv venv --quiet --clear --seed --python $(PYTHON) $(VENV)
	uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
else
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
endif
	@touch $@

demo: install  ## render 24 clips with a local S3 server and a local Ray cluster
	$(BIN)/python -m infra.local.demo

test: install  ## run the tests in three processes: the models', the cluster's (which mostly wait), all others
	@$(MAKE) --no-print-directory --jobs 3 test-models test-cluster test-farm

# The cluster's tests have deadlines, and Ray gives its workers a niceness of 15, so the others come after.
test-models:
	nice -n 19 $(BIN)/python -m pytest $(MODEL_TESTS)

test-cluster:
	$(BIN)/python -m pytest $(CLUSTER_TESTS) -m "cluster and not slow"

test-farm:
	nice -n 19 $(BIN)/python -m pytest $(MODEL_TESTS:%=--ignore=%) -m "not cluster and not slow"

cluster-demo: install  ## lose and add machines of a cluster in network namespaces while it renders (Linux, root)
	$(BIN)/python -m infra.local.cluster_demo

slow: install  ## run the tests that `make test` leaves out, since they take long
	$(BIN)/python -m pytest -m slow --hypothesis-profile=random

check: install  ## format, lint, types, tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m tests.structure
	@$(MAKE) --no-print-directory --jobs 4 types test-models test-cluster test-farm

# It uses one core for minutes, and what it finds stands on its own lines between the tests' dots.
types:
	nice -n 19 $(BIN)/pyright

chaos: install  ## inject every fault into a farm on this machine, and audit it (about half an hour)
	$(BIN)/python -m tests.chaos.harness --report docs/measurements/chaos

strikes: install  ## kill and stop each rank of groups that render, again and again (about two hours; resumes)
	$(BIN)/python -m tests.chaos.harness.rank_suite --report docs/measurements/parallel-faults

docs: install  ## build the manual as a site, build/docs/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -d build/docs-trees -b html -c docs . build/docs

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

shapes: install  ## train MODEL: shapes-wan, shapes-ltx (some hours on two idle cores; with LoRA), shapes-wan-i2v from shapes-wan; MINUTES=60 limits both
	$(BIN)/python -m pipelines.shapes.training.train $(MODEL) --output build/$(MODEL) $(call LIMIT,4)
ifneq ($(MODEL),shapes-wan-i2v)
	$(BIN)/python -m pipelines.shapes.training.distillation.distill $(MODEL) --weights build/$(MODEL) --output build/$(MODEL)-4step $(call LIMIT,1)
endif

shapes-images: install  ## train the three image models and their LoRAs (about two hours on a core)
	$(BIN)/python -m pipelines.shapes.training.images.train --output build/images

distill: install  ## distil the packaged MODEL into a LoRA for four steps (a quarter of an hour)
	$(BIN)/python -m pipelines.shapes.training.distillation.distill $(MODEL) --output build/$(MODEL)-4step

evaluate: install  ## measure MODEL, and NAG on it
	$(BIN)/python -m pipelines.shapes.measuring.evaluate $(MODEL)

bench: install  ## measure negative prompts and parameters on the Shapes models (a night on two cores; resumes)
	$(BIN)/nagfarm bench negatives
	$(BIN)/nagfarm bench parameters

wheel: install  ## build a wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove what the demo and the tests leave
	rm -rf .demo demo-output dist build .pytest_cache .ruff_cache .hypothesis
