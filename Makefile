# Understudy. `make demo` runs the whole loop, `make test` all the tests; both install what they need.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTHON := $(BIN)/python
INSTALLED := .venv/.installed
KAFKA := build/kafka/.installed
VLLM_INSTALLED := .venv-vllm/.installed
VLLM ?= cpu
WORKERS ?= 2

# uv of the machine, else one of our own: `pip --target` works where the system's Python is managed (PEP 668).
UV := $(or $(shell command -v uv),.venv-uv/bin/uv)
OWN_UV := $(filter .venv-uv/bin/uv,$(UV))
export UV_PYTHON_DOWNLOADS := never
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help
help:  ## Show this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## (.*)/  make \1\t\2/' | expand -t 16

.PHONY: demo
demo: $(INSTALLED)  ## Run the whole loop offline: relay, log, distil, evaluate, roll out, roll back
	$(BIN)/understudy demo

.PHONY: test
test: $(INSTALLED) $(if $(shell command -v mvn),$(KAFKA))  ## Run every test
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

.PHONY: check
check: $(INSTALLED)  ## Lint, formatting, types, and the walls between the parts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-logo

.PHONY: format
format: $(INSTALLED)  ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(INSTALLED)  ## Measure the proxy beside its peers
	mkdir -p build && $(PYTHON) -m benchmarks.proxy --json build/bench-proxy.json

.PHONY: install
install: $(INSTALLED)  ## Make the environment .venv from constraints.txt

.PHONY: kafka
kafka: $(KAFKA)  ## Fetch Apache Kafka into build/kafka (needs Java 17 and Maven)

.PHONY: vllm
vllm: $(VLLM_INSTALLED)  ## Install vLLM into .venv-vllm (VLLM=cpu, or VLLM=gpu on a machine with one)

.PHONY: lock
lock: $(OWN_UV)  ## Resolve constraints.txt and vLLM's requirements anew, keeping what still fits
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --extra dev \
	  --custom-compile-command 'make lock' -o constraints.txt pyproject.toml
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command 'make lock' --override tests/servers/vllm/overrides.txt \
	  -o tests/servers/vllm/requirements.txt tests/servers/vllm/requirements.in

.PHONY: clean
clean:  ## Remove environments, caches and what was built
	rm -rf .venv .venv-uv .venv-vllm build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv-uv/bin/uv:
	python3 -m pip install -q --target .venv-uv uv==0.13.8 \
	  || { rm -rf .venv-uv && python3 -m venv .venv-uv && .venv-uv/bin/pip install -q uv==0.13.8; }

# Every archive is checked against the hashes of constraints.txt; our own code is installed as it lies here.
$(INSTALLED): pyproject.toml constraints.txt | $(OWN_UV)
	test -x $(PYTHON) || $(UV) venv -q .venv
	$(UV) pip sync -q -p $(PYTHON) --require-hashes constraints.txt
	$(UV) pip install -q -p $(PYTHON) --no-deps --no-build-isolation -e .
	touch $@

$(KAFKA): tests/servers/kafka/pom.xml
	rm -rf build/kafka
	mvn -q -B -f $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/build/kafka/libs
	touch $@

$(VLLM_INSTALLED): tests/servers/vllm/requirements.txt | $(OWN_UV)
	test -x .venv-vllm/bin/python || $(UV) venv -q .venv-vllm
ifeq ($(VLLM),gpu)
	$(UV) pip install -q -p .venv-vllm/bin/python vllm==0.32.0
else
	$(UV) pip sync -q -p .venv-vllm/bin/python --require-hashes $<
endif
	touch $@
