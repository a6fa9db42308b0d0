# Every target installs what it needs into .venv; the machine needs Python 3.11 to 3.13 with venv, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo

.PHONY: help install demo test chaos lint format serve lock evaluate packs clean

help:  ## Show the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: $(VENV)/.installed  ## Install hepamap and its tools into .venv.

demo: install  ## Paint a synthetic slide, find its tumour, measure the contours against the truth.
	$(BIN)/hepamap phantom $(DEMO)/slide.tif --width-mm 4 --height-mm 3 --seed 7 --overwrite
	$(BIN)/hepamap detect $(DEMO)/slide.tif --model hcc-5x --out $(DEMO)/result --overwrite
	$(BIN)/hepamap compare $(DEMO)/result $(DEMO)/slide.geojson
	@echo "Open $(DEMO)/result/overlay.png, or $(DEMO)/slide.tif in QuPath and drag $(DEMO)/result/contours.geojson onto it."

test: install  ## Run the tests.
	$(BIN)/python -m pytest

chaos: install  ## Kill server and workers at random on a private PostgreSQL; count what came of 200 jobs (about 2 minutes).
	$(BIN)/python -m tests.worker.chaos

lint: install  ## Check style, types and layers.
	$(BIN)/ruff format --check server tests
	$(BIN)/ruff check server tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: install  ## Bring the code into shape.
	$(BIN)/ruff format server tests
	$(BIN)/ruff check --fix server tests

serve: install  ## Serve the REST interface on http://127.0.0.1:8000, with the demo's folder as slide root.
	mkdir -p $(DEMO)
	$(BIN)/hepamap serve --slide-root $(DEMO) --data-dir build/data

evaluate: install  ## Print the table of the README: held-out synthetic slides against their truth (about half an hour).
	$(BIN)/hepamap dataset phantoms build/held-out --preset held-out
	$(BIN)/hepamap evaluate build/held-out/cohort.csv --model hcc-5x --model hcc-10x

packs: install  ## Train the two packs that ship, from synthetic slides (about an hour on two cores).
	$(BIN)/hepamap dataset phantoms build/cohort --preset training
	$(BIN)/hepamap dataset build build/cohort/cohort.csv --out build/patches-5x --mpp 1.84 --patch 64 --train 16000 --val 1500 --test 1500 --fields 1500
	$(BIN)/hepamap dataset build build/cohort/cohort.csv --out build/patches-10x --mpp 0.92 --patch 128 --train 8000 --val 1000 --test 1000 --fields 1000
	$(BIN)/hepamap train models/recipes/hcc-5x.toml build/patches-5x --run build/run-5x --models-dir build/packs
	$(BIN)/hepamap train models/recipes/hcc-10x.toml build/patches-10x --run build/run-10x --models-dir build/packs

lock:  ## Resolve the dependencies anew and pin them with hashes.
	$(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet uv
	build/uv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		pyproject.toml -o requirements.lock
	build/uv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		pyproject.toml --group dev -o requirements-dev.lock

clean:  ## Remove what was built, but not .venv.
	rm -rf build
