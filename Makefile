# Two commands on a fresh machine: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
LOCK := deploy/requirements.lock
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench soak lock format

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## set up .venv from the lock file (again only when the lock file changed)

demo: $(READY) ## run the main job end to end with the bundled sandbox provider
	@$(BIN)/ringback demo

test: $(READY) ## run the whole test suite
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

check: $(READY) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## measure speed as ratios in one run
	@$(BIN)/python -m tests.bench

soak: $(READY) ## run a mixed load for ten minutes (DATABASE=postgresql: on that)
	@$(BIN)/python -m tests.bench.soak --minutes 10 $(if $(DATABASE),--database $(DATABASE))

format: $(READY) ## format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lock: ## resolve pyproject.toml into the lock file again
	$(PYTHON) -m venv .venv/lock && .venv/lock/bin/pip install --quiet uv
	.venv/lock/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file $(LOCK)
	rm -rf .venv/lock

$(READY): $(LOCK) pyproject.toml
	@echo "setting up .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ringback needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
