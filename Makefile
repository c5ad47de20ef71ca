# One command each: `make demo`, `make test`, `make lint`. Each builds .venv first when it is missing.
PYTHON ?= python3
# The desk build of torch; on a robot install the build for its GPU instead.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
DEMO_OPTIONS ?=

# A sourced ROS 2 is used as it is; elsewhere its Jazzy wheels come from PyPI.
HAVE_ROS := $(shell $(PYTHON) -c 'import rclpy, cv_bridge' 2>/dev/null && echo yes)
ifeq ($(HAVE_ROS),yes)
VENV_OPTIONS := --system-site-packages
EXTRAS := sim,test
else
VENV_OPTIONS :=
EXTRAS := sim,ros,test
endif

.PHONY: demo demo-quick test lint clean
.DEFAULT_GOAL := demo

$(VENV): $(VENV)/.complete

$(VENV)/.complete: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo 'hbvla_ros needs Python 3.10 to 3.12: make PYTHON=python3.11 ...' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)
	$(BIN)/hbvla demo $(DEMO_OPTIONS)

demo-quick: $(VENV)
	$(BIN)/hbvla demo --quick $(DEMO_OPTIONS)

test: $(VENV)
	$(BIN)/python -m pytest

lint: $(VENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build install log demo *.egg-info
