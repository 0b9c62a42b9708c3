# `make train` and `make test` do all the set-up that they need. STACK=cpu or STACK=cuda overrules the detection.
# The first interpreter that runs: a pyenv shim may be on the PATH and lead nowhere.
PYTHON ?= $(firstword $(shell for python in python3.11 python3.12 python3; do $$python -c "import venv" 2>/dev/null && echo $$python; done) python3)
VENV   ?= .venv
STACK  ?= $(if $(shell nvidia-smi -L 2>/dev/null),cuda,cpu)
UV     ?= $(shell command -v uv 2>/dev/null)
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.$(STACK)-ready

# PyPI has no CPU build of torch. It comes from a folder of wheels that pip knows of, else from PyTorch's own index.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
WHEELS := $(firstword $(PIP_FIND_LINKS) $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/pip install --quiet --disable-pip-version-check)
TORCH_FROM = $(if $(wildcard $(WHEELS)/torch-*cpu*.whl),--find-links $(WHEELS),--extra-index-url $(TORCH_CPU_INDEX))

.DEFAULT_GOAL := help
.PHONY: help setup train sweep pipeline test chaos check format grade-cases check-data bench bench-gpu bench-reward bench-memory gpu-check lock

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## make .venv with everything in it

$(STAMP): requirements-cpu.txt pyproject.toml
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
else
	$(PYTHON) -m venv $(VENV)
endif
ifeq ($(STACK),cpu)
	$(INSTALL) --no-deps $(TORCH_FROM) $(shell grep ^torch== requirements-cpu.txt)
	$(INSTALL) --no-deps -r requirements-cpu.txt
	$(INSTALL) --no-deps --editable .
else
	$(INSTALL) --editable .[cuda,dev]
endif
	$(BIN)/python -c "import deepspeed, transformers, vllm"
	$(BIN)/r1zero --version
	touch $@

train: setup  ## train the built-in base model by pure RL (minutes on two cores)
	$(BIN)/r1zero train

sweep: setup  ## sweep epsilon, beta and G on the built-in task: eight short jobs and a leaderboard
	$(BIN)/r1zero train -m algorithm.num_minibatches=4 algorithm.epsilon=0.1,0.2 algorithm.beta=0,0.04 \
	  rollout.group_size=4,8 steps=40 run.name=epsilon_beta_g

pipeline: setup  ## DeepSeek-R1's four stages on the built-in task, and their table
	$(BIN)/r1zero pipeline pipeline=r1

# Most of them wait for a process to start. A GPU is not shared by two.
WORKERS ?= $(if $(filter cuda,$(STACK)),0,2)

test: setup  ## run all tests
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -rs -n $(WORKERS) --dist loadfile

chaos: setup  ## kill twenty runs at random moments, resume them, and compare them with an undisturbed one
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -s tests/integration/test_chaos.py --chaos-runs=20

check: setup  ## lint and check the formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## format the code and mend what the linter can
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

check-data: setup  ## run every benchmark whose data are in DATA (../shared/data/eval) through r1zero eval, on random weights
	$(BIN)/r1zero eval model=random logger=none run.name=check_data \
	  benchmark=[$(subst $(space),$(comma),$(CHECKED))] $(subst gsm8k.jsonl,gsm8k_test.jsonl,$(FILES))

bench: setup  ## how fast it is, beside the fewest calls and TRL, into benchmarks/results: leave the machine alone
	$(INSTALL) --editable .[bench]
	$(BIN)/python benchmarks/run.py

bench-gpu: setup  ## generation, training and weight sync of a model of 1.5 B parameters on one Hopper GPU
	$(BIN)/python benchmarks/bench_gpu.py

bench-reward: setup  ## verdicts a second
	$(BIN)/python benchmarks/bench_reward.py ../shared/data/eval/math_test_5k.jsonl

bench-memory: setup  ## memory of the loss over a large vocabulary
	$(BIN)/python benchmarks/bench_memory.py

gpu-check: setup  ## what one Hopper GPU shows, in at most 8 minutes and without a network, into benchmarks/results
	$(BIN)/python benchmarks/gpu_check.py

lock:  ## resolve requirements-cpu.txt anew (needs uv)
	$(if $(wildcard $(WHEELS)/torch-*cpu*.whl),UV_FIND_LINKS=$(WHEELS),UV_TORCH_BACKEND=cpu) $(UV) pip compile --quiet --python-version 3.11 pyproject.toml \
	  --extra cpu --extra dev --no-annotate --no-header --output-file requirements-cpu.txt
