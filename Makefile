# make demo   set up, train on real images, and end in a serving search page
# make test   set up and run every check
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
IMAGES ?=

.PHONY: demo test lint install clean

demo: $(VENV)/.demo
	$(BIN)/vssl demo --overwrite $(if $(IMAGES),--images "$(IMAGES)")

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.dev

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,cpu,demo]'
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,cpu,client,demo,plots,triton,ray,milvus,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo runs .pytest_cache .mypy_cache .ruff_cache
