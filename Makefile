# Each target sets up .venv by itself. Prerequisites: Debian (or alike) with Python >= 3.11, its venv module, and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: demo test check bench bench-accuracy bench-speed clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kusabi needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(PIP) install torch -c constraints.txt
	$(PIP) install -e '.[demo,bench,dev]' -c constraints.txt
	touch $@

demo: .venv/ready ## the main job on simulated fabric inspection; writes runs/demo/report.html
	$(BIN)/kusabi demo --out runs/demo

test: .venv/ready ## the default suite, one process per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

check: .venv/ready ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: .venv/ready ## accuracy of the main job on three tasks; results under benchmarks/results and in the READMEs
	$(BIN)/python -m benchmarks.main_job
	$(BIN)/python -m benchmarks.tables

bench-accuracy: .venv/ready ## every method beside its peers, hours, resumable (STAGE=b: more); QUICK=1: all methods once, minutes
	$(BIN)/python -m benchmarks.accuracy --stage $(if $(QUICK),quick,$(or $(STAGE),a))
	$(if $(QUICK),,$(BIN)/python -m benchmarks.accuracy.tables --stage $(or $(STAGE),a))

bench-speed: .venv/ready ## beside stock PEFT, an hour and more; QUICK=1: under ten minutes, written to .cache; DEVICE=cuda
	$(BIN)/python -m benchmarks.speed --device $(or $(DEVICE),cpu) $(if $(QUICK),--quick --out .cache/benchmarks/speed/quick.json)

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
