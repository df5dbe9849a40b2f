# `make demo` and `make test` are the two commands; each does all its own set-up.
PYTHON ?= $(firstword $(foreach version,3.11 3.12 3.13,$(shell python$(version) -c '' 2>/dev/null && echo python$(version))) python3.11)
SECONDS ?=
JSON ?=
ONLY ?=
VALUES ?= 1000000
SEED ?=
SERVE = .venv
TRAIN = .venv-train
BENCH = .venv-bench
FOLDERS = schemas model export stream backtest retraining
LINKS = build/import/clickscore/.done
PIP = -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help setup setup-train demo demo-bundle fast test check language unit coverage integration \
	fuzz chaos bench bench-flat bench-reasons bench-scoring bench-delivery bench-gateway bench-policy bench-decisions bench-pacing bench-encode docs \
	hashes digests audit sbom clean

help:  ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(SERVE)/.done  ## the serving environment, in .venv, with the embedded Kafka, without torch

setup-train: $(TRAIN)/.done  ## the training and test environment, in .venv-train, with torch

$(SERVE)/.done: pyproject.toml constraints.txt model/best_items.c
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/python $(PIP) --editable '.[broker,gateway]'
	touch $@

$(SERVE)/.tests: $(SERVE)/.done
	$(SERVE)/bin/python $(PIP) --editable '.[test]'
	touch $@

$(TRAIN)/.done: pyproject.toml constraints.txt model/best_items.c $(LINKS)
	$(PYTHON) -m venv $(TRAIN)
	$(TRAIN)/bin/python $(PIP) --editable '.[train,encode,dev]'
	touch $@

# The folders under the name by which they are imported, for the type checker, which runs no import hooks.
$(LINKS): Makefile
	mkdir -p $(@D)
	for folder in $(FOLDERS); do ln -sfn ../../../$$folder $(@D)/$$folder; done
	touch $@

demo: setup  ## a real Kafka, a simulated shop, a worker, a live view and web pages; SECONDS=60 ends it, JSON=FILE keeps a summary
	$(SERVE)/bin/clickscore demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(JSON),--json-file $(JSON))

# The seed is the seed of stream/simulator/demo.py, so that the model knows the shop of the demo.
demo-bundle: setup-train  ## the demo's model, trained anew on sessions of its synthetic shop: some minutes
	rm -rf build/demo-bundle && mkdir -p build/demo-bundle
	$(TRAIN)/bin/clickscore simulate --events 800000 --seed 7 --sessions build/demo-bundle/sessions.jsonl.gz
	$(TRAIN)/bin/clickscore train build/demo-bundle/sessions.jsonl.gz --out build/demo-bundle/checkpoint --preset small
	rm -rf stream/bundles/demo
	$(TRAIN)/bin/clickscore export build/demo-bundle/checkpoint --out stream/bundles/demo

fast: $(SERVE)/.tests  ## the tests for while you edit: no broker, no torch, nothing slow, no generated examples
	OMP_NUM_THREADS=1 $(SERVE)/bin/python -m pytest --quiet -m 'not kafka and not slow and not train and not hypothesis' \
		--ignore tests/integration --ignore tests/chaos --ignore tests/fuzz

