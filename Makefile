# Everything a person or CI runs. `make help` lists it.
PYTHON ?= python3
PORT ?= 8080
MODELS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# pip, with one line for each long step.
PIP_INSTALL := $(PYTHON) deploy/local/install.py
DEMO := demo/checkpoint/model.safetensors
HUB_CLIENTS := $(patsubst tests/clients/hub/%.txt,$(VENV).clients/hub-%/.installed,$(wildcard tests/clients/hub/[0-9]*.txt))
JS_CLIENTS := tests/clients/node_modules/.installed

# Otherwise each test that starts an interpreter would compile torch and transformers again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install serve test test-families families-table test-with-torchvision test-clients test-jpegs test-gateway-alone check lint format types layers generate fresh lock swagger-ui bench bench-gpu bench-passing-on bench-first-answer bench-export clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 24

install: $(INSTALLED) ## Make .venv with everything `serve` and `test` need

# pip compiles nothing: Python compiles the modules that it imports.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
		{ echo "Vitriton runs on Python 3.11 and 3.12, and $(PYTHON) is neither; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV), once: one to three minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) $(BIN)/python -c constraints.txt -e '.[local,dev]'
	@touch $@

serve: install ## Serve on this machine: make serve [MODELS="id-or-folder …"] [PORT=8080]
	@exec $(BIN)/vitriton serve $(MODELS) --port $(PORT)

test: install ## The whole test suite, on a real Triton
	$(BIN)/pytest

# Outside the environment: with torchvision in it, transformers would take its image processors.
BESIDE := $(PIP_INSTALL) $(BIN)/python --no-deps --upgrade -c constraints.txt --target

$(VENV).timm/timm: constraints.txt $(INSTALLED)
	$(BESIDE) $(VENV).timm timm
	@touch $@

$(VENV).torchvision/torchvision: constraints.txt $(INSTALLED) tests/torchvision_beside_cpu_torch.py
	$(BESIDE) $(VENV).torchvision torchvision
	$(BIN)/python -m tests.torchvision_beside_cpu_torch $(VENV).torchvision
	@touch $@

# Exports and answers must be the same although transformers finds torchvision's image processors.
test-with-torchvision: install $(VENV).torchvision/torchvision ## Tests of exporter and service with torchvision installed
	PYTHONPATH=$(CURDIR)/$(VENV).torchvision $(BIN)/python -c \
		'from transformers.utils import is_torchvision_available as is_here; assert is_here()'
	PYTHONPATH=$(CURDIR)/$(VENV).torchvision $(BIN)/pytest tests/exporter tests/service

test-families: install $(VENV).timm/timm $(VENV).torchvision/torchvision ## Every model family in every precision, over HTTP; minutes
	$(BIN)/pytest -m families tests/families

families-table: install $(VENV).timm/timm $(VENV).torchvision/torchvision ## As test-families, and write the figures into docs/exporting.md
	$(BIN)/pytest -m families tests/families --families-table docs/families.json
	$(BIN)/python -m docs.generate

# One environment for each released client, as its users have.
$(VENV).clients/hub-%/.installed: tests/clients/hub/%.txt tests/clients/hub/constraints.txt $(INSTALLED)
	$(PYTHON) -m venv --clear --without-pip $(@D)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --no-compile --disable-pip-version-check -r $<
	@touch $@

$(JS_CLIENTS): tests/clients/package.json tests/clients/package-lock.json
	@if command -v npm >/dev/null; then \
		npm ci --prefix tests/clients --silent --no-audit --no-fund && touch $@; \
	else echo "npm is not here: the JavaScript clients are not installed"; fi

test-clients: install $(HUB_CLIENTS) $(JS_CLIENTS) ## Released versions of Hugging Face's clients; minutes
	$(BIN)/pytest -m clients tests/clients

test-jpegs: install ## JPEGs sent to Triton, and all tests of the service with models that take files; minutes
	$(BIN)/pytest -m jpegs tests/service
	$(BIN)/pytest tests/service --jpegs-to-triton -m "not pixels and not jpegs"

# The gateway's own dependencies with the newest numpy: no torch, no Triton wheel, as in its image.
test-gateway-alone: ## Tests of the gateway without torch and with numpy 2
	$(PYTHON) -m venv --clear $(VENV).gateway
	grep -v '^numpy==' constraints.txt > $(VENV).gateway/constraints.txt
	$(PIP_INSTALL) $(VENV).gateway/bin/python -c $(VENV).gateway/constraints.txt \
		'numpy>=2' hypothesis pytest pytest-timeout httpx scikit-learn psutil -e .
	$(VENV).gateway/bin/python -c 'import importlib.util as u, numpy; assert numpy.__version__ >= "2" and not u.find_spec("torch")'
	$(VENV).gateway/bin/pytest tests/gateway

check: lint types layers fresh test test-gateway-alone ## All checks but the slow test targets (families, clients, jpegs, torchvision)

lint: install ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install ## Fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install ## Check types
	$(BIN)/mypy

layers: install ## Check which package imports which
	$(BIN)/lint-imports

generate: install ## Write the generated files
	$(BIN)/python -m docs.generate

fresh: install ## Fail if a generated file is out of date
	$(BIN)/python -m docs.generate --check

lock: ## Write constraints.txt anew from the newest versions that fit
	$(PYTHON) -m venv $(VENV).lock
	$(PIP_INSTALL) $(VENV).lock/bin/python -e '.[local,dev]'
	$(PIP_INSTALL) $(VENV).lock/bin/python --no-deps timm torchvision nvidia-nvimgcodec-cu12 nvidia-nvjpeg-cu12
	{ sed '/^[^#]/,$$d' constraints.txt; $(VENV).lock/bin/python -m pip freeze --all --exclude-editable | grep -v "^pip==" | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV).lock

swagger-ui: ## Take the newest Swagger UI into gateway/http/swagger_ui
	work=$$(mktemp -d) && trap "rm -rf $$work" EXIT && \
		npm pack swagger-ui-dist --silent --pack-destination $$work && tar -xzf $$work/*.tgz -C $$work && \
		cd $$work/package && cp swagger-ui.css swagger-ui-bundle.js swagger-ui-bundle.js.LICENSE.txt \
			LICENSE NOTICE $(CURDIR)/gateway/http/swagger_ui/ && \
		version=$$(sed -n 's/.*"version": "\(.*\)".*/\1/p' package.json) && \
		sed -i "1s/.*/# Swagger UI $$version/" $(CURDIR)/gateway/http/swagger_ui/README.md

$(DEMO): $(INSTALLED)
	$(BIN)/vitriton export vitriton/vit-digits

bench: install $(DEMO) ## Measure the stack against its limits, to bench/results/; ten minutes
	$(BIN)/python -m bench.run --name cpu
	$(BIN)/python -m docs.generate

bench-gpu: install ## Measure limits and stack on an NVIDIA machine, to bench/results/; six minutes
	$(BIN)/python -m bench.gpu.run

bench-passing-on: install ## Fail if a gateway saves too little by sending JPEGs to Triton; two minutes
	$(BIN)/python -m bench.passing_on

bench-first-answer: ## Time from a fresh clone to the first right answer
	$(PYTHON) bench/first_answer.py

bench-export: install ## Seconds and memory of exporting ViT-base
	$(BIN)/python bench/export.py

clean: ## Remove what was installed, trained and exported
	rm -rf $(VENV) $(VENV).gateway $(VENV).timm $(VENV).torchvision $(VENV).clients tests/clients/node_modules demo bench/.work .model_repository.staging
	find model_repository -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
