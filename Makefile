# make run:   simulate patients, meta-train on some, register the others, compare.
# make experiment DATASET=folder:   every method of the paper compared on a folder of images with labels.
# make weights DATASET=folder:   everything that ships, trained on a folder of images with labels.
# make label STUDIES=folder:   a MONAI Label server for 3D Slicer and OHIF on a folder of images.
# make deploy:   the MONAI Deploy application with its environment, and the folder for its packager.
# make docs:  the pages of docs/ and a reference made of the docstrings, as one static site in runs/site.
# make test:  the whole test suite.   make quick: style, types and the tests of single modules.
# make test-apps:   the tests of the applications, in their environments.
# make lint:  style and types.   make install: the environment alone.
PYTHON ?= python3
BIN ?= .venv/bin
RUNS ?= runs/demo
# Data and results of make experiment; without DATASET patients are simulated.
DATASET ?=
EXPERIMENT ?= runs/experiment
WEIGHTS ?= runs/weights
# Images of make label, a folder or the address of a DICOMweb server; without STUDIES patients are simulated.
STUDIES ?=
# Further options of every run, such as OPTIONS="--iterations 50".
OPTIONS ?=
# A name as one word of the shell, and a variable as it was typed, with what make would take for its own in it.
quoted = '$(subst ','\'',$(1))'
typed = $(if $(filter command environment,$(firstword $(origin $(1)))),$(value $(1)),$($(1)))
override RUNS := $(call typed,RUNS)
override DATASET := $(call typed,DATASET)
override EXPERIMENT := $(call typed,EXPERIMENT)
override WEIGHTS := $(call typed,WEIGHTS)
override STUDIES := $(call typed,STUDIES)
REGISTER = $(BIN)/python -m bundle register $(call quoted,$(RUNS)/data/datalist.json) --section test --config quick.yaml \
	--weights $(call quoted,$(RUNS)/training/model.pt)
# The data set of an experiment: the one that is given, else patients that are simulated once.
IMAGES = $(call quoted,$(or $(DATASET),$(EXPERIMENT)/data))
SIMULATED = $(if $(DATASET),,test -e $(IMAGES) || { $(BIN)/python -m bundle simulate --patients 20 \
	--output_dir $(IMAGES) && rm $(IMAGES)/datalist.json; })

.PHONY: install run experiment weights label deploy package docs quick test test-apps coverage lint
.venv/ready: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

install: .venv/ready

run: .venv/ready
	test -e $(call quoted,$(RUNS)/data) || $(BIN)/python -m bundle simulate --output_dir $(call quoted,$(RUNS)/data)
	$(BIN)/python -m bundle train $(call quoted,$(RUNS)/data) --datalist $(call quoted,$(RUNS)/data/datalist.json) \
		--config quick.yaml --output $(call quoted,$(RUNS)/training) $(OPTIONS)
	$(REGISTER) --steps 0 --output $(call quoted,$(RUNS)/start) $(OPTIONS)
	$(REGISTER) --steps 5 --output $(call quoted,$(RUNS)/adapted) $(OPTIONS)
	@echo
	@$(BIN)/python -m bundle compare $(call quoted,$(RUNS)/start) $(call quoted,$(RUNS)/adapted)
	@printf '%s\n' '' $(call quoted,weights:      $(RUNS)/training/model.pt) \
		$(call quoted,look at:      $(RUNS)/adapted/quality.html)

experiment: .venv/ready
	$(SIMULATED)
	$(BIN)/python -m bundle experiment --dataset_dir $(IMAGES) --output_dir $(call quoted,$(EXPERIMENT)) $(OPTIONS)

weights: .venv/ready
	$(SIMULATED)
	$(BIN)/python -m bundle experiment --config_file "['configs/experiments/experiment.yaml','configs/experiments/weights.yaml']" \
		--dataset_dir $(IMAGES) --output_dir $(call quoted,$(WEIGHTS)) $(OPTIONS)

# The applications need other versions than the bundle: each has an environment of its own.
.venv-%/ready: bundle/apps/%/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

label: .venv-label/ready
	.venv-label/bin/python -m bundle.apps.label $(if $(STUDIES),--studies $(call quoted,$(STUDIES))) $(OPTIONS)

deploy: .venv-deploy/ready package
	@echo "register: .venv-deploy/bin/python -m bundle.apps.deploy -i INPUT -o OUTPUT -m models"
	@echo "package:  monai-deploy package runs/deploy -c runs/deploy/app.yaml -t registration:1.0 --platform x86_64 -m models"

# The packager takes one folder with all code: the application, and the bundle and its configuration beside it.
package:
	rm -rf runs/deploy
	mkdir -p runs/deploy
	cp -rL bundle configs bundle/apps/deploy/__main__.py bundle/apps/deploy/app.yaml bundle/apps/deploy/requirements.txt \
		runs/deploy
	find runs/deploy -name __pycache__ -prune -exec rm -r {} +

docs: .venv/ready
	$(BIN)/mkdocs build --quiet
	@echo "see runs/site/index.html"

quick: .venv/ready lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The applications' own tests, which are skipped elsewhere, in their environments.
test-apps: .venv-label/ready .venv-deploy/ready
	.venv-label/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep ^pytest== constraints.txt)"
	.venv-label/bin/python -m pytest tests/test_label_server.py tests/test_label_dicomweb.py
	.venv-deploy/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep ^pytest== constraints.txt)"
	.venv-deploy/bin/python -m pytest tests/test_deploy_app.py

# Takes a third longer than the tests alone.
coverage: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov=bundle --cov-report=term

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
