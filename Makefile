# Two commands do everything on a fresh machine:
#   make demo    installs, then shows the whole way from C-STORE to the results in a PACS
#   make test    installs the test tools and (on Debian, as root) the real peers, then runs every check and every test
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# program:package pairs of the peers that the acceptance tests talk to
PEERS := storescu:dcmtk dciodvfy:dicom3tools Orthanc:orthanc gdcmconv:libgdcm-tools java:default-jre-headless \
	ojph_compress:openjph-tools openssl:openssl ip:iproute2

.PHONY: help demo test lint install peers faults load bench bench-receive bench-catalog bench-training demo-bundle clean
help:
	@echo "make demo | test | faults | load | bench | bench-receive | bench-catalog | bench-training | lint | install | demo-bundle | clean"

install: $(VENV)/.installed

$(VENV)/.base: constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed: install python3.11 and python3.11-venv"; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is needed to build pyradiomics: install gcc (Debian: build-essential)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools wheel numpy
	$(PIP) torch
	@# torchvision's wheel asks for its own torch build: without --no-deps it would replace ours
	$(PIP) --no-deps torchvision
	@# pyradiomics' build imports numpy without saying so: it has to be built in this environment
	$(PIP) --no-build-isolation pyradiomics
	@touch $@

$(VENV)/.installed: $(VENV)/.base pyproject.toml
	$(PIP) --no-build-isolation --editable ".[training]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.base pyproject.toml
	$(PIP) --no-build-isolation --editable ".[training,test]"
	@touch $(VENV)/.installed $@

demo: install
	$(BIN)/dicomnode demo

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.installed-test peers lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# 10,000 associations with one receiver: its memory before and after (some minutes)
load: $(VENV)/.installed-test
	DICOMNODE_LOAD=10000 $(BIN)/python -m pytest -s tests/faults/test_load.py

# How fast images come in, beside DCMTK, Orthanc and plain pynetdicom: writes docs/evidence/benchmarks-receive.md
bench-receive: $(VENV)/.installed-test peers
	$(BIN)/python -m tests.benchmarks.receive --memory /dev/shm --out docs/evidence/benchmarks-receive.md

# 300 SIGKILLs at random moments over every process of a node, on SQLite and on PostgreSQL (about twenty minutes)
KILLS ?= 300
SEED ?= 1
faults: $(VENV)/.installed-test peers
	$(BIN)/python -m tests.faults.campaign --kills $(KILLS) --seed $(SEED)

# 100,000 studies in the catalogue: how long the tick, `jobs` and the way to a worker take
bench-catalog: $(VENV)/.installed-test peers
	$(BIN)/python -m tests.benchmarks.catalog

# Time, CPU and memory against the stock ways, stored as docs/evidence/benchmarks.md (about ten minutes on two cores).
bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.benchmarks.run

# Scans a second of features, training steps and data loading: writes docs/evidence/benchmarks-training.md (about five minutes)
bench-training: $(VENV)/.installed-test
	$(BIN)/python -m tests.benchmarks.training

# Missing peers are installed where that is possible; elsewhere the tests skip and name the package.
peers:
	@PATH="$$PATH:/usr/sbin"; missing=""; \
	for p in $(PEERS); do command -v $${p%%:*} >/dev/null || missing="$$missing $${p##*:}"; done; \
	test -f /usr/share/java/pixelmed.jar || missing="$$missing pixelmed-apps"; \
	test -d /usr/share/orthanc/plugins || missing="$$missing orthanc-dicomweb"; \
	test -x /usr/lib/postgresql/15/bin/initdb || command -v initdb >/dev/null || missing="$$missing postgresql"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	else echo "not installed, their tests will skip:$$missing"; fi

# The shipped demo bundle, from nothing (about an hour on two cores): see weights/demo-synthetic/MODEL_CARD.md
demo-bundle: install
	OMP_NUM_THREADS=1 $(BIN)/training demo-bundle --work demo-training --out weights/demo-synthetic

clean:
	rm -rf $(VENV) demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
