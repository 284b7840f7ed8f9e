# make demo   set up, train on real images, and end in a serving search page
# make test   set up and run every check
# make site   build the documents as a site in .site
# make coverage run the tests once more and say which branches of the packages none of them takes; below 95 % it fails
# make mutants change losses, distances and metrics one place at a time, and see whether their tests notice; it fails where
#              fewer than 85 % are noticed. MUTANTS='index.metrics.*' changes some of them only
# make triton set up the Triton server that some of the tests query
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
IMAGES ?=
MUTANTS ?=
# Files of tests run side by side, one process a core, at most four; the tests of one file stay together, and the files
# stay in the order that tests/conftest.py gives them, long ones first.
TESTS_SIDE_BY_SIDE ?= -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Triton's wheel runs Python models under the system's own Python (3.9 to 3.12), not under other builds of it.
export TRITON_VENV ?= .triton
TRITON_PYTHON ?= /usr/bin/python3

.PHONY: demo test lint install site coverage mutants triton clean

demo: $(VENV)/.demo
	$(BIN)/vssl demo --overwrite $(if $(IMAGES),--images "$(IMAGES)")

test: lint
	@$(MAKE) --no-print-directory triton || echo "no Triton server here: the tests that need one are skipped" >&2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS_SIDE_BY_SIDE)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.dev

site: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,cpu,demo,heif]'
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,cpu,client,demo,heif,hf,plots,map,triton,ray,milvus,dev]'
	touch $@

coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest $(TESTS_SIDE_BY_SIDE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under 95

mutants: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mutmut>=3.8,<4'
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2 $(MUTANTS)
	$(BIN)/mutmut export-cicd-stats
	$(BIN)/python -c 'import json; n = json.load(open("mutants/mutmut-cicd-stats.json")); k = n["killed"] + n["timeout"]; \
	  a = k + n["survived"] + n["suspicious"] + n["no_tests"]; print(f"{k} of {a} noticed"); raise SystemExit(k < 0.85 * a)'

triton: $(TRITON_VENV)/.ready

# Without the wheel's other dependencies: only the server in it is used. Its Python backend reads numpy 1.
$(TRITON_VENV)/.ready: Makefile
	$(TRITON_PYTHON) -m venv $(TRITON_VENV)
	$(TRITON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
	  'numpy>=1.26,<2' 'onnxruntime>=1.22,<2'
	$(TRITON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'nvidia-pytriton>=0.7,<0.8'
	cd $(TRITON_VENV)/lib/python3*/site-packages/pytriton/tritonserver && \
	  cp python_backend_stubs/$$($(TRITON_PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')/* backends/python/
	touch $@

clean:
	rm -rf $(VENV) $(TRITON_VENV) demo runs .pytest_cache .mypy_cache .ruff_cache
