# Both commands of the README, and what the people who work on Fubako use. Everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# tests in CI run on the built wheel, everywhere else on the working tree
INSTALL := $(if $(CI),--force-reinstall .,-e .)
SEED ?= 0
RUNS ?= 10000
WORLDS ?= 300
# tests side by side; each file stays whole, because its tests share what they start
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); expr $$( [ $$n -lt 8 ] && echo $$n || echo 7) + 1)

.PHONY: run test check fix bench fuzz interop sim siege docs lock clean

run: .venv/run.stamp
	$(BIN)/fubako up $(ARGS)

test: .venv/dev.stamp
	tests/install-programs
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(PYTEST)

check: .venv/dev.stamp
	$(BIN)/ruff format --check fubako tests bench docs
	$(BIN)/ruff check fubako tests bench docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/lint_patterns.py
	$(BIN)/python docs/generate.py --check

fix: .venv/dev.stamp
	$(BIN)/ruff format fubako tests bench docs
	$(BIN)/ruff check --fix fubako tests bench docs

docs: .venv/dev.stamp
	$(BIN)/python docs/generate.py

interop: .venv/dev.stamp
	tests/install-programs
	$(BIN)/pytest -n $(JOBS) --dist loadfile tests/interop $(PYTEST)

# more crashes and worlds than every `make test` has, and others: make sim RUNS=1000000 WORLDS=10000 SEED=7
sim: .venv/dev.stamp
	$(BIN)/python tests/sim/crashes.py --runs $(RUNS) --seed $(SEED)
	$(BIN)/python tests/sim/worlds.py --worlds $(WORLDS) --seed $(SEED)

# hypothesis, then guided by coverage: SECONDS for each of TARGETS (all of them), e.g. make fuzz SECONDS=60 TARGETS="message paths"
SECONDS ?= 3600
fuzz: .venv/dev.stamp
	$(BIN)/pytest tests/fuzz $(PYTEST) --hypothesis-profile=long
	$(PIP) install --require-hashes -r requirements-fuzz.lock
	$(BIN)/python tests/fuzz/cover.py --seconds $(SECONDS) $(TARGETS)

# strangers of every kind at once, and an ordinary client beside them; its figures go into docs/benchmarks.md
MINUTES ?= 10
siege: .venv/dev.stamp
	$(BIN)/python bench/siege.py --minutes $(MINUTES)

# against Postfix and Dovecot in the same run, one line each
bench: .venv/dev.stamp
	BENCH_PEERS=1 tests/install-programs
	$(BIN)/python bench/run.py $(BENCH)

lock:
	uv pip compile -q pyproject.toml --group pyproject.toml:build --extra uvloop --extra ssh --extra tui --universal --python-version 3.11 \
	  --generate-hashes --no-header -o requirements.lock
	uv pip compile -q pyproject.toml --group pyproject.toml:build --group pyproject.toml:dev --all-extras --universal \
	  --python-version 3.11 --generate-hashes --no-header -c requirements.lock -o requirements-dev.lock
	echo 'atheris==3.0.0' | uv pip compile -q - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements-fuzz.lock

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/made.stamp:
	$(PYTHON) -c 'import sys; sys.exit("Fubako needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/run.stamp: .venv/made.stamp requirements.lock pyproject.toml
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation $(INSTALL)
	@touch $@

.venv/dev.stamp: .venv/made.stamp requirements-dev.lock pyproject.toml $(if $(CI),$(shell find fubako -name '*.py'))
	$(PIP) install --require-hashes -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation $(INSTALL)
	@touch $@ .venv/run.stamp
