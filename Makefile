# Two commands do everything on a fresh machine:
#   make demo    installs, then shows the whole way from C-STORE to the results in a PACS
#   make test    installs the test tools and (on Debian, as root) the real peers, then runs every check and every test
# `make help` names the rest; while you work: make check, make unit.
# The distribution's Python rather than one compiled by hand, which lacks its optimisation: it is faster by a third.
DISTRIBUTION := /usr/bin/python3.11
PYTHON ?= $(shell $(DISTRIBUTION) -c "import ensurepip, sysconfig; open(sysconfig.get_path('include') + '/Python.h')" \
	2>/dev/null && echo $(DISTRIBUTION) || command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# program:package pairs of the peers that the acceptance tests talk to
PEERS := storescu:dcmtk dciodvfy:dicom3tools Orthanc:orthanc gdcmconv:libgdcm-tools java:default-jre-headless \
	ojph_compress:openjph-tools openssl:openssl ip:iproute2 rsyslogd:rsyslog systemd-analyze:systemd promtool:prometheus prometheus:prometheus \
	chromium:chromium nginx:nginx-light npm:npm node:nodejs shellcheck:shellcheck mandoc:mandoc zsh:zsh fish:fish curl:curl

# Tests run in one process more than there are cores, since they often wait; a file's tests in one of them, so that their
# fixtures are made once.
WORKERS ?= $(shell expr $$(nproc) + 1)
PYTEST := $(BIN)/python -m pytest
# Else each test process would compile every test anew.
unexport PYTHONDONTWRITEBYTECODE
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo check unit test coverage install peers faults load bench bench-receive bench-catalog bench-reading \
	bench-restart bench-training offline try-install try-image axe provider fuzz fuzz-series sbom demo-bundle viewer site man completion soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## install into .venv, editable, with the versions of constraints.txt

$(VENV)/.base: constraints.txt deploy/environment.sh
	@test -n "$(PYTHON)" || { echo "Python is needed: install python3 (3.11 to 3.13) and python3-venv"; exit 1; }
	deploy/environment.sh "$(PYTHON)" $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.base pyproject.toml
	$(PIP) --no-build-isolation --editable ".[training]"
	@# A node that may not write here would compile its sources at every start
	$(BIN)/python -m compileall -q dicomnode training
	@touch $@

$(VENV)/.installed-test: $(VENV)/.base pyproject.toml
	$(PIP) --no-build-isolation --editable ".[training,tracing,docs,test]"
	@touch $(VENV)/.installed $@

demo: install ## run the full pipeline: a study by C-STORE, its analysis, its results in a small PACS
	$(BIN)/dicomnode demo

CHECKS := $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
check: $(VENV)/.installed-test ## ruff, mypy, import-linter (about a minute)
	$(CHECKS)

unit: $(VENV)/.installed-test ## the tests of tests/unit that are not marked slow (minutes, no peers needed)
	$(PYTEST) tests/unit/training tests/unit -m "not slow" $(PARALLEL) -q $(PYTEST_ARGS)

# To collect all tests takes each process most of a minute, so each part is given the files that it may hold. The rest begins
# with those that take longest: no process shall be left with one of them at the end. What only reads the sources runs beside
# the first part, in one process.
QUICK := unit and not training and not slow and not alone
marked = $$(grep -rl "mark\.$(1)" tests/unit --include="test_*.py" --exclude-dir=training)
test: ## every check and every test (installs the peers on Debian, as root)
	@$(MAKE) --no-print-directory -j2 $(VENV)/.installed-test peers
	@mkdir -p build; failed=""; \
	{ $(CHECKS); } >build/check.log 2>&1 & checks=$$!; \
	$(PYTEST) tests/unit --ignore=tests/unit/training -m "$(QUICK)" $(PARALLEL) -q $(PYTEST_ARGS) || failed="$$failed quick"; \
	wait $$checks || failed="$$failed check"; cat build/check.log; \
	$(PYTEST) tests/acceptance tests/faults $(call marked,slow) tests/parity tests/unit/training \
		-m "not ($(QUICK)) and not alone" $(PARALLEL) -q $(PYTEST_ARGS) || failed="$$failed rest"; \
	$(PYTEST) $$(grep -rl "mark\.alone" tests --include="test_*.py") -m alone $(PYTEST_ARGS) || failed="$$failed alone"; \
	if [ -n "$$failed" ]; then echo "FAILED:$$failed (see above)"; exit 1; fi

coverage: $(VENV)/.installed-test ## branch coverage of the node by `make unit`, by file, and as pages in htmlcov/
	$(PYTEST) tests/unit/training tests/unit -m "not slow" $(PARALLEL) -q --cov --cov-report=html --cov-report=term:skip-covered $(PYTEST_ARGS)

site: $(VENV)/.installed-test ## the documentation as a site in build/site; a broken link fails
	$(BIN)/python -m mkdocs build --strict --quiet

man: install ## manual pages of every command in build/man
	$(BIN)/python -m tests.helpers.manual man build/man

completion: install ## completion for bash, zsh and fish in build/completion
	$(BIN)/python -m tests.helpers.manual completion build/completion

PER_HOUR ?= 120
soak: $(VENV)/.installed-test peers ## MINUTES=60, PER_HOUR=120 studies: two workers, console open; memory, descriptors, turnaround (docs/evidence/soak.md)
	$(BIN)/python -m tests.benchmarks.soak --minutes $(if $(filter-out file,$(origin MINUTES)),$(MINUTES),60) \
		--per-hour $(PER_HOUR) --out docs/evidence/soak.md

load: $(VENV)/.installed-test ## 10,000 associations with one receiver: its memory before and after (some minutes)
	DICOMNODE_LOAD=10000 $(BIN)/python -m pytest -s tests/faults/test_load.py

bench-receive: $(VENV)/.installed-test peers ## how fast images come in, beside DCMTK, Orthanc, plain pynetdicom
	$(BIN)/python -m tests.benchmarks.receive --memory /dev/shm --out docs/evidence/benchmarks-receive.md

KILLS ?= 300
SEED ?= 1
TLS ?=
STOW ?=
faults: $(VENV)/.installed-test peers ## KILLS=300 SIGKILLs over every process of a node, on both databases (20 minutes; TLS=1: by TLS; STOW=1: by STOW-RS)
	$(BIN)/python -m tests.faults.campaign --kills $(KILLS) --seed $(SEED) --audit $(if $(TLS),--tls) $(if $(STOW),--stow)

RUNS ?= 100000
MINUTES ?= 30
ASSOCIATIONS ?= 5000
fuzz: $(VENV)/.installed-test ## SEED=1: RUNS=100000 odd inputs in process, ASSOCIATIONS=5000 to a running node, MINUTES=30 at most each
	$(BIN)/python -m tests.fuzz --seed $(SEED) --runs $(RUNS) --minutes $(MINUTES)
	$(BIN)/python -m tests.fuzz --seed $(SEED) --node $(ASSOCIATIONS) --minutes $(MINUTES)

SERIES ?= 20000
fuzz-series: $(VENV)/.installed-test ## SEED=1: SERIES=20000 small series with odd values, from files to validated reports, MINUTES=30 at most
	$(BIN)/python -m tests.fuzz --seed $(SEED) --target series --runs $(SERIES) --minutes $(MINUTES)

bench-catalog: $(VENV)/.installed-test peers ## 100,000 studies in the catalogue: tick, `jobs`, the way to a worker
	$(BIN)/python -m tests.benchmarks.catalog

bench-reading: $(VENV)/.installed-test peers ## 100,000 studies: every page of `jobs list` and /metrics, 20 users, while images come in (ten minutes)
	$(BIN)/python -m tests.benchmarks.reading

RESTARTS ?= 3
bench-restart: $(VENV)/.installed-test peers ## RESTARTS=3 of a node that is sent studies all the time: how long nobody listens, and what is lost
	$(BIN)/python -m tests.benchmarks.restart --restarts $(RESTARTS)

bench: $(VENV)/.installed-test peers ## time, CPU, memory against the stock ways; C-STORE to results; into the docs (ten minutes)
	$(BIN)/python -m tests.benchmarks.run

bench-training: $(VENV)/.installed-test ## features, training steps and data loading, scans a second (five minutes)
	$(BIN)/python -m tests.benchmarks.training

SBOM ?= build/sbom.cdx.json
sbom: $(VENV)/.installed-test ## the bill of materials (CycloneDX) of what is installed here and runs, into build/
	$(BIN)/python -m tests.helpers.sbom $(SBOM)

OFFLINE ?= build/offline
offline: install ## one archive, into build/offline, that installs a node on a machine without any network (docs/admin/install.md)
	$(BIN)/python deploy/offline.py --python $(BIN)/python --out $(OFFLINE)

try-install: $(VENV)/.installed-test ## as root: install that archive in a new Debian root without a network, and run the demo there (ten minutes)
	$(BIN)/python -m tests.helpers.try_install --archives $(OFFLINE)

IMAGE ?= localhost/dicomnode
try-image: $(VENV)/.installed-test ## as root: the demo, health and end of the image, confined as a container, where no engine can start one
	$(BIN)/python -m tests.helpers.try_image $(IMAGE)

# Where they cannot be installed their tests skip and name the package (with CI=true: fail).
peers: ## other people's DICOM programs that the tests talk to (installed on Debian, as root)
	@PATH="$$PATH:/usr/sbin"; missing=""; \
	for p in $(PEERS); do command -v $${p%%:*} >/dev/null || missing="$$missing $${p##*:}"; done; \
	test -f /usr/share/java/pixelmed.jar || missing="$$missing pixelmed-apps"; \
	ls /usr/lib/*/rsyslog/lmnsd_ossl.so >/dev/null 2>&1 || missing="$$missing rsyslog-openssl"; \
	test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so || missing="$$missing orthanc-dicomweb"; \
	test -x /usr/lib/postgresql/15/bin/initdb || command -v initdb >/dev/null || missing="$$missing postgresql"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	else echo "not installed, their tests will skip:$$missing"; fi
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory viewer || echo "no OHIF, its test will skip"; fi
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory axe || echo "no axe-core, its test will skip"; fi
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory provider || echo "no oidc-provider, its test will skip"; fi

# What npm is configured to fetch from may be any mirror: the digest says whether it is the package that was tried.
# $(call from_npm,PACKAGE,ITS FILE AS NPM NAMES IT WITHOUT VERSION,WHAT OF IT,FOLDERS ABOVE THAT) into the target's folder
define from_npm
	@command -v npm >/dev/null || { echo "npm is needed: install npm (Debian: npm)"; exit 1; }
	rm -rf $(@D) && mkdir -p $(@D)
	@file=$$(cut -d' ' -f3 $<) && version=$${file#$(2)-} && cd $(@D) && \
	npm pack --silent $(1)@$${version%.tgz} >/dev/null && sha512sum --check --quiet $(CURDIR)/$< && \
	tar xzf $$file --strip-components=$(4) $(3) && rm $$file
	@touch $@
endef

build/viewer/ohif/index.html: deploy/ohif/package.sha512
	$(call from_npm,@ohif/app,ohif-app,package/dist,2)

viewer: build/viewer/ohif/index.html ## OHIF from npm into build/viewer, beside the example PACS (docs/admin/viewer.md)

build/axe/axe.min.js: tests/fixtures/axe-core.sha512
	$(call from_npm,axe-core,axe-core,package/axe.min.js,1)

axe: build/axe/axe.min.js ## axe-core from npm into build/axe, for the console's test

PROVIDER := build/oidc-provider
$(PROVIDER)/node_modules/.package-lock.json: tests/fixtures/oidc-provider/package-lock.json tests/fixtures/oidc-provider/package.json
	@command -v npm >/dev/null || { echo "npm is needed: install npm (Debian: npm)"; exit 1; }
	rm -rf $(PROVIDER) && mkdir -p $(PROVIDER) && cp $^ $(PROVIDER)/
	cd $(PROVIDER) && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

provider: $(PROVIDER)/node_modules/.package-lock.json ## an OpenID provider from npm into build/oidc-provider, for the console's test

demo-bundle: install ## rebuild the shipped demo bundle (an hour; weights/demo-synthetic/MODEL_CARD.md)
	OMP_NUM_THREADS=1 $(BIN)/training demo-bundle --work demo-training --out weights/demo-synthetic

clean: ## remove .venv and everything that was made
	rm -rf $(VENV) build fuzz-out htmlcov .coverage demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
