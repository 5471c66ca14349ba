# Two commands on a fresh machine with Python >= 3.11 and git:
#   make demo    the whole way on a small made-up release of all four datasets
#   make test    lint, types and tests
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test clean

demo: .venv/installed
	$(BIN)/civid demo --output civid-demo

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "civid_loader needs Python 3.11 or newer; name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/installed: .venv/created pyproject.toml
	@echo "Installing (PyTorch is about 6 GB, a few minutes on a good line) ..."
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/created pyproject.toml
	@echo "Installing (PyTorch is about 6 GB, a few minutes on a good line) ..."
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/installed

clean:
	rm -rf .venv civid-demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
