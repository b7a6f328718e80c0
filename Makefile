# `make run` scores an archive, `make test` proves that it works: neither needs more than Python 3.11+ and make.
PYTHON ?= python3
TORCH  := torch==2.13.0
BIN    := .venv/bin

.PHONY: install run test chaos bench lint wheel lock pictures

install: .venv/installed

# What the lock files name comes with its hash. torch does not stand there: it is another build on every kind of machine.
.venv/installed: .venv/scores requirements.lock
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

# What scoring takes: torch only where there was no C++ compiler for the kernel.
.venv/scores: pyproject.toml deploy/requirements.lock setup.py $(wildcard models/kernels/cpu/*) $(wildcard records/native/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --requirement deploy/requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -c "from ecgbatch.models.kernels import compiled; raise SystemExit(not compiled.available())" \
		|| $(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

run: .venv/scores
	$(BIN)/ecgbatch run $(ARCHIVE)

test: install
	$(BIN)/python -m pytest -n 3 --dist worksteal  # on two cores: they often wait for what they have started

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

# One for every Python from 3.11 on, in dist/. On Linux its name says for which systems: those with this one's C library.
wheel: install
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	if [ "$$(uname)" = Linux ]; then PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl; \
	else mkdir -p dist && cp build/wheel/*.whl dist; fi

LOCK := uv pip compile --quiet --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'

lock:
	$(LOCK) --universal --extra dev --output-file requirements.lock pyproject.toml
	echo setuptools | $(LOCK) --universal --extra formats --extra metrics --extra postgresql --no-annotate \
		--constraint requirements.lock --output-file deploy/requirements.lock pyproject.toml -
	echo $(TORCH) | $(LOCK) --python-platform x86_64-manylinux_2_28 --no-annotate \
		--constraint deploy/requirements.lock --output-file deploy/requirements-cuda.lock -

pictures: install
	$(BIN)/python docs/pictures.py
