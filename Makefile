# `make` alone lists what there is. Everything runs in .venv, made on first use.
.DEFAULT_GOAL := help
.PHONY: $(shell awk -F: '/^[a-z0-9-]+:/ {printf "%s ", $$1}' Makefile)

PYTHON ?= python3
STAGE ?= dev
MINUTES ?= 10
BIN := .venv/bin
# The command line, as ./paceline runs it.
PACELINE := $(BIN)/python -m operations
READY := .venv/.ready
RUNS := .venv/.ready-run
# The folders of tests that run in one process, over memory: `make test`. All others belong to `make test-all`.
QUICK_TESTS := tests/unit tests/simulation tests/functional

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUNS) ## run everything on this machine; Ctrl-C ends it
	@exec $(BIN)/python -m local

test: $(READY) ## run the quick tests (unit, simulation, functional): under a minute, they need nothing but Python
	@$(BIN)/python -m pytest $(QUICK_TESTS) --numprocesses 2 --dist worksteal

test-all: $(READY) ## run every test: the quick ones with more examples, emulators, processes, browser, simulation
	@HYPOTHESIS_PROFILE=full $(BIN)/python -m pytest $(QUICK_TESTS) tests/integration --numprocesses 2 --dist loadfile
	@$(BIN)/python -m pytest tests/e2e tests/chaos tests/browser
	@$(BIN)/python -m tests.simulation --schedules 3000
	@$(BIN)/python -m tests.simulation --due --schedules 1000
	@$(BIN)/python -m tests.simulation --units --schedules 1000
	@$(BIN)/python -m tests.simulation --cancels --schedules 1000
	@$(BIN)/python -m tests.simulation --several --schedules 1000

browser: $(READY) ## test the dashboard in Chromium, if it is installed
	@$(BIN)/python -m pytest tests/browser

lint: $(READY) ## run the linters for form, types and imports; changes nothing
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fix: $(READY) ## format the code, and fix what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

check: lint audit-deps test-all ## lint and every test: what CI runs

audit-deps: $(READY) ## look up known vulnerabilities of the Lambda package
	@$(BIN)/python -m operations.audit_deps

logs: $(RUNS) ## follow the completions
	@exec $(PACELINE) logs

audit: $(RUNS) ## prove from the completion log that the pace was kept
	@exec $(PACELINE) audit

simulate: $(READY) ## simulate N (10000) schedules of faults, from SEED (0) on
	@exec $(BIN)/python -m tests.simulation --schedules $(or $(N),10000) --seed $(or $(SEED),0)

mutants: $(READY) ## turn off one guard after the other; prints how many schedules find it
	@exec $(BIN)/python -m tests.simulation --mutants --schedules $(or $(N),5000)

redrive: $(RUNS) ## submit failed tasks again, of USER_ID or of all users: of the system that runs here, else of STAGE
	@exec $(PACELINE) dead-letters --stage $(STAGE) $(if $(USER_ID),--user $(USER_ID))

chaos: $(READY) ## inject faults for MINUTES (10) under load, KIND=several or shared; fails if a promise breaks
	@exec $(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(addprefix --,$(KIND))

demo: $(READY) ## send bursts for five users, watch them live, see the proof
	@exec $(PACELINE) demo

pictures: $(READY) ## draw the pictures of README anew; takes a minute
	@exec env PYTHONPATH=client $(BIN)/python -m demo.pictures

diagrams: $(READY) ## draw the architecture and the states of a task into docs/img
	@exec $(BIN)/python -m demo.diagrams

client-models: $(READY) ## write the Python client's models anew from the OpenAPI document's schemas
	@exec env PYTHONPATH=client $(BIN)/python -m operations.client_models

typescript: $(READY) ## build the TypeScript client from the OpenAPI document, and pack it into build; wants npm
	@$(BIN)/python -c 'from chalicelib.api.openapi import document; print(document())' > clients/typescript/openapi.json
	@mkdir -p build
	@cd clients/typescript && npm install --no-audit --no-fund && npm run build && npm pack --pack-destination ../../build

bench: $(READY) ## run the benchmarks; ONLY=handler,cold picks some; see bench/README.md
	@exec $(BIN)/python -m bench $(ONLY)

stack: $(RUNS) ## create or update the stack at AWS_ENDPOINT_URL, or on AWS
	@exec $(BIN)/python -m infra.stack

deploy: $(READY) ## deploy STAGE (dev) to LocalStack at AWS_ENDPOINT_URL, or to AWS
	@exec $(PACELINE) deploy --stage $(STAGE)

destroy: $(READY) ## delete STAGE with everything in it
	@exec $(PACELINE) destroy --stage $(STAGE)

first-hour: $(READY) ## measure AWS with a stage of its own, report, and remove it again; it asks before it spends
	@exec $(PACELINE) first-hour

package: $(READY) ## write STAGE as one SAM template to build/package, for a pipeline
	@exec $(PACELINE) package --stage $(STAGE)

test-deployed: $(READY) ## test the deployed STAGE that answers at URL
	@test -n "$(URL)" || { echo "say where it answers: make test-deployed URL=https://..." >&2; exit 2; }
	@E2E_URL=$(URL) STAGE=$(STAGE) $(BIN)/python -m pytest tests/deployed

screenshots: $(READY) ## take the dashboard's pictures for docs/img; wants Chromium
	@exec $(BIN)/python -m tests.browser.screenshots

localstack: ## start LocalStack in Docker
	@docker compose --file infra/docker-compose.yml up --detach --wait

release: $(READY) ## build the packages for Python and Node into dist/, check them, say what to upload
	@exec $(BIN)/python -m operations.release

version: $(READY) ## set the version everywhere: make version VERSION=1.2.0
	@exec $(BIN)/python -m operations.release version $(VERSION)

clean: ## remove what make made, and the local state and logs
	rm -rf .venv .paceline logs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Each is there once its requirements are installed; running needs far less than testing.
$(RUNS): requirements.txt requirements-tracing.txt requirements-run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Paceline needs Python 3.10 or later; name it as in: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making .venv"; $(PYTHON) -m venv .venv; }
	@echo "Installing what running takes into .venv (once; half a minute)"
	@touch .venv/.begun
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-run.txt
	@mv .venv/.begun $@

$(READY): $(RUNS) requirements-dev.txt
	@echo "Installing what testing takes into .venv (once; a minute or two)"
	@touch .venv/.begun
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@mv .venv/.begun $@
