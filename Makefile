# Two commands need nothing but python3 and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := $(BIN)/python -m comask

.PHONY: help install demo flower-demo flower-versions test check format bench fuzz docs paper clean

help:
	@echo "make demo         train FedAdam, FedAdam-Top and FedAdam-SSM side by side and write a report (about two minutes)"
	@echo "make flower-demo  the same on a Flower deployment with TLS, a killed node and one that sends garbage"
	@echo "make flower-versions  the tests on Flower, with its oldest allowed and its newest version"
	@echo "make test         run the tests"
	@echo "make check        lint, formatting and types"
	@echo "make format       format the code"
	@echo "make bench        benchmarks against what a user would pick otherwise"
	@echo "make fuzz         throw a million damaged payloads at the decoder"
	@echo "make docs         build the documentation into site/"
	@echo "make paper        rerun the study: every table, every figure and the paper's claims (hours; goes on where it was)"
	@echo "make clean        remove what was installed and built"

# Installed once; again only when what is required changes.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all]"
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	$(RUN) compare --algorithms fedadam,fedadam-top,fedadam-ssm --rounds 12 --out runs/demo --overwrite
	$(RUN) report runs/demo

flower-demo: $(STAMP)
	$(BIN)/python examples/flower-deployment/demo.py

flower-versions: $(STAMP)
	$(BIN)/python scripts/flower_versions.py

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadgroup

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/codec.py
	$(BIN)/python benchmarks/codec.py --masks benchmarks/masks
	$(BIN)/python benchmarks/presets.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/startup.py

fuzz: $(STAMP)
	$(BIN)/python fuzz/fuzz_decode.py --payloads 1000000

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open site/index.html"

paper: $(STAMP)
	$(RUN) paper run
	$(RUN) paper report --into experiments/README.md
	$(RUN) paper claims

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
