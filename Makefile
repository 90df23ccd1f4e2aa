# Two commands matter: `make serve` and `make test`. `make` alone lists the rest.
PYTHON ?= python3
GPU ?= auto
BIN := .venv/bin
INSTALL := $(PYTHON) chatserver/deploy/install.py --gpu $(GPU)

# HOST only from the command line: some shells export their machine's name under it.
ifeq ($(origin HOST),command line)
export CHATSERVER_HOST := $(HOST)
endif
ifneq ($(PORT),)
export CHATSERVER_PORT := $(PORT)
endif
ifneq ($(DATA_DIR),)
export CHATSERVER_DATA_DIR := $(DATA_DIR)
endif
ifneq ($(MODEL),)
export CHATSERVER_MODEL := $(MODEL)
endif
ifneq ($(CONTEXT),)
export CHATSERVER_CONTEXT := $(CONTEXT)
endif
ifneq ($(PROFILE),)
export CHATSERVER_PROFILE := $(PROFILE)
endif
ifneq ($(REDIS_URL),)
export CHATSERVER_REDIS_URL := $(REDIS_URL)
endif

# All tests run in two processes: the real engines in one, all else in the other; tests/conftest.py says what stays together.
SIDE_BY_SIDE := -n 2 --dist loadscope --no-loadscope-reorder

# Without bytecode every start would compile SGLang and torch again, which takes longer than the start itself.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help serve test lint bench setup lock clean

help:
	@echo 'make serve             start the chat server; HOST= PORT= DATA_DIR= MODEL= CONTEXT= PROFILE= REDIS_URL='
	@echo 'make test              lint, then all tests in two processes; ARGS="tests/web -x" runs some, in one'
	@echo 'make lint              ruff, pyright and import-linter'
	@echo 'make bench NAME=relay  run one benchmark of tests/bench'
	@echo 'make setup             only install, into .venv; PYTHON=python3.12 GPU=yes|no'
	@echo 'make lock              write the lock files from the installed versions'
	@echo 'make clean             remove caches and test results; not .venv, not your data'

serve:
	@$(INSTALL)
	@exec $(BIN)/chatserver serve

test: lint
	@$(BIN)/python -m pytest $(or $(ARGS),$(SIDE_BY_SIDE))

lint:
	@$(INSTALL) --dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

bench:
	@test -n '$(NAME)' || { echo 'make bench: which one? NAME=…, one of:'; ls tests/bench; exit 2; }
	@$(INSTALL) --dev
	@exec $(BIN)/python -m tests.bench.$(NAME) $(ARGS)

setup:
	@$(INSTALL)

lock:
	@$(INSTALL) --dev
	@$(BIN)/python chatserver/deploy/lock.py

clean:
	@rm -rf .pytest_cache .hypothesis .ruff_cache .import_linter_cache build dist tests/artefacts tests/bench/results
	@find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +
