# make run: simulate, meta-train, register, compare.   make test: the whole test suite.
PYTHON ?= python3
BIN := .venv/bin
RUNS := runs/demo
QUICK := --config_file "['configs/inference.yaml','configs/quick.yaml']"
REGISTER := $(BIN)/python -m monai.bundle run $(QUICK) --dataset_dir $(RUNS)/data --datalist $(RUNS)/data/datalist.json \
	--section test --weights $(RUNS)/training/model.pt

.PHONY: run test lint configs
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

run: .venv/ready
	test -e $(RUNS)/data || $(BIN)/python -m bundle simulate --output_dir $(RUNS)/data
	$(BIN)/python -m monai.bundle run training --config_file "['configs/train.yaml','configs/quick.yaml']" \
		--dataset_dir $(RUNS)/data --datalist $(RUNS)/data/datalist.json --output_dir $(RUNS)/training
	$(REGISTER) --steps 0 --output_dir $(RUNS)/steps_0
	$(REGISTER) --steps 5 --output_dir $(RUNS)/steps_5
	$(BIN)/python -m bundle compare $(RUNS)/steps_0,$(RUNS)/steps_5

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

configs: .venv/ready
	$(BIN)/python -m bundle write_json
