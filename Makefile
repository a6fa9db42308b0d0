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
EXPERIMENT := build/experiment
MODELS := --models-dir $(EXPERIMENT)/packs
STUDIES := models/recipes/studies
PANELS := tumour-17a
# On CPUs a training gains by keeping its memory from step to step.
TRAIN_FAST := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000

.PHONY: help install demo test test-docker bundle chaos throughput soak fuzz contract polling slider big-upload lint format serve lock \
	evaluate packs experiment studies bench-peers lock-peers clean

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

test: install  ## Run the tests, two files at a time: many wait for a process, a database or a browser.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-docker: install  ## Build the images and use, break and restore the stack of docker/ (root on Debian; else it skips).
	$(BIN)/python -m tests.docker --bundle

bundle:  ## Write what a machine without internet needs: make bundle BUNDLE=folder [GPU=yes].
	docker/bundle.sh "$(or $(BUNDLE),build/bundle)" $(if $(GPU),--gpu)

chaos: install  ## Kill server and workers at random, on SQLite, then on PostgreSQL, itself too; count what came of 200 jobs (6 minutes).
	$(BIN)/python -m tests.worker.chaos --embedded
	$(BIN)/python -m tests.worker.chaos --database-kills 6

throughput: install  ## Time 200 jobs with one worker and with two; fails where two are not 1.8 times as fast (4 minutes).
	$(BIN)/python -m tests.worker.chaos --throughput

soak: install  ## The long forms of the hardening tests, one after the other (about three quarters of an hour).
	$(MAKE) --no-print-directory chaos throughput contract fuzz polling big-upload
	HEPAMAP_TEST_CLIENT_ROUNDS=200 $(BIN)/python -m pytest tests/api/test_slow_clients.py

contract: install  ## 200 requests of each kind to each call of the OpenAPI document, by schemathesis.
	HEPAMAP_TEST_CONTRACT_EXAMPLES=200 $(BIN)/python -m pytest tests/api/test_openapi_contract.py

fuzz: install  ## 2000 slides of each kind with changed bytes; says how they ended.
	HEPAMAP_TEST_FUZZED_SLIDES=2000 $(BIN)/python -m pytest -s tests/api/test_fuzzed_slides.py

polling: install  ## Time GET /health/live while a slide runs and 50 clients poll, without and with keys; fails above 100 ms at p99.
	$(BIN)/python -m tests.worker.polling
	$(BIN)/python -m tests.worker.polling --keys

slider: install  ## Time a resection's contours from the threshold slider to QuPath's hierarchy (a stand-in; Groovy, JavaFX); fails above 300 ms.
	HEPAMAP_TEST_SLIDER_MOVES=20 $(BIN)/python -m pytest -s tests/qupath/test_resection.py

big-upload: install  ## 3 GB to a real server, cut 5 times: whole, and in flat memory. Takes 3 GB below build/.
	HEPAMAP_TEST_UPLOAD_MB=3072 $(BIN)/python -m pytest --basetemp build/big-upload tests/api/test_upload_process.py -k five_times
	rm -rf build/big-upload

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

evaluate: install  ## Print the table of the README: held-out synthetic slides against their truth (half an hour; goes on if stopped).
	$(BIN)/hepamap dataset phantoms build/held-out --preset held-out
	$(BIN)/hepamap evaluate build/held-out/cohort.csv --model hcc-5x --model hcc-10x --out build/evaluation

packs: install  ## Train the two packs that ship, from synthetic slides (hours on two cores; less with a GPU).
	$(BIN)/hepamap dataset phantoms build/cohort --preset training
	$(BIN)/hepamap dataset build build/cohort/cohort.csv --out build/patches-5x --mpp 1.84 --patch 64 --train 16000 --val 1500 --test 1500 --fields 1500
	$(BIN)/hepamap dataset build build/cohort/cohort.csv --out build/patches-10x --mpp 0.92 --patch 128 --train 8000 --val 1000 --test 1000 --fields 1000
	for recipe in hcc-5x-start hcc-5x; do \
		$(BIN)/hepamap train models/recipes/$$recipe.toml build/patches-5x --run build/run-$$recipe --models-dir build/packs --resume || exit; done
	for recipe in hcc-10x-start hcc-10x; do \
		$(BIN)/hepamap train models/recipes/$$recipe.toml build/patches-10x --run build/run-$$recipe --models-dir build/packs --resume || exit; done
	for model in hcc-5x hcc-10x; do \
		$(BIN)/hepamap models validate $$model build/cohort/cohort.csv --models-dir build/packs && \
		$(BIN)/hepamap evaluate build/cohort/cohort.csv --model $$model --choose-on val --write --models-dir build/packs \
			--out build/evaluation-$$model || exit; done

# Each step is skipped where its result is there, and goes on where it was stopped: give the same command again.
# Maps in bfloat16 where the processor has it, like the trainings: else it takes hours.
experiment: export HEPAMAP_PRECISION = mixed
$(EXPERIMENT)/slides/cohort.csv: | install
	$(BIN)/hepamap dataset phantoms $(EXPERIMENT)/slides --preset experiment

$(EXPERIMENT)/patches-5x/manifest.json: $(EXPERIMENT)/slides/cohort.csv
	$(BIN)/hepamap dataset build $(EXPERIMENT)/slides/resections.csv --out $(EXPERIMENT)/patches-5x --mpp 1.84 --patch 64 \
		--train 4000 --val 500 --test 1000 --fields 600 --masks

