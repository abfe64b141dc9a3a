# Everything runs in .venv, made from a lock: each target works alone on a fresh clone.
# Needs Python 3.10-3.12: `make test PYTHON=python3.12` takes another interpreter than python3.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
TWIN := .venv-twin
RUN := $(VENV)/bin/python -m
INSTALL := -m pip install --disable-pip-version-check --quiet
PIP := $(VENV)/bin/python $(INSTALL)
# One thread a process: sums are taken in the same order every time, and pytest's workers do not fight over the cores.
SINGLE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
PYTEST := $(SINGLE) $(RUN) pytest -n $(JOBS) --dist loadgroup

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv reproduce findings check test test-long test-twin mutants lint typecheck bench notebooks docs \
  verl twin scale-cpu scale-twin lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.dev ## set up .venv with everything for development
	@echo "ready: source $(VENV)/bin/activate"

reproduce: $(VENV)/.reproduce ## the ledger, the toy experiments, the figures and one report, into results/
	$(SINGLE) $(RUN) toy run --method grpo --world mixed --seeds 32 --steps 200 --out results/toy/grpo
	$(SINGLE) $(RUN) toy run --method dynamo --world mixed --seeds 32 --steps 200 --out results/toy/dynamo
	$(SINGLE) $(RUN) toy sweep default --jobs $(JOBS) --out results/toy
	$(SINGLE) $(RUN) theory --json results/ledger/ledger.json --data results/ledger
	$(SINGLE) $(RUN) paper_figs --source results
	$(SINGLE) $(RUN) paper_figs.report --source results

findings: $(VENV)/.reproduce ## all results behind the findings of README, into results/: an hour on two cores
	$(SINGLE) $(RUN) toy sweep default allocation-map-more bounds learning-rate horizons regimes adamw aggregation micro-batch \
	  tuning norms --jobs $(JOBS) --out results/toy
	$(SINGLE) $(RUN) toy sweep table1 --tuned results/toy/tuning/chosen.json --jobs $(JOBS) --out results/toy/tuned
	$(SINGLE) $(RUN) toy sweep table1 --tuned results/toy/norms/chosen.json --jobs $(JOBS) --out results/toy/norm-matched
	$(SINGLE) $(RUN) theory --json results/ledger/ledger.json --data results/ledger
	$(SINGLE) $(RUN) paper_figs.findings --source results

check: lint typecheck ## lint, types and the quick tests of the packages, without verl: for every push
	FUZZ_EXAMPLES=25 $(PYTEST) -m "not long and not needs_verl" $(addprefix tests/,theory toy scale paper_figs)

test: lint typecheck verl ## what a change must pass: check, one run of verl, branch coverage of theory
	FUZZ_EXAMPLES=100 $(PYTEST) -m "not long" --cov=theory --cov-branch --cov-fail-under=95

test-long: verl ## what `make test` leaves out: all runs of verl, kills, slow tests, more arbitrary input, test-twin
	FUZZ_EXAMPLES=2000 $(PYTEST) -m "long or fuzz"
	@$(MAKE) --no-print-directory test-twin

test-twin: twin ## tests of scale/ with the versions that a run on GPUs has: a part of test-long
	@test ! -e $(TWIN)/.scale-twin || \
	  $(SINGLE) $(TWIN)/bin/python -m pytest -n $(JOBS) --dist loadgroup tests/scale \
	    -m "twin or (needs_verl and not long and not versionless)"

twin:
	@$(MAKE) --no-print-directory scale-twin || \
	  echo "the CPU build of the vLLM of the GPUs cannot be installed here: its tests are skipped" >&2

mutants: $(VENV)/.mutants verl ## plant 400 faults, one at a time, and see which of them no test notices: hours
	$(SINGLE) $(RUN) tests.mutants

lint: $(VENV)/.dev ## ruff, check and format
	$(RUN) ruff check
	$(RUN) ruff format --check

typecheck: $(VENV)/.dev ## mypy
	$(RUN) mypy

bench: $(VENV)/.dev ## the benchmarks, timed, in one process
	$(SINGLE) $(RUN) pytest --benchmark-enable --benchmark-only

notebooks: $(VENV)/.dev ## execute the notebooks in place
	$(SINGLE) $(VENV)/bin/python notebooks/execute.py

docs: $(VENV)/.dev ## the pages of the parts, into build/docs
	$(SINGLE) $(RUN) sphinx -W --keep-going -q -b html docs build/docs

verl: $(VENV)/.dev
	@$(MAKE) --no-print-directory scale-cpu || echo "the CPU build of vLLM cannot be installed here: its tests are skipped" >&2

scale-cpu: $(VENV)/.scale-cpu ## add verl and the CPU build of vLLM to .venv (Linux)

scale-twin: $(TWIN)/.scale-twin ## set up .venv-twin: the versions of the GPUs, with the CPU build of vLLM (Linux)

lock: build/lock/.done ## write requirements/*.lock again (UPGRADE=1: newest versions)
	PATH="$(CURDIR)/build/lock/bin:$$PATH" build/lock/bin/python requirements/lock.py $(if $(UPGRADE),--upgrade)

clean: ## remove the environments and all caches; results/ stays
	rm -rf $(VENV) $(TWIN) build *.egg-info .coverage* .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created $(TWIN)/.created: %/.created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || { echo "Python 3.10, 3.11 or 3.12 is needed,\
	 and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $*
	@touch $@

# A stamp is newer than the lock and the pyproject.toml that it was installed from.
$(VENV)/.reproduce $(VENV)/.dev $(VENV)/.mutants: $(VENV)/.%: requirements/%.lock pyproject.toml | $(VENV)/.created
	$(PIP) -r $<
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# vLLM's CPU build names dependencies that its lock leaves out, so pip must not look at them.
$(VENV)/.scale-cpu: requirements/scale-cpu.lock | $(VENV)/.dev
	$(PIP) --no-deps -r $<
	@touch $@

$(TWIN)/.scale-twin: requirements/scale-twin.lock pyproject.toml | $(TWIN)/.created
	$(TWIN)/bin/python $(INSTALL) --no-deps -r $<
	$(TWIN)/bin/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

build/lock/.done: Makefile
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --disable-pip-version-check --quiet packaging==25.0 uv==0.13.8
	@touch $@
