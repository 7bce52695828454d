# The two commands a user needs: `make demo` and `make test`. Both set up their own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
VIEWER := src/leanseg/reports/niivue/niivue.umd.js

.PHONY: install demo test test-slow docs docs-numbers lint release-check clean

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "leanseg needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch>=2.6,<2.14"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[train,dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "panoptica>=2.1"
	@touch $@

# Reports work without it; where it cannot be fetched, that is said.
$(VIEWER): tools/fetch_niivue.py
	@$(PYTHON) tools/fetch_niivue.py

install: $(VENV)/.installed $(VIEWER)

# The main job on a synthetic dataset: plan and train, predict unseen scans, score them, report. Two
# and a half minutes of one core; a busy machine takes longer by the clock.
# Below this mean Dice on the unseen scans something is wrong.
DEMO_DICE ?= 0.75

demo: install
	rm -rf $(DEMO)/run $(DEMO)/predictions $(DEMO)/scores
	$(BIN)/leanseg phantom $(DEMO)/phantom --cases 16 --size 128 --seed 0
	$(BIN)/leanseg phantom $(DEMO)/unseen --cases 4 --size 128 --seed 1
	$(BIN)/leanseg train --data $(DEMO)/phantom --output $(DEMO)/run \
		--set 'data.labels={pancreas: [7, 8]}' --cpu-minutes 2.5 --threads 1
	$(BIN)/leanseg predict $(DEMO)/run/fold_0/model.leanseg $(DEMO)/unseen --output $(DEMO)/predictions
	$(BIN)/leanseg evaluate $(DEMO)/predictions $(DEMO)/unseen/labelsTr \
		--labels pancreas=7+8 --prediction-labels pancreas=1 --output $(DEMO)/scores
	$(BIN)/leanseg report $(DEMO)/run
	@$(BIN)/python -c 'import json; scores = json.load(open("$(DEMO)/scores/scores.json")); \
		dice = scores["summary"]["pancreas"]["dice"]["mean"]; \
		raise SystemExit(0 if dice and dice >= $(DEMO_DICE) else \
			f"demo: the mean Dice on unseen scans is {dice}, not the expected $(DEMO_DICE)")'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Compiled modules are kept whatever the shell says: tests start many processes.
test test-slow: export PYTHONDONTWRITEBYTECODE =

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -m slow

# The wheel in fresh environments, with the lowest and the newest dependencies, and a prediction there.
release-check:
	$(PYTHON) -m venv build/release
	build/release/bin/python -m pip install --quiet --disable-pip-version-check build uv
	build/release/bin/python .ci/release_check.py

# The documentation in site/, which opens from the disk; a dead link or an undocumented name fails.
docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# Measure the cheap ones of the numbers in README and docs again.
docs-numbers: install
	$(BIN)/python docs/site/measure.py

clean:
	rm -rf $(VENV) $(DEMO) site
