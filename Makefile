# Two commands for a fresh machine: `make demo` and `make test`. Both set up first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.chipfit-ready

.PHONY: setup demo test bench lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "setting up $(VENV): about 1 GB, a few minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# timm asks for torchvision, whose builds for GPUs break a PyTorch for CPUs; its models do without.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps timm huggingface_hub
	@touch $@

# The main job on real data: Fashion-MNIST, MobileNetV2-style network, half its latency on Ethos-U55.
demo: setup
	$(BIN)/python examples/demo.py

# A process a core, each file in one of them. Arguments go to pytest: make test ARGS="-k journal".
test: setup
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

bench: setup
	$(BIN)/python -m benchmarks.run

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
