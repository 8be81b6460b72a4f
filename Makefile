# `make install` and `make train` are all it takes; every target makes .venv first, and again when the lock has changed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# $(call install-lock,ENVIRONMENT,LOCK). With uv's variable UV_TORCH_BACKEND=cpu, torch and torchvision come from PyTorch's
# own index, in the same versions; these are other files, whose hashes the lock does not have. All others keep theirs.
define install-lock
@awk '/^[a-z]/ { keep = $(if $(UV_TORCH_BACKEND),!/^(torch|torchvision|triton)==|^(cuda|nvidia)-/,1) } keep' $(2) > $(1)/packages.lock
@$(BIN)/uv pip install -q --compile-bytecode --python $(1)/bin/python --require-hashes --build-constraints requirements.lock $(if $(UV_TORCH_BACKEND),--no-deps) -r $(1)/packages.lock
$(if $(UV_TORCH_BACKEND),@$(BIN)/uv pip install -q --compile-bytecode --python $(1)/bin/python $$(grep -oE '^torch(vision)?==[0-9.]+' $(2)))
endef

.PHONY: help install train test test-cluster test-integrations check docs tutorial tensorboard torture audit bench lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

install: .venv/.installed  ## .venv with everything that requirements.lock pins; UV_TORCH_BACKEND=cpu: without CUDA

train: .venv/.installed  ## train the tutorial CNN on embedded data, in under a minute
	@$(BIN)/litlab train experiment=quickstart

# Bytecode is kept, whatever the environment asks for: else each of hundreds of processes compiles litlab anew.
test test-cluster test-integrations: export PYTHONDONTWRITEBYTECODE :=
test: .venv/.installed  ## the tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not cluster and not integrations"

test-cluster: .venv/.installed  ## the tests on a real SLURM cluster, which they bring up on this machine (needs root)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m cluster

test-integrations: .venv-integrations/.installed  ## the tests of whole projects, studies and long runs, in a browser, and with optional packages
	@.venv-integrations/bin/python -m pytest -n 2 --dist loadfile -m integrations

check: .venv/.installed  ## lint, docstrings, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python .ci/docstrings

docs: .venv/.installed  ## the docs site, offline, as build/docs/index.html
	@rm -rf build/docs
	@$(BIN)/sphinx-build -q -W --keep-going docs build/docs
	@echo build/docs/index.html

tutorial: .venv/.installed  ## run the commands of docs/tutorial.md, and write their output and the pictures into it
	@LITLAB_TUTORIAL=1 $(BIN)/python -m pytest -n 0 -m integrations tests/docs/test_tutorial.py

tensorboard: .venv/.installed  ## TensorBoard on outputs/
	@$(BIN)/litlab tensorboard

torture: .venv/.installed  ## the reliability suite in full, half an hour; writes docs/reliability.md
	@LITLAB_THOROUGH=1 LITLAB_RELIABILITY=docs/reliability.md $(BIN)/python -m pytest -n 2 --dist loadfile -m "" tests/reliability tests/cluster/test_ray_cluster.py

audit: .venv/.installed  ## the lock's hashes, known vulnerabilities, licenses (AUDIT=--offline without a network)
	@$(BIN)/python .ci/audit $(AUDIT)

bench: .venv/.installed  ## the benchmarks of docs/benchmarks.md, more than an hour
	@$(BIN)/python -m benchmarks

lock: .venv/.installed  ## pin the newest versions that pyproject.toml allows, with hashes and without hosts
	@$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    --no-emit-index-url --extra onnx --group dev pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    --no-emit-index-url --all-extras --group dev --group integrations -c requirements.lock pyproject.toml \
	    -o tests/integrations.lock
	@! grep -n '://' requirements.lock tests/integrations.lock

clean:  ## remove what these targets made; outputs/ stays
	@rm -rf .venv .venv-integrations .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist docs/reference
	@find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

.venv/.installed: requirements.lock pyproject.toml
	@for python in $${PYTHON:-python3.13 python3.12 python3.11 python3}; do \
	    if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	[ -n "$${found:-}" ] || { echo "litlab needs Python 3.11, 3.12 or 3.13, and found none; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	"$$found" -c 'import venv, ensurepip' 2>/dev/null || { echo "$$found has no venv module; install it (Debian and Ubuntu: apt install python3-venv) and call make again" >&2; exit 1; }; \
	echo "Installing into .venv ($$("$$found" --version)); $(if $(UV_TORCH_BACKEND),torch for $(UV_TORCH_BACKEND),about 6 GB with CUDA), a minute or less on a good line"; \
	"$$found" -m venv --clear .venv
	@awk '/^uv==/ { found = 1 } found { print } found && !/\\$$/ { exit }' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install -q --require-hashes --no-deps -r .venv/uv.lock
	$(call install-lock,.venv,requirements.lock)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

.venv-integrations/.installed: .venv/.installed tests/integrations.lock
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-integrations
	$(call install-lock,.venv-integrations,tests/integrations.lock)
	@$(BIN)/uv pip install -q --python .venv-integrations/bin/python --no-deps --no-build-isolation -e .
	@touch $@
