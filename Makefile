# Two commands do everything: `make demo` and `make test`. Both create .venv when it is missing.
PYTHON ?= python3
# Which CUDA build of DALI and CuPy to install; it works without a GPU too.
CUDA ?= cuda13
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test bench soak study lint format wheel gpu-check clean

demo: $(STAMP)
	$(BIN)/has-dali demo --out demo $(if $(DATA),--data $(DATA))

test: $(STAMP)
	$(BIN)/python -m pytest

$(STAMP): pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(CUDA),train,data,bench,peers,dev]"
	touch $@

# The figures behind docs/benchmarks.md, in less than 15 minutes on two idle cores. DATA: one folder of images per class (an
# embedded corpus without it); ARRAYS: CIFAR's python batches. An interrupted run goes on where it was; AGAIN=1 starts afresh.
RESULTS ?= bench/results
bench: $(STAMP)
	$(BIN)/has-dali bench all $(if $(DATA),--data $(DATA)) --out $(RESULTS) $(if $(ARRAYS),--arrays $(ARRAYS)) $(if $(AGAIN),--again)
	$(BIN)/python -m has_dali.bench.page --results $(RESULTS) --out docs/benchmarks.md

# 10,000 batches in flat memory, 50 kills with bit-equal resumption, 10,000 damaged JPEGs: about ten minutes.
soak: $(STAMP)
	$(BIN)/python -m has_dali.bench.soak all --json $(RESULTS)/soak.json

# The runs behind docs/results.md: DATA holds tiny-imagenet-20 and cifar-10-batches-py. Hours on two cores; what is finished is
# not run again, and an interrupted study goes on where it was.
STUDY ?= study
SWEEP = $(BIN)/has-dali sweep
SMALL = $(SWEEP) localisation --recipe small --data $(DATA)/tiny-imagenet-20 --jobs 2
CIFAR = $(SWEEP) classification --recipe cifar10-small --data $(DATA)/cifar-10-batches-py --jobs 2
study: $(STAMP)
	test -n "$(DATA)" || { echo "make study: DATA=DIR is missing"; exit 2; }
	for epochs in 10 30 60; do \
	  $(SMALL) --seeds 3 --arms gap,has-mixed --out $(STUDY)/tiny-$$epochs --trainer.max_epochs $$epochs || exit 1; done
	for epochs in 10 30; do \
	  $(CIFAR) --seeds 3 --arms full,has --out $(STUDY)/cifar-$$epochs --trainer.max_epochs $$epochs || exit 1; done
	$(SMALL) --seeds 1 --out $(STUDY)/tiny-30 --trainer.max_epochs 30

# On a machine with a GPU: every check that needs one, and a report of the figures.
gpu-check: $(STAMP)
	mkdir -p build
	HAS_DALI_GPU_REPORT=$(or $(REPORT),build/gpu_report.json) $(BIN)/python -m pytest -m gpu tests/gpu tests/pipelines/test_odd_files.py -v

# mypy sees the installed namespace through a tree of links: build/types/has_dali/{kernels,pipelines,...}.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types
	cp -rs $(CURDIR)/has_dali build/types/has_dali
	cp -rs $(CURDIR)/kernels $(CURDIR)/pipelines $(CURDIR)/trainers $(CURDIR)/bench build/types/has_dali/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p has_dali

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)
	rm -rf build/lib build/bdist* dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	find . -path ./$(VENV) -prune -o -name "*.nb[ic]" -exec rm {} +
	rm -rf build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
