# Every target installs what it needs into .venv; the machine needs Python 3.11 to 3.13 with venv, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
UV := build/uv/bin/uv
LOCK_PEERS := $(UV) pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header \
	--no-annotate -
LOCK := $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
PEERS := .venv-peers
PEERS_OUT := build/bench-peers
MODEL ?= hcc-5x

.PHONY: help install demo test test-docker bundle chaos lint format serve lock evaluate packs bench-peers lock-peers clean

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

test-docker: install  ## Build the images and use, break and restore the stack of docker/ (root on Debian; else it skips).
	$(BIN)/python -m tests.docker --bundle

bundle:  ## Write what a machine without internet needs: make bundle BUNDLE=folder [GPU=yes].
	docker/bundle.sh "$(or $(BUNDLE),build/bundle)" $(if $(GPU),--gpu)

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

$(UV):
	$(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet uv

# Dependencies as pinned: TIAToolbox asks for a second OpenCV that needs a display, and WSInfer for a zarr that TIAToolbox cannot use.
$(PEERS)/%/.installed: server/hepamap/benchmark/peers-%.txt | $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) $(PEERS)/$*
	$(UV) pip install --quiet --python $(PEERS)/$* --no-deps --requirement $<
	@touch $@

bench-peers: install  ## Time hepamap, TIAToolbox and WSInfer on one slide: make bench-peers SLIDE=slide.svs [REGION=part.geojson].
	@test -e "$(SLIDE)" || { echo 'Which slide? make bench-peers SLIDE=slide.svs'; exit 2; }
	-$(MAKE) --no-print-directory $(PEERS)/tiatoolbox/.installed
	-$(MAKE) --no-print-directory $(PEERS)/wsinfer/.installed
	mkdir -p $(PEERS_OUT)
	$(BIN)/python -m hepamap.benchmark.patch_answers "$(SLIDE)" --model $(MODEL) $(if $(REGION),--region "$(REGION)") \
		--out $(PEERS_OUT)/answers.npz
	CUDA_VISIBLE_DEVICES= $(BIN)/hepamap bench "$(SLIDE)" --model $(MODEL) $(if $(REGION),--region "$(REGION)") --json \
		> $(PEERS_OUT)/hepamap.json
	$(BIN)/python -P server/hepamap/benchmark/peers.py "$(SLIDE)" --answers $(PEERS_OUT)/answers.npz \
		--bench $(PEERS_OUT)/hepamap.json --environments $(PEERS) $(if $(SETTINGS),--setting $(SETTINGS))

lock-peers: $(UV)  ## Resolve the dependencies of the peers anew and pin them.
	echo 'opencv-python ; sys_platform == "never"' > build/uv/override.txt
	printf 'tiatoolbox==2.1.3\nopencv-python-headless<5\nsafetensors\n' | $(LOCK_PEERS) --override build/uv/override.txt \
		-o server/hepamap/benchmark/peers-tiatoolbox.txt
	printf 'wsinfer==0.6.1\nzarr<3\ntorch==2.12.1\nopenslide-python\nopenslide-bin\nsafetensors\n' | $(LOCK_PEERS) \
		-o server/hepamap/benchmark/peers-wsinfer.txt

lock: $(UV)  ## Resolve the dependencies anew and pin them with hashes.
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml --group dev -o requirements-dev.lock
	grep -oE '^hatchling==[^ ]+' requirements-dev.lock | $(LOCK) - -c requirements-dev.lock -o docker/requirements-build.lock
	grep -oE '^tensorflow==[^ ]+' requirements.lock | sed "s/tensorflow/tensorflow-cpu/; s/$$/ ; platform_machine == 'x86_64'/" | \
		$(LOCK) pyproject.toml - -c requirements.lock --override docker/overrides-cpu.txt -o docker/requirements-cpu.lock
	$(LOCK) pyproject.toml --extra gpu -c requirements.lock -o docker/requirements-gpu.lock

clean:  ## Remove what was built, but not .venv.
	rm -rf build
