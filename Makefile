# Each target is enough on a fresh machine with Python 3.11 or newer: it makes .venv first where there is none.
PYTHON ?= python3
BIN := .venv/bin
NOW := $(shell date +%Y%m%d-%H%M%S)
export OMP_NUM_THREADS ?= 1

.PHONY: install demo demo-real test test-all chaos check bench clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/raykd study scenarios/quickstart.yaml --out runs/quickstart-$(NOW)
	$(BIN)/raykd report runs/quickstart-$(NOW)

demo-real: install
	$(BIN)/python scenarios/real/fetch.py data/real
	$(BIN)/raykd study scenarios/real/vertebra-study.yaml --out runs/vertebra-$(NOW)
	$(BIN)/raykd report runs/vertebra-$(NOW)

test: install
	$(BIN)/python -m pytest -q -n 2 --dist loadscope -m "not slow and not chaos"

test-all: install
	$(BIN)/python -m pytest -q -n 2 --dist loadscope -m "not chaos"

chaos: install
	$(BIN)/python -m pytest -q -n 0 -m chaos tests/chaos

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/raykd check $$(ls scenarios/*.yaml scenarios/methods/*.yaml scenarios/gallery/*.yaml scenarios/studies/*.yaml)

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv runs