# The tests on a broker mostly wait and the others mostly compute, so two jobs run beside each other.
test: check  ## format, lint, types, import contracts, language, unit and integration tests
	@$(MAKE) --no-print-directory --jobs=2 --keep-going $(addprefix labelled-,integration unit coverage) \
		|| { echo "Failed, with the lines of pytest that say why:"; grep -hE '^(FAILED|ERROR|E  ) ' build/tests/*.log; exit 1; }

# The logs are kept, so that `test` can repeat the failures of both jobs where a reader looks first: at the end.
labelled-%:
	@mkdir -p build/tests
	@bash -o pipefail -c '$(MAKE) --no-print-directory $* 2>&1 | tee build/tests/$*.log | sed -u "s/^/$*: /"'

check: setup-train  ## format, lint, types, import contracts and language alone
	$(TRAIN)/bin/ruff format --check .
	$(TRAIN)/bin/ruff check .
	$(TRAIN)/bin/basedpyright --pythonpath $(TRAIN)/bin/python
	$(TRAIN)/bin/lint-imports
	$(TRAIN)/bin/python docs/language.py

language: setup-train  ## names, docstrings and the README alone, against the limits of docs/language.py
	$(TRAIN)/bin/python docs/language.py

unit: setup-train  ## everything that needs no broker
	$(TRAIN)/bin/python -m pytest -m 'not kafka'

# Generated examples are left out, so that the result does not depend on luck.
COVERING = $(addprefix tests/stream/,state scoring policy budgets worker) \
	$(addprefix tests/stream/test_,budgets.py pipeline.py consent.py clients.py identity.py ad_caps.py deciders.py click_rates.py) \
	$(addprefix tests/stream/replay/test_,reference_files.py task.py) tests/schemas tests/docs/test_contracts.py

coverage: setup-train  ## branches that tests without a broker reach: all of the core, at least 90 % of the worker
	$(TRAIN)/bin/python -m pytest --quiet -m 'not kafka and not slow and not hypothesis' --cov --cov-report= $(COVERING)
	$(TRAIN)/bin/python -m coverage report --include='stream/worker/*' --fail-under=90
	$(TRAIN)/bin/python -m coverage report --omit='stream/worker/*' --fail-under=100

integration: setup-train  ## everything on a real broker
	$(TRAIN)/bin/python -m pytest -m kafka

fuzz: setup-train  ## a million broken values through worker, readers, bundles and pages; VALUES and SEED change it
	$(TRAIN)/bin/python -m tests.fuzz --values $(VALUES) $(if $(SEED),--seed $(SEED))

chaos: setup-train  ## faults under load, a judge, and the table of docs/reliability.md, in at most 20 minutes; SEED=N
	@$(TRAIN)/bin/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

bench: $(BENCH)/.done  ## the measured table of docs/performance.md, in about 20 minutes; JSON=FILE keeps every run
	@$(BENCH)/bin/python -m bench $(if $(JSON),--json-file $(JSON))

bench-scoring: $(BENCH)/.done  ## graphs of 10,000 to 1,000,000 items beside the naive one, in about 4 minutes
	@$(BENCH)/bin/python -m bench.graphs $(if $(JSON),--json-file $(JSON))

bench-flat: $(BENCH)/.done  ## memory of a replay of 10 million events against 1 million, in about 15 minutes
	@$(BENCH)/bin/python -m bench --only flat

bench-reasons: $(BENCH)/.done  ## a replay whose decisions give reasons against one whose do not, in about 5 minutes
	@$(BENCH)/bin/python -m bench --only reasons

bench-delivery: $(BENCH)/.done  ## exactly once beside at least once, in about 5 minutes
	@$(BENCH)/bin/python -m bench --only delivery $(if $(JSON),--json-file $(JSON))

bench-gateway: $(BENCH)/.done  ## requests a second and added latency of a gateway, in about 3 minutes; JSON=FILE keeps every run
	@$(BENCH)/bin/python -m bench.gateway $(if $(JSON),--json-file $(JSON))

bench-policy: $(BENCH)/.done  ## what each rule of the policy costs, in about 2 minutes
	@$(BENCH)/bin/python -m bench.policy_cost

bench-pacing: $(BENCH)/.done  ## budgets of a simulated day beside the offline optimum, in about 10 minutes; PLOT=FILE draws it
	@$(BENCH)/bin/python -m bench.pacing $(if $(PLOT),--plot $(PLOT))

bench-decisions: setup-train  ## what rules, shelves, goals and ads are worth in the simulated shop: docs/decisions-quality.md, in about 30 minutes
	$(TRAIN)/bin/python -m bench.decisions_quality $(if $(JSON),--json-file $(JSON))
	$(TRAIN)/bin/python -m bench.pacing --plot docs/plots/pacing.svg

bench-encode: setup-train  ## items that a model never saw, by a real language model (83 MB); EVENTS=FILE is of REES46
	$(TRAIN)/bin/python -m bench.encode $(EVENTS)

$(BENCH)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(PIP) --editable '.[bench]'
	touch $@

docs: setup-train  ## the generated parts of the documents: JSON Schemas, AsyncAPI, tables, the file map
	$(TRAIN)/bin/python docs/generate.py

# One file for the packages that workers and gateways run with, one with torch beside them, one for the package that
# builds the wheel.
HASHES = $(TRAIN)/bin/uv pip compile --quiet --generate-hashes --constraint constraints.txt --python-version 3.11 \
	--python-platform linux --no-emit-index-url --custom-compile-command 'make hashes'

hashes: setup-train  ## the hashes of the packages in the image, for the versions of constraints.txt
	$(HASHES) --extra gateway --extra otel --extra redis --extra registry --output-file deploy/requirements.txt pyproject.toml
	$(HASHES) --extra train --extra gateway --extra otel --extra redis --extra registry \
		--output-file deploy/requirements-training.txt pyproject.toml
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | $(HASHES) --output-file deploy/requirements-build.txt -

digests:  ## the digests of all images, asked of the registry by Docker: needs Docker and the internet
	$(PYTHON) deploy/digests.py

audit: setup-train  ## known vulnerabilities of the packages in the image: exit code 1; 2 where the service does not answer
	$(TRAIN)/bin/python deploy/audit.py

sbom: setup-train  ## the bill of materials of the image's packages (CycloneDX), in build/sbom.json
	rm -rf build/image && $(PYTHON) -m venv --without-pip build/image
	$(TRAIN)/bin/python -m pip --python build/image/bin/python install --quiet --disable-pip-version-check \
		--require-hashes --only-binary :all: --requirement deploy/requirements.txt
	$(TRAIN)/bin/cyclonedx-py environment build/image/bin/python --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.json

clean:  ## remove what set-up made
	rm -rf $(SERVE) $(TRAIN) $(BENCH) build *.egg-info
