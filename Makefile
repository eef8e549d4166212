# `make demo` and `make test` do all their own set-up. ARGS is passed on: make demo ARGS=--help, make test ARGS="-k gl"

PY := .venv/bin/python

.PHONY: help setup test faults interop browser demo format lock clean
.NOTPARALLEL:

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

setup:  ## prepare .venv from requirements.lock; does nothing when it is up to date (PYTHON=... chooses the Python)
	@PYTHON="$(PYTHON)" bash .ci/setup

demo: setup  ## demonstrations, training, evaluation, videos and report of one task
	@.venv/bin/vla demo $(ARGS)

test: setup  ## lint, format check, types and all tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest $(ARGS)

faults: setup  ## other processes, full disks, little memory, signals, damaged files: the long tests, too
	FUZZ=400 $(PY) -m pytest -m faults tests/faults $(ARGS)

interop: setup  ## LeRobot, in an environment of its own, and this project read what the other wrote; some minutes
	tests/interop/run

browser: setup  ## drives the live page with Debian's chromium, which must be installed; takes minutes
	$(PY) -m pip install --quiet playwright==1.65.2
	$(PY) -m pytest -n 0 -m browser tests/eval/play $(ARGS)

format: setup  ## sort imports, fix what the linter can fix, format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: setup  ## write what .venv holds into requirements.lock
	@$(PY) -m pip freeze --all --exclude-editable --exclude pip --exclude metaworld --exclude playwright --exclude greenlet >.venv/frozen
	@{ head -n 1 requirements.lock; sed -E '/^(nvidia|cuda|triton)/d; s/^(torch|torchvision)==([^+]*)\+.*/\1==\2/' .venv/frozen; } >.venv/lock
	@mv .venv/lock requirements.lock

clean:  ## remove .venv and everything that tools made; runs and datasets stay
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
