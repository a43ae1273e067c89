# make demo | test | interop | bench | soak | lock | clean      (see README.md)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint types interop interop-stability bench one-bench soak lock clean

demo: $(VENV)/.run
	@$(BIN)/mplsec demo

test: lint types
	@$(BIN)/python -m pytest -q

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev
	@$(BIN)/mypy

interop: $(VENV)/.dev
	@$(BIN)/python -m interop $(if $(ONLY),--only '$(ONLY)')

# Three runs, compared in build/interop-stability.json.
interop-stability: $(VENV)/.dev
	@$(BIN)/python -m interop.stability $(if $(ONLY),--only '$(ONLY)')

# As root; figures of one machine and one run: quote the ratios. BENCH=--quick: short, and less sure.
# The others are Debian's builds, so ours runs on Debian's Python: one built without optimisation costs a fifth more.
BENCH_PYTHON ?= $(or $(wildcard /usr/bin/python3),$(PYTHON))
bench:
	@$(MAKE) --no-print-directory one-bench PYTHON=$(BENCH_PYTHON) VENV=.venv-bench

one-bench: $(VENV)/.dev
	@rm -f build/bench.json
	@$(BIN)/python -m tests.benchmarks.bench_esp
	@$(BIN)/python -m tests.benchmarks.bench_dataplane $(BENCH)
	@$(BIN)/python -m tests.benchmarks.bench_mpls
	@$(BIN)/python -m tests.benchmarks.bench_ike

# Long runs, up to half an hour each (tests/soak/__init__.py says how to add one).
soak: $(VENV)/.dev
	@$(BIN)/python -m tests.soak

# The environment. requirements.lock holds what running needs, requirements-dev.lock that and the test tools.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mplsec needs Python 3.11 or newer; $(PYTHON) is older: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python requirements.lock pyproject.toml
	@echo "installing from requirements.lock into $(VENV)"
	@$(PIP) install --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@echo "installing from requirements-dev.lock into $(VENV)"
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@touch $@

lock:
	@uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --extra install --output-file requirements.lock pyproject.toml
	@uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean:
	@rm -rf $(VENV) .venv-bench build .mypy_cache .ruff_cache .pytest_cache .hypothesis
