# Every target makes what it needs, from Python 3.11 or later and nothing else.
#
#   make demo     a short tour of kinto_orm, on a real Kinto inside the process
#   make tests    style, types, layers, tests with coverage: what must be green
#   make bench    how fast it is beside kinto-http: docs/performance.md; FULL=1 with a million records, too
#   make comparison  what goes wrong with kinto-http and with kinto_orm: docs/comparison.md
#   make docs     builds the documentation in docs/_build/html (tox -e docs runs its snippets, too)
#   make docs-look  pictures of every page in two widths, dead links, what the search finds; needs chromium
#   make serve    a real Kinto on http://localhost:8888/v1; another port: make serve PORT=8889
#   make release  wheel and sdist in dist/, checked, and installed on each Python that is here; publishes nothing
#   make clean    forgets everything that was made
#
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo tests bench comparison docs docs-look serve release clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.installed
	$(BIN)/kinto-orm demo

tests: $(VENV)/.tox
	$(BIN)/tox run -e lint,types,imports,tests

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py $(if $(FULL),--full)
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/readme.py

comparison: $(VENV)/.bench
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/readme.py

docs: $(VENV)/.tox
	$(BIN)/tox run -e html

docs-look: docs
	PYTHONPATH=tests $(BIN)/python docs/look.py

serve: $(VENV)/.installed
	$(BIN)/kinto-orm serve $(if $(PORT),--port $(PORT))

release: $(VENV)/.release
	$(BIN)/python tests/check_release.py

clean:
	rm -rf $(VENV) .tox build dist *.egg-info docs/_build .coverage htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# Stamps: a file in the virtual environment for each thing that was installed there.

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "kinto_orm needs Python 3.11 or later; $(PYTHON) is: `$(PYTHON) --version 2>&1`." >&2; \
	    echo "Name another one: make PYTHON=python3.12" >&2; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.tox: $(VENV)/.created
	$(PIP) install 'tox>=4.20'
	@mkdir -p .tox  # tox itself would close it to other users, as whom some tests run PostgreSQL
	@touch $@

$(VENV)/.installed: $(VENV)/.created setup.cfg
	$(PIP) install --editable '.[server-postgres,cli]'
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) install kinto-http matplotlib
	@touch $@

$(VENV)/.release: $(VENV)/.created
	$(PIP) install build twine
	@touch $@
