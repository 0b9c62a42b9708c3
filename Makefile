# `make train` and `make test` first set up .venv if needed. STACK=cpu or STACK=cuda overrides the detection, which
# chooses cuda if there is an NVIDIA GPU, or if .venv was made for one (as on the login node of a Slurm cluster).
# PYTHON is the first interpreter that runs, because a pyenv shim on the PATH may not work.
PYTHON ?= $(firstword $(shell for python in python3.11 python3.12 python3; do $$python -c "import venv" 2>/dev/null && echo $$python; done) python3)
VENV   ?= .venv
STACK  := $(or $(STACK),$(if $(shell nvidia-smi -L 2>/dev/null)$(wildcard $(VENV)/.cuda-*),cuda,cpu))
UV     ?= $(shell command -v uv 2>/dev/null)
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.$(STACK)-ready
# A .venv of the other stack is replaced: an update would keep torch 2.13.0+cpu, because it satisfies torch==2.13.0.
OTHER  := $(wildcard $(VENV)/.$(if $(filter cuda,$(STACK)),cpu,cuda)-*)
CLUSTER := $(if $(filter cuda,$(STACK)),cluster=gpu_1)

# PyPI has no CPU build of torch. It comes from pip's folder of wheels if there is one, otherwise from PyTorch's index.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
WHEELS := $(firstword $(PIP_FIND_LINKS) $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/pip install --quiet --disable-pip-version-check)
TORCH_FROM = $(if $(wildcard $(WHEELS)/torch-*cpu*.whl),--find-links $(WHEELS),--extra-index-url $(TORCH_CPU_INDEX))

.DEFAULT_GOAL := help
.PHONY: $(if $(OTHER),$(STAMP)) help setup train sweep pipeline science test chaos check settings format grade-cases check-data bench bench-gpu bench-reward bench-memory gpu-check lock

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## make .venv with everything in it

$(STAMP): requirements-$(STACK).txt pyproject.toml
	$(if $(OTHER),rm -r $(VENV))
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
else
	$(PYTHON) -m venv $(VENV)
endif
	touch $(VENV)/.$(STACK)-begun
ifeq ($(STACK),cpu)
	$(INSTALL) --no-deps $(TORCH_FROM) $(shell grep ^torch== requirements-cpu.txt)
endif
	$(INSTALL) --no-deps -r requirements-$(STACK).txt
	$(INSTALL) --no-deps --editable .
	$(BIN)/python -c "import deepspeed, transformers, vllm"
	$(BIN)/r1zero --version
	touch $@

train: setup  ## train the built-in base model with RL (minutes on two cores)
	$(BIN)/r1zero train $(CLUSTER)

sweep: setup  ## sweep epsilon, beta and G on the built-in task: eight short jobs and a leaderboard
	$(BIN)/r1zero train -m $(CLUSTER) algorithm.num_minibatches=4 algorithm.epsilon=0.1,0.2 algorithm.beta=0,0.04 \
	  rollout.group_size=4,8 steps=40 run.name=epsilon_beta_g

pipeline: setup  ## DeepSeek-R1's four stages on the built-in task, and their table
	$(BIN)/r1zero pipeline pipeline=r1 $(CLUSTER)

science: setup  ## repeat claims of the field on their confirmation seeds, and write the page of verdicts
	$(BIN)/r1zero science

WORKERS ?= 2  # most tests spend their time waiting for a process to start
PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -rs
# tests/integration has the long files, and is collected first: at the end all workers have something to do.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: setup  ## run all tests; on a GPU tests/unit, and each test of tests/gpu in its own process
ifeq ($(STACK),cuda)
	$(PYTEST) $(PARALLEL) tests/unit
	tests=$$($(BIN)/pytest --collect-only --quiet tests/gpu) || { echo "$$tests"; exit 1; }; failed=0; \
	  for test in $$(echo "$$tests" | grep ::); do $(PYTEST) "$$test" || failed=1; done; exit $$failed
else
	$(PYTEST) $(PARALLEL)
endif

chaos: setup  ## kill twenty runs at random moments, resume them, and compare them with an uninterrupted one
	$(if $(CLUSTER),$(error Runs on a GPU are not bit-exact. Use `make chaos STACK=cpu VENV=.venv-cpu`))
	$(PYTEST) -s tests/integration/test_chaos.py --chaos-runs=20

check: setup  ## lint, check the formatting and the types
	$(BIN)/hadolint Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

settings: setup  ## write docs/settings.md from the settings' docstrings
	$(BIN)/python -c "from grpo_cli.config.reference import settings_page; print(settings_page(), end='')" > docs/settings.md

format: setup  ## format the code and fix what the linter can
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

grade-cases: setup  ## grade the cases and reference solutions of ../shared
	$(BIN)/python benchmarks/grade_cases.py ../shared/grader
	$(BIN)/python benchmarks/grade_solutions.py ../shared/data/eval/math_test_5k.jsonl

DATA ?= ../shared/data/eval
CHECKED := aime24 aime25 amc math500 minerva olympiad_bench gsm8k
FILES := $(foreach name,$(CHECKED),benchmark.$(name).path=$(DATA)/$(name).jsonl)
comma := ,
space := $(subst ,, )

check-data: setup  ## run r1zero eval with random weights on every benchmark in DATA (../shared/data/eval)
	$(BIN)/r1zero eval $(CLUSTER) model=random logger=none run.name=check_data \
	  benchmark=[$(subst $(space),$(comma),$(CHECKED))] $(subst gsm8k.jsonl,gsm8k_test.jsonl,$(FILES))

bench: setup  ## compare speed with a minimal loop and TRL, into benchmarks/results; run nothing else meanwhile
	$(INSTALL) --editable .[bench]
	$(BIN)/python benchmarks/run.py

bench-gpu: setup  ## time generation, training and weight sync of a 1.5 B model on one Hopper GPU
	$(BIN)/python benchmarks/bench_gpu.py

bench-reward: setup  ## measure verdicts per second
	$(BIN)/python benchmarks/bench_reward.py ../shared/data/eval/math_test_5k.jsonl

bench-memory: setup  ## measure the memory of the loss with a large vocabulary
	$(BIN)/python benchmarks/bench_memory.py

gpu-check: setup  ## check everything on one Hopper GPU in at most 8 minutes, without a network, into benchmarks/results
	$(BIN)/python benchmarks/gpu_check.py

# Versions stay the same until a requirement changes; delete both files to get the newest. The CUDA list starts from the
# CPU list. It is resolved for Python 3.11, then for 3.12, which keeps the versions and adds what only 3.12 needs.
LOCK = $(UV) pip compile --quiet pyproject.toml --extra dev --no-annotate --no-header
LOCK_CUDA = $(LOCK) --python-platform x86_64-manylinux_2_28 --extra cuda --output-file requirements-cuda.txt

lock:  ## resolve requirements-cpu.txt and requirements-cuda.txt (needs uv)
	$(if $(wildcard $(WHEELS)/torch-*cpu*.whl),UV_FIND_LINKS=$(WHEELS),UV_TORCH_BACKEND=cpu) \
	  $(LOCK) --python-version 3.11 --extra cpu --output-file requirements-cpu.txt
	[ -f requirements-cuda.txt ] || cp requirements-cpu.txt requirements-cuda.txt
	$(LOCK_CUDA) --python-version 3.11
	$(LOCK_CUDA) --python-version 3.12
