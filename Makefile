# The first minute: `make search`, `make test`, `make check`; `make docs` for the site. Each makes .venv and installs into it if needed.
# Afterwards `pip install .` and the `ftnas` command are the product.

PYTHON ?= python3
WORKERS ?= 2

BIN := .venv/bin
INSTALLED := .venv/.installed
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: search test check docs
.DELETE_ON_ERROR:

search: $(INSTALLED)
	$(BIN)/ftnas search experiments/digits.yaml --run runs/digits

# One thread for each worker: threads that share a core spin at each other's barriers, ten times slower.
test: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(INSTALLED)
	$(BIN)/python docs/site/reference.py
	$(BIN)/python docs/site/build.py

# torch first and by its exact version, or the registry's newest CUDA build comes.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ftnas needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -c constraints.txt -e ".[dashboard,dev,docs,export,nir,nni,postgresql]"
	touch $@
