# Each target does its own set-up; the stamp makes it happen once per change of what is to be installed.
PYTHON ?= python3.11
STAMP := .venv/.stamp

.PHONY: setup demo test oracles lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[test]'
	touch $@

demo: $(STAMP)
	.venv/bin/dstnet demo -o demo

test: $(STAMP)
	.venv/bin/python -m pytest

# The comparisons with other programs, none of which may be skipped: abTEM is installed here, RELION must be on PATH.
oracles:
	$(PYTHON) -m venv .venv-oracle
	.venv-oracle/bin/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[test,oracle]'
	DSTNET_REQUIRE_ORACLES=1 .venv-oracle/bin/python -m pytest -m oracle

lint: $(STAMP)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright
	.venv/bin/lint-imports

clean:
	rm -rf .venv .venv-oracle demo build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
