# The two commands:
#   make demo   restore pictures with the shipped weights, and show what was found and gained
#   make test   run the tests
# Both make .venv first, from the locked requirements. Needs Python 3.11 or newer (make PYTHON=python3.12 ...).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test slow quality lint lock wheel clean

demo: $(VENV)/.core
	$(RUN) examples/demo.py

test: $(VENV)/.dev
	$(RUN) -m pytest -m "not slow"

# What takes minutes: the wheel in a fresh environment, long runs.
slow: $(VENV)/.dev
	$(RUN) -m pytest -m slow

# The standing table and the card's figures, on all pictures; MOIR_DATA is the folder of the benchmarks (docs/datasets.md).
quality: $(VENV)/.dev
	$(RUN) benchmarks/quality/standing.py --model compact --card src/moir/weights/compact.json
	$(RUN) benchmarks/quality/standing.py --model unirestorer_compact --card src/moir/weights/unirestorer_compact.json

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

wheel: $(VENV)/.dev
	$(RUN) -m build --wheel

lock: $(VENV)/.dev
	$(RUN) scripts/lock.py

clean:
	rm -rf $(VENV) build dist demo_output

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "moir needs Python 3.11 or newer; '$(PYTHON)' is older. Try: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: requirements/core.txt pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet -r requirements/core.txt
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.core
	$(RUN) -m pip install --quiet -r requirements/dev.txt
	@touch $@
