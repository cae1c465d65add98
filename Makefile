# make setup   makes .venv with pinned versions: the CUDA build where there is an NVIDIA driver, the CPU build elsewhere
PYTHON ?= python3
VENV ?= .venv
VARIANT ?= $(shell if test -e /proc/driver/nvidia/version || PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null \
	| grep -q libnvidia-ml.so.1; then echo cuda; else echo cpu; fi)
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-$(VARIANT)
PIP := $(BIN)/python -m pip --disable-pip-version-check
FBGEMM_cpu := ./shims/fbgemm-gpu
FBGEMM_cuda :=

.PHONY: help setup quickstart test test-parts test-whole test-postgres test-ray test-dagster gpu-check gpu-bench \
	lint bench docs soak fuzz audit
.DEFAULT_GOAL := help

help:
	@echo "make setup       install into $(VENV) (PYTHON=python3.12 or VARIANT=cpu to choose)"
	@echo "make quickstart  synthetic data, a teacher, a student, a report: configs/quickstart.yaml"
	@echo "make test        the tests"
	@echo "make test-postgres  a registry on PostgreSQL behind mlflow server, with promoters that race"
	@echo "make test-ray    installs Ray too, and tests a run on a Ray cluster of two nodes"
	@echo "make test-dagster  makes an environment with Dagster beside $(VENV), and tests nights in it"
	@echo "make soak        faults at random against a small pipeline: SEED=1 MINUTES=30; the table is in runs/faults"
	@echo "make fuzz        hostile input to every way in: MINUTES=10 SEED=1"
	@echo "make audit       known vulnerabilities of every pinned package, by a service that knows them"
	@echo "make gpu-check   a training on the GPU beside one on the CPU; one line where there is no GPU"
	@echo "make gpu-bench   bandwidth and FLOP/s of the GPU's steps against the card's"
	@echo "make lint        ruff and pyrefly"
	@echo "make docs        the documentation as a site, in docs/_build/html"
	@echo "make follow      the tutorial and what goes on from it, typed to the letter in a new home: ZIP=ml-100k.zip"
	@echo "make bench       ours against peers and limits: DATA=data/gowalla, BENCH_ARGS='--quick --only g1,g4'"

setup: $(STAMP)
	@$(BIN)/recdistill doctor

# The two builds own the same files, so the other one leaves before this one comes.
$(STAMP): requirements/$(VARIANT).txt pyproject.toml shims/fbgemm-gpu/pyproject.toml | $(BIN)/python
	@if ls $(VENV)/.setup-* 2>/dev/null | grep -qv -- '-$(VARIANT)$$'; then \
		$(PIP) uninstall --quiet --yes fbgemm-gpu fbgemm-gpu-cpu; rm -f $(VENV)/.setup-*; fi
	$(PIP) install --quiet --constraint requirements/$(VARIANT).txt $(FBGEMM_$(VARIANT)) --editable '.[dev]'
	$(PIP) check
	@touch $@

# Debian's python3 may lack ensurepip, without which venv cannot put pip into an environment; virtualenv brings its own.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "recdistill needs Python 3.11 or later, and $(PYTHON) is not: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); \
		$(PYTHON) -m pip install --quiet --constraint requirements/cpu.txt --target .bootstrap virtualenv && \
		PYTHONPATH=.bootstrap $(PYTHON) -m virtualenv --quiet $(VENV); } || { \
		echo "no virtual environment can be made: install venv or pip for $(PYTHON), on Debian" \
			"apt-get install python3-venv" >&2; exit 1; }

quickstart: $(STAMP)
	@test -d data/quickstart || $(BIN)/recdistill synth data/quickstart
	$(BIN)/recdistill run configs/quickstart.yaml

# Two halves that take about as long, one for each core of a small machine.
test: $(STAMP)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync test-parts test-whole

SERVED := tests/integration/test_registry_server.py
LONG := $(patsubst %,tests/e2e/test_%.py,defer diagnose label_shards plan_serving)

test-parts: $(STAMP)
	$(BIN)/python -m pytest -q tests/unit tests/contract tests/policy tests/fuzz tests/e2e $(LONG:%=--ignore=%)

test-whole: $(STAMP)
	$(BIN)/python -m pytest -q tests/integration tests/faults --ignore=$(SERVED) $(LONG)

# Apart from the others too: a PostgreSQL server, MLflow's own in front of it, and processes that race before both.
test-postgres: $(STAMP)
	$(BIN)/python -m pytest -q $(SERVED)

# Apart from the others: Ray is 240 MB, and its processes want more time on two cores than all that they run.
test-ray: $(STAMP)
	$(PIP) install --quiet --constraint requirements/$(VARIANT).txt --editable '.[dev,ray]'
	$(BIN)/python -m pytest -q tests/integration/test_ray.py

# Dagster wants an older protobuf than MLflow is tested with: an environment of its own, which sees the other, where the
# stages run, and holds what differs.
test-dagster: $(STAMP)
	@test -d $(VENV)-dagster || $(BIN)/python -m venv $(VENV)-dagster
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$(echo $(VENV)-dagster/lib/python3*/site-packages)/stages.pth
	$(VENV)-dagster/bin/python -m pip --disable-pip-version-check install --quiet --constraint requirements/dagster.txt \
		dagster dagster-webserver
	$(VENV)-dagster/bin/python -m pytest -q tests/integration/test_dagster.py tests/integration/test_dagster_backfill.py

# Kills, full disks, flipped bits, ranks that stop: what is struck must end in the artifacts of a run left alone.
soak: $(STAMP)
	$(BIN)/python tests/faults/soak.py --seed $(or $(SEED),1) --minutes $(or $(MINUTES),30)

# Minutes of the processor, shared out over the ways in; equal seeds try equal inputs, as far as the time goes.
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

# In an environment of its own; --strict, because a package that could not be asked about is not one without faults.
audit: $(STAMP)
	@test -d $(VENV)-audit || $(BIN)/python -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip --disable-pip-version-check install --quiet 'pip-audit>=2.10,<3'
	for pins in cpu cuda dagster; do \
		$(VENV)-audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements/$$pins.txt || exit 1; done

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

# Sphinx is needed by nothing else. A warning, such as a link that leads nowhere, fails.
docs: $(STAMP)
	$(PIP) install --quiet --constraint requirements/$(VARIANT).txt --editable '.[dev,docs]'
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Nothing here is a test: a table of ratios, in runs/bench. Peers go into environments of their own, under .bench.
bench: $(STAMP)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/bench.py $(if $(DATA),--data $(DATA)) $(BENCH_ARGS)

# What a newcomer meets, from `make setup` on: says where a page and what is printed differ. Half an hour where it is busy.
.PHONY: follow
follow:
	OMP_WAIT_POLICY=PASSIVE $(PYTHON) benchmarks/follow.py --file $(or $(ZIP),$(error say ZIP=ml-100k.zip)) \
		docs/tutorial.md docs/howto/promote.md docs/howto/roll-back.md

gpu-check: $(STAMP)
	$(BIN)/python benchmarks/gpu_check.py

gpu-bench: $(STAMP)
	$(BIN)/python benchmarks/gpu.py
