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
SITE_PACKAGES = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PEERS := .venv-peers
PY_FOLDERS := ir frontend passes backends tools runtime/python tests examples
CXX_SOURCES = $(shell git ls-files 'runtime/*.h' 'runtime/*.cc' 'tests/*.cc' 'tests/*.h')
CMAKE_FLAGS = -G Ninja -DPython3_EXECUTABLE=$(abspath $(BIN)/python) -DPython_EXECUTABLE=$(abspath $(BIN)/python)

.PHONY: help demo test test-quick lint typecheck format pytest cxx fuzz bench bench-setup bench-models clean setup

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# ---- set-up -------------------------------------------------------------------------------------------------

$(VENV)/.debian: tools/dev/debian.sh
	bash tools/dev/debian.sh "$(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch comes first and by its exact version: a later, looser requirement would replace it by a CUDA build.
$(VENV)/.torch: $(VENV)/.debian
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_ARGS) torch==2.13.0
	touch $@

NATIVE := $(wildcard CMakeLists.txt runtime/CMakeLists.txt) $(wildcard runtime/include/*/*.h runtime/src/*/*.h runtime/src/*/*.cc runtime/python/*.py)
# Without isolation the build finds the same interpreter and tvm-ffi next time, so that build/wheel is one build tree,
# of the package and of its test tools.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml tools/dev/examples.txt $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check scikit-build-core==1.1.2 apache-tvm-ffi==0.1.15.post2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
	  --config-settings=cmake.define.FRETSAW_TESTS=ON --config-settings='build.targets=fretsaw;fretsaw-run' \
	  --config-settings=cmake.define.TVM_DIR=$(SITE_PACKAGES)/tvm --editable '.[dev,examples]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tools/dev/examples.txt
	touch $@

build/typing/.stamp: Makefile
	mkdir -p build/typing/fretsaw
	for f in ir frontend passes backends tools; do ln -sfn ../../../$$f build/typing/fretsaw/$$f; done
	ln -sfn ../../../runtime/python build/typing/fretsaw/runtime
	touch build/typing/fretsaw/__init__.py build/typing/fretsaw/py.typed $@

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

test: lint typecheck pytest cxx fuzz  ## Everything, Python and C++; half an hour at most on two cores
	@echo "all tests passed"

test-quick: lint  ## The Python tests that take seconds
	$(BIN)/python -m pytest -q -x -m "not slow and not native"

lint: $(VENV)/.installed  ## ruff, clang-format, lines per folder
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --diff .
	$(if $(strip $(CXX_SOURCES)),$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES))
	$(BIN)/python tools/dev/sizes.py

typecheck: $(VENV)/.installed build/typing/.stamp  ## mypy --strict
	$(BIN)/mypy -p fretsaw
	$(BIN)/mypy tests examples

format: $(VENV)/.installed  ## Rewrite sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(strip $(CXX_SOURCES)),$(BIN)/clang-format -i $(CXX_SOURCES))

# One thread each: the workers share the cores, and thread pools that spin on more than there are only wait.
pytest: test-tools
	FRETSAW_BUILD=$(abspath build/wheel) OMP_NUM_THREADS=1 TVM_NUM_THREADS=1 $(BIN)/python -m pytest -q -W error -n $(JOBS) --dist loadfile --durations 25 -m "not exhaustive"

exhaustive: test-tools  ## Every variant of what `make test` tries in part
	FRETSAW_BUILD=$(abspath build/wheel) $(BIN)/python -m pytest -q -W error -m exhaustive

.PHONY: test-tools sanitized-build exhaustive
test-tools: $(VENV)/.installed  ## The C++ tools that Python tests drive, beside the package's own build in build/wheel
	cmake --build build/wheel -j $(JOBS) --target fretsaw-tokenizer-tool fretsaw-sampler-tool

# One build by clang for both: AddressSanitizer, UndefinedBehaviorSanitizer, and what libFuzzer needs.
sanitized-build: $(VENV)/.installed
	mkdir -p build
	cmake -S . -B build/sanitized $(CMAKE_FLAGS) -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug \
	  -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g" -DFRETSAW_FUZZ=ON -DFRETSAW_SANITIZE=ON > build/sanitized-configure.log
	cmake --build build/sanitized -j $(JOBS) --target fretsaw-tests fretsaw-fuzz

cxx: sanitized-build  ## C++ tests with ASan and UBSan
	build/sanitized/fretsaw-tests

fuzz: sanitized-build  ## Each fuzz target for FUZZ_SECONDS, JOBS at a time
	bash tools/dev/fuzz.sh build/sanitized $(FUZZ_SECONDS) $(JOBS)

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
