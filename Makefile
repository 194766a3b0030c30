# The environment is made by whichever of these runs first.
PROFILE ?= mini
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test notebooks verify site lab lock execute lint doctor publish bench fuzz
.DEFAULT_GOAL := repro

.venv/.ok: requirements.lock
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check uv || true
	.venv/bin/uv pip install -q --python .venv/bin/python --require-hashes -r requirements.lock \
	  || .venv/bin/python -m pip install -q --require-hashes -r requirements.lock
	.venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

repro: .venv/.ok          ## every table and figure of PROFILE (smoke, mini, study, paper)
	python -m vlact.tools.pipeline repro $(PROFILE)

test: .venv/.ok           ## unit tests and notebooks
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile tests
	python -m vlact.runtime.forkserver serve $(MAKE) --no-print-directory notebooks

# Two at a time, each after those whose data it reads.
NBVAL = pytest --nbval $(foreach number,$(1),$(wildcard notebooks/$(number)_*.ipynb))
notebooks: .venv/.ok      ## every notebook on its tiny default, against its stored outputs
	$(call NBVAL,01 02 10 30 31) & $(call NBVAL,20 21 22 26 29 41 42) && wait $$!
	$(call NBVAL,11 12 13 19) & $(call NBVAL,23 24 25 32 33) && wait $$!
	$(call NBVAL,34 40) & $(call NBVAL,50 51 52 53) && wait $$!

fuzz: .venv/.ok           ## nightly: 1,000 random inputs of each kind (N, SEED=number for the same ones)
	VLACT_FUZZ=$(or $(N),1000) OMP_NUM_THREADS=1 pytest -n 2 -m fuzz tests $(if $(SEED),--hypothesis-seed=$(SEED))

verify: .venv/.ok         ## compare what `make repro` left with the published run, see its docstring
	python -m vlact.tools.verify $(PROFILE)

publish: .venv/.ok        ## copy the tables and figures of PROFILE to figures/, with run.json
	python -m vlact.tools.pipeline publish $(PROFILE)

bench: .venv/.ok          ## ratios to slow oracles and to peers, on this machine
	OMP_NUM_THREADS=1 python -m vlact.tools.bench data/bench.csv

site: .venv/.ok           ## static pages of PROFILE's results in site/, to open in any browser
	python -m vlact.report.site $(PROFILE)

lab: .venv/.ok            ## JupyterLab on the notebooks
	jupyter lab notebooks

doctor: .venv/.ok         ## which datasets and checkpoints a profile needs and which are there
	python -m vlact.tools.doctor $(PROFILE)

execute: .venv/.ok        ## run the notebooks on their tiny default and store their outputs
	python -m vlact.tools.pipeline execute $(NAMES)

lint: .venv/.ok           ## ruff
	ruff check . && ruff format --check .

lock: .venv/.ok           ## after a change of pyproject.toml or of stage_minutes
	uv pip compile -q pyproject.toml --all-extras --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.lock
	python -m vlact.tools.pipeline docs
