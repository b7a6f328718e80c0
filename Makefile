# `make run` scores an archive, `make test` proves that it works: neither needs more than Python 3.11+ and make.
PYTHON ?= python3
TORCH  := torch==2.13.0
BIN    := .venv/bin

.PHONY: install run test chaos bench lint

install: .venv/installed

.venv/installed: pyproject.toml setup.py $(wildcard models/kernels/cpu/*) $(wildcard records/native/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH) --editable '.[dev]'
	touch $@

run: install
	$(BIN)/ecgbatch run $(ARCHIVE)

test: install
	$(BIN)/python -m pytest

chaos: install
	$(BIN)/python -m pytest -m chaos -s

bench: install
	for b in end_to_end against_published processes exported; do $(BIN)/python benchmarks/$$b.py $(ARCHIVE) || exit 1; done
	for b in queue_and_database growth; do $(BIN)/python benchmarks/$$b.py || exit 1; done

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
