# Every command a person needs; `make` alone lists them.
# The rules stand in make/*.mk, one file a concern.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
CARGO ?= cargo
VENV := .venv
PY := $(VENV)/bin/python
CARGO_TARGET_DIR ?= $(CURDIR)/target

include $(sort $(wildcard make/*.mk))

.PHONY: help
help: ## list the commands
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5); next } \
	  /^[a-z][a-z-]*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