$(EXPERIMENT)/patches-10x/manifest.json: $(EXPERIMENT)/slides/cohort.csv
	$(BIN)/hepamap dataset build $(EXPERIMENT)/slides/resections.csv --out $(EXPERIMENT)/patches-10x --mpp 0.92 --patch 128 \
		--train 2000 --val 300 --test 600 --fields 300

# Of the studies that train many networks: the same 118 µm on a quarter of the pixels.
$(EXPERIMENT)/patches-coarse/manifest.json: $(EXPERIMENT)/slides/cohort.csv
	$(BIN)/hepamap dataset build $(EXPERIMENT)/slides/resections.csv --out $(EXPERIMENT)/patches-coarse --mpp 3.68 --patch 32 \
		--train 2500 --val 200 --test 400

$(EXPERIMENT)/packs/experiment-%/1.0.0/model.json: $(EXPERIMENT)/patches-%/manifest.json
	$(BIN)/hepamap train models/recipes/experiment-$*.toml $(EXPERIMENT)/patches-$* --run $(EXPERIMENT)/run-$* $(MODELS) --resume

# They begin with the weights of the 5X model.
$(EXPERIMENT)/packs/experiment-10x/1.0.0/model.json: | $(EXPERIMENT)/packs/experiment-5x/1.0.0/model.json

$(foreach name,unet fcn,$(EXPERIMENT)/packs/experiment-$(name)-5x/1.0.0/model.json): \
		$(EXPERIMENT)/packs/experiment-%-5x/1.0.0/model.json: $(EXPERIMENT)/packs/experiment-5x/1.0.0/model.json
	$(BIN)/hepamap train models/recipes/experiment-$*-5x.toml $(EXPERIMENT)/patches-5x --run $(EXPERIMENT)/run-$*-5x $(MODELS) --resume

EXPERIMENT_MODELS := 5x 10x unet-5x fcn-5x
MORE_ON_resections := --choose-on val --dataset $(EXPERIMENT)/patches-5x --dataset $(EXPERIMENT)/patches-10x

$(EXPERIMENT)/evaluation-%/report.json: $(foreach name,$(EXPERIMENT_MODELS),$(EXPERIMENT)/packs/experiment-$(name)/1.0.0/model.json)
	$(BIN)/hepamap evaluate $(EXPERIMENT)/slides/$*.csv $(foreach name,$(EXPERIMENT_MODELS),--model experiment-$(name)) --mode dense \
		--without-overlap $(MORE_ON_$*) $(MODELS) --out $(EXPERIMENT)/evaluation-$*

experiment: $(EXPERIMENT)/evaluation-resections/report.json $(EXPERIMENT)/evaluation-biopsies/report.json  ## The paper's experiment, scaled down, on synthetic slides (three hours with bfloat16; without, the trainings alone take four): docs/experiment.md.
	$(BIN)/hepamap study panels $(EXPERIMENT)/slides/$(PANELS).tif --annotations $(EXPERIMENT)/slides/$(PANELS).geojson --model-5x experiment-5x \
		--model-10x experiment-10x --unet experiment-unet-5x --fcn experiment-fcn-5x --out $(EXPERIMENT)/panels.png $(MODELS)
	$(BIN)/hepamap study stride $(EXPERIMENT)/slides/biopsies.csv --model experiment-5x --mode patch --stride 16 --stride 32 --stride 48 \
		--stride 64 --out $(EXPERIMENT)/stride $(MODELS)
	$(BIN)/hepamap study stride $(EXPERIMENT)/slides/biopsies.csv --model experiment-10x --mode patch --stride 64 --stride 96 --stride 128 \
		--out $(EXPERIMENT)/stride $(MODELS)
	$(BIN)/hepamap study stride $(EXPERIMENT)/slides/biopsies.csv --model experiment-5x --mode dense --stride 8 --stride 16 \
		--out $(EXPERIMENT)/stride $(MODELS)
	$(BIN)/hepamap study stride $(EXPERIMENT)/slides/biopsies.csv --model experiment-10x --mode dense --stride 32 \
		--out $(EXPERIMENT)/stride $(MODELS)
	$(MAKE) --no-print-directory studies

studies: $(EXPERIMENT)/patches-coarse/manifest.json  ## Figures 3 and 4 of the experiment: many small trainings (half an hour with bfloat16, else an hour).
	$(TRAIN_FAST) $(BIN)/hepamap study factors $(STUDIES)/experiment-factors.toml $(EXPERIMENT)/patches-coarse \
		--out $(EXPERIMENT)/factors
	$(TRAIN_FAST) $(BIN)/hepamap study data-size $(STUDIES)/experiment-data-size.toml $(EXPERIMENT)/patches-coarse \
		--out $(EXPERIMENT)/data-size

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
	$(LOCK) pyproject.toml --group dev --extra tensorboard -o requirements-dev.lock
	grep -oE '^hatchling==[^ ]+' requirements-dev.lock | $(LOCK) - -c requirements-dev.lock -o docker/requirements-build.lock
	grep -oE '^tensorflow==[^ ]+' requirements.lock | sed "s/tensorflow/tensorflow-cpu/; s/$$/ ; platform_machine == 'x86_64'/" | \
		$(LOCK) pyproject.toml - -c requirements.lock --override docker/overrides-cpu.txt -o docker/requirements-cpu.lock
	$(LOCK) pyproject.toml --extra gpu -c requirements.lock -o docker/requirements-gpu.lock

clean:  ## Remove what was built, but not .venv.
	rm -rf build
