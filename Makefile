# Two commands on a fresh machine with Python >= 3.11: `make demo` and `make test`. Everything else is for developers.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# More than two cores need: many tests wait for a server or a clock.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo sandbox test lint bench chaos docs site lock clean

help:
	@echo "make demo   build a leak, scan it, verify it, rotate three keys: against a sandbox on this machine"
	@echo "make sandbox  the same, and then it stays up with the console: docs/first-incident.md"
	@echo "make test   every test"
	@echo "make lint   ruff, mypy, import contracts, docstrings"
	@echo "make bench  benchmarks (JSON on stdout)"
	@echo "make chaos  kill -9 each playbook's rotations 200 times on SQLite and on PostgreSQL (hours); build/chaos.json"
	@echo "make docs   regenerate what is generated under docs/"
	@echo "make site   the documentation as a site, in build/site; a broken link is a failure"

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lapse needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "installing what requirements/dev.txt pins into $(VENV): once, a minute or two"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/lapse demo

sandbox: $(VENV)/.ready
	@$(BIN)/lapse demo --serve

# Counting branches doubles the time that a test takes: it is done where the verifier itself is tested.
VERIFIER := $(addprefix tests/,classify egress ingest offline providers verify)
PYTEST    = $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

test: $(VENV)/.ready
	@code=0; set -x; \
	  $(PYTEST) $(VERIFIER) --cov=verifier --cov-report=term:skip-covered --cov-fail-under=95 || code=$$?; \
	  $(PYTEST) $(addprefix --ignore=,$(VERIFIER)) || code=$$?; \
	  exit $$code

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate -q lapse playbooks rotators verifier

bench: $(VENV)/.ready
	@for f in benchmarks/*.py; do echo "== $$f"; $(BIN)/python $$f || exit 1; done

chaos: $(VENV)/.ready
	@rm -rf build/chaos
	LAPSE_CHAOS=1 $(BIN)/python -m pytest -q -m chaos -n $(WORKERS) --dist worksteal; \
	  code=$$?; $(BIN)/python tests/chaos/chaos_figures.py; exit $$code

docs: $(VENV)/.ready
	$(BIN)/python docs/generate.py

site: docs
	$(BIN)/zensical build --clean --strict

lock:
	uv pip compile -q --no-header --no-strip-extras --universal --python-version 3.11 --generate-hashes pyproject.toml --group dev --group servers -o requirements/dev.txt
	uv pip compile -q --no-header --no-strip-extras --universal --python-version 3.11 --generate-hashes pyproject.toml -c requirements/dev.txt -o requirements/base.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage* coverage.xml
