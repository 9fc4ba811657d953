# Two commands on a fresh machine: `make demo` and `make test`. Each makes .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export KERAS_BACKEND := torch
# pytest's exit 5 (nothing collected) is a failure like any other: make stops on it.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup -q

.PHONY: demo test check check-all lint types suites sweeps recipes oldest clean

demo: $(READY)
	$(BIN)/tsguard demo

test: $(READY)
	$(PYTEST) -m "not slow and not browser"

suites: $(READY)
	$(BIN)/python -m pytest suites/ -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

# Everything that CI runs: slow and browser tests too, but for the sweeps and recipes below.
check-all: lint types
	$(PYTEST) -m "not sweep and not recipe"

# Whole libraries of programs, trained and searched.
sweeps: $(READY)
	$(PYTEST) -m sweep

# The families on real data, minutes each; needs the data beside the checkout or under TSGUARD_DATA.
recipes: $(READY)
	$(PYTEST) -m recipe

# The oldest Keras that is supported, beside the one in constraints.txt.
oldest: $(READY)
	@test -d build/keras-oldest || $(BIN)/python -m pip install -q --no-deps --target build/keras-oldest keras==3.13.0
	PYTHONPATH=build/keras-oldest $(PYTEST) -W ignore::FutureWarning -m "not slow" tests/test_backend.py tests/test_subject.py tests/guard

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (a few minutes the first time) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and pinned: a range would pull gigabytes of GPU packages by surprise.
	$(BIN)/python -m pip install --progress-bar on --disable-pip-version-check -q -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --progress-bar on --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	@touch $(READY)
