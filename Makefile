# On a fresh machine, start with `make demo` or `make test`. Each sets up .venv if it does not exist.
PYTHON ?= python3
LOCK := deploy/requirements.lock
RUNTIME_LOCK := deploy/requirements-runtime.lock
SBOM := deploy/sbom.cdx.json
COMPILE := .venv/lock/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --no-header --quiet
CLIENTS := .venv/clients
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-clients test-looks test-deploy prove check bench profile soak lock sbom format

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# pip compiles what it installs, and not what is installed from here. A service that may not write into this folder
# would compile it at each start: twice the time.
install: $(READY) ## set up .venv from the lock file, and compile the code (nothing to do if both are up to date)
	@$(BIN)/python -m compileall -q receiver models migrations

demo: $(READY) ## run the demo: the whole service with the bundled sandbox provider
	@$(BIN)/ringback demo

# Four at a time also on two cores: tests wait for half of their time. Some tests start processes: no environment may
# make each of these compile everything again.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 4 --dist worksteal
SLOW := tests/browser tests/deploy tests/faults tests/fuzz tests/providers

test: $(READY) ## run the test suite (in less than 12 minutes on two cores)
	$(PYTEST) $(SLOW:%=--ignore=%)

test-slow: $(READY) ## run the tests that kill processes, drive a browser and proxies, try each provider, draw thousands of requests
	$(PYTEST) $(SLOW)

test-clients: $(READY) ## drive public clients of PiAPI, unchanged (tests/clients/README.md)
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check piapi-skills==1.2.0
	@$(BIN)/python -m tests.clients --skills $(CLIENTS)/bin/python \
		$(if $(MCP_SERVER),--mcp-server $(MCP_SERVER)) $(if $(N8N_NODES),--n8n-nodes $(N8N_NODES)) $(if $(RECORD),--record)

# Programs from Debian that it needs: see .ci/run.
prove: $(READY) ## prove the promises under faults, in 40 minutes at most (with QUICK=1 in 3; SEED=... repeats one)
	@$(BIN)/python -m tests.prove $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED)) \
		$(if $(DATABASE),--database $(DATABASE)) $(if $(CAMPAIGN),--campaign $(CAMPAIGN))
	@$(if $(CAMPAIGN)$(QUICK),,$(BIN)/python -m tests.fuzz --worst --both --count 200000 \
		$(if $(SEED),--seed $(SEED)))

# bandit's findings of low severity are ruff's rules S too. SQL in storage is put together from names of our own columns
# and states, and every value is bound; B608 finds each of these texts.
check: $(READY) ## check format, lint rules, types, import layers, security rules and known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -ll -r receiver models migrations -x receiver/storage
	$(BIN)/bandit -q -ll -r receiver/storage --skip B608
	@$(BIN)/python -m tests.audit

test-looks: $(READY) ## look at each page of the dashboard in every look; pictures in tests/browser/.shots
	@TEST_REQUIRE_PROGRAMS=1 $(BIN)/python -m pytest -q -n 2 tests/browser -m large

test-deploy: $(READY) ## try proxies for long, and image, compose, systemd, Kubernetes for real (PART=image alone)
	@$(if $(PART),,TEST_REQUIRE_PROGRAMS=1 $(BIN)/python -m pytest -q tests/deploy -m large)
	@$(BIN)/python -m tests.deploy $(PART) $(if $(BASE),--base $(BASE))

bench: $(READY) ## measure speed as ratios in one run (or one part, with PART=pages; or a table of SCALE=10M tasks)
	@$(BIN)/python -m tests.bench $(PART) $(if $(SCALE),--scale $(SCALE))

profile: $(READY) ## sample a load and write a flame graph (PART=inbound, deliveries or runs; DATABASE=postgresql)
	@$(BIN)/python -m tests.bench.profiling $(PART) $(if $(DATABASE),--database $(DATABASE))

soak: $(READY) ## run a mixed load for ten minutes on SQLite (or with DATABASE=postgresql)
	@$(BIN)/python -m tests.bench.soak --minutes 10 $(if $(DATABASE),--database $(DATABASE))

format: $(READY) ## fix lint findings and format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# The second holds what the service needs alone, at the versions of the first: the image is made from it.
lock: ## update the lock files from pyproject.toml
	$(PYTHON) -m venv .venv/lock && .venv/lock/bin/pip install --quiet uv
	$(COMPILE) --group dev --output-file $(LOCK)
	$(COMPILE) --constraint $(LOCK) --output-file $(RUNTIME_LOCK)
	rm -rf .venv/lock

sbom: ## write the bill of materials of the image from its lock file
	$(PYTHON) -m venv .venv/sbom && .venv/sbom/bin/pip install --quiet cyclonedx-bom==7.5.0
	$(PYTHON) -m venv --without-pip .venv/runtime
	.venv/sbom/bin/pip --python .venv/runtime/bin/python install --quiet --no-deps --require-hashes -r $(RUNTIME_LOCK)
	.venv/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --spec-version 1.6 --output-reproducible \
		.venv/runtime/bin/python | $(PYTHON) tests/deploy/sbom.py > $(SBOM).new
	mv $(SBOM).new $(SBOM) && rm -rf .venv/sbom .venv/runtime

$(READY): $(LOCK) pyproject.toml
	@echo "Setting up .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ringback needs Python 3.11 or newer. Name one, for example: make PYTHON=python3.12 demo")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
