# All you need is Python 3.11 or later and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Debian and Ubuntu have it in the package postgresql-15.
OLDEST ?= /usr/lib/postgresql/15/bin
RUNS   := $(VENV)/.runs
# Two processes per processor, because tests spend a quarter of their time waiting; idle processes steal work.
FAST   := -m 'not soak' --numprocesses $(shell expr 2 \* $$(nproc)) --dist worksteal
# pip supports dependency groups only since 25.1, which Python 3.11 does not include.
DEV    := import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['dev'], sep='\n')

.PHONY: demo test tests files test-postgresql coverage test-lowest soak crash fault-matrix fuzz audit lock dist bench schema pictures lint format clean

# The program with its runtime dependencies: all that the demo needs.
$(RUNS): pyproject.toml
	@echo "Creating $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing atom-sync and its runtime dependencies from the package index, about 15 MB ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# One set-up for every other target, repeated only when the dependencies change.
$(READY): pyproject.toml
	@echo "Creating $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing atom-sync, the linters and the test tools from the package index ..."
	@$(BIN)/python -c "$(DEV)" > $(VENV)/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $(VENV)/dev.txt --editable .
	@touch $(RUNS) $@

demo: $(RUNS)
	@echo "Starting the demo ..."
	@$(BIN)/atom-sync demo

# In parallel: tests often wait, for another process or the disk.
test: $(READY)
	@$(MAKE) --no-print-directory --jobs 2 lint tests

# Collecting first rewrites the asserts of each test file once; otherwise, each of the processes does so.
tests: $(READY)
	-@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only --quiet > /dev/null 2>&1
	$(BIN)/python -m pytest $(FAST)

# Runs all tests that use a database on a PostgreSQL server: first on the newest supported version, which pip has
# installed, then on the oldest.
test-postgresql: $(READY)
	$(BIN)/python -m pytest $(FAST) --engine postgresql
	ATOM_TEST_POSTGRESQL=$(OLDEST) $(BIN)/python -m pytest $(FAST) --engine postgresql

# `make tests`, with a report of the lines that no test runs.
coverage: $(READY)
	$(BIN)/python -m pytest $(FAST) --cov --cov-report=term

# The same tests with the oldest versions that pyproject.toml allows.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) -c "import tomllib; print(*(d.replace('>=', '==') for d in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']), sep='\n')" > .venv-lowest/constraints.txt
	$(PYTHON) -c "$(DEV)" > .venv-lowest/dev.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --requirement .venv-lowest/dev.txt --editable . --constraint .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pytest $(FAST)

# Takes minutes: many kills, long floods.
soak: $(READY)
	$(BIN)/python -m pytest -m soak

# More than 500 times `kill -9`; reports how many hit the process while it was working.
crash: $(READY)
	$(BIN)/python -m pytest -m soak tests/crash -rP

# More of the random inputs of `make test`, different ones each time; takes minutes, and reports their number.
fuzz: $(READY)
	FUZZ_FACTOR=10 $(BIN)/python -m pytest tests/fuzz tests/test_sync_stateful.py

# Runs every command against every fault, and writes the results.
fault-matrix: $(READY)
	$(BIN)/python tests/faults/matrix.py > docs/FAULTS.md.new
	mv docs/FAULTS.md.new docs/FAULTS.md

# Checks the installed packages for known vulnerabilities on PyPI; fails for packages that it does not know.
audit: $(READY)
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip freeze --exclude-editable > .venv-audit/installed.txt
	.venv-audit/bin/pip-audit --requirement .venv-audit/installed.txt --no-deps --disable-pip --strict

# Tools for the next two targets, in a separate environment.
.venv-lock/.ready:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9' 'cyclonedx-bom>=7.2'
	@touch $@

# Every version and hash that an installation needs, for each supported Python and platform; no registry address.
LOCK := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock'
lock: .venv-lock/.ready
	$(LOCK) --upgrade pyproject.toml --output-file requirements.lock
	$(LOCK) --constraints requirements.lock --extra postgresql pyproject.toml --output-file requirements-postgresql.lock
	$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')" | $(LOCK) --upgrade - --output-file requirements-build.lock

# The wheel, and a software bill of materials (CycloneDX) of an environment created from the lock file.
dist: $(READY) .venv-lock/.ready
	rm -rf dist .venv-dist
	$(BIN)/python -m build --wheel --outdir dist
	$(PYTHON) -m venv --without-pip .venv-dist
	$(BIN)/python -m pip --python .venv-dist install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip --python .venv-dist install --quiet --disable-pip-version-check --no-deps --no-index dist/*.whl
	.venv-lock/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file dist/atom-sync.cdx.json .venv-dist
	rm -rf .venv-dist

# Compares with the floor, scripts and dlt (in a separate environment); takes half an hour on an idle machine.
bench: $(READY) .venv-bench/.ready
	$(BIN)/python benchmarks/bench.py --plot docs/performance.svg

.venv-bench/.ready:
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check 'dlt[sqlalchemy]'
	@touch $@

# Generates the script that creates a new database from all migrations.
schema: $(RUNS)
	$(BIN)/python -c "from atom_saas_sync.store.sqlite import migrations; print(migrations.render_snapshot(), end='')" > snapshot.sql.new
	mv snapshot.sql.new atom_saas_sync/store/sqlite/snapshot.sql

# Draws the pictures of the README.
pictures: $(RUNS)
	$(BIN)/python docs/pictures/draw.py

# Prints each module with its first sentence: `make files | grep -i backup`.
files:
	@grep -rm1 --include='*.py' '^"""' atom_saas_sync | sed 's/:"""/  /; s/"""$$//' | sort

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-lowest .venv-audit .venv-bench .venv-lock .venv-dist build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov
