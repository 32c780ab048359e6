##@ Everyday

# LIB names another libvfio-user.so.0 for the Python suite; without it, ours is built. Tests marked as
# defect or extension then have a process of their own each, so that a crash or a hang is one failed test;
# ARGS='-m "not defect and not extension"' leaves them out.
LIB ?=
# More arguments for pytest, such as ARGS="-k dma -x".
ARGS ?=
SUITE_LIB = $(if $(LIB),$(abspath $(LIB)),$(CARGO_TARGET_DIR)/release/libvfio_user.so)

.PHONY: pytest
pytest: $(if $(LIB),,build) $(VENV)/.plugin ## the Python suite of libvfio-user, under pytest-clib (LIB=other.so ARGS=...)
	$(if $(LIB),LIBVFIO_USER_ISOLATE=1) LIBVFIO_USER_SO=$(SUITE_LIB) \
	  $(PY) -m pytest tests/vfio_user --clib=$(SUITE_LIB) $(ARGS)

.PHONY: test
test: test-rust pytest test-plugin test-examples torture-sample lint ## everything: Rust, C headers, Python suites, lints

# What the tests of compiled libraries compile with, beyond a C compiler. Where one is missing, they are left out.
COMPILERS := g++ clang clang++ ld.lld llvm-dwp objcopy pkg-config
MISSING = $(strip $(foreach tool,$(COMPILERS),$(if $(shell command -v $(tool)),,$(tool))))

.PHONY: test-rust
test-rust: ## Rust tests of all crates, the C header and symbol checks
ifeq ($(MISSING),)
	$(CARGO) test --workspace --exclude clib-native $(if $(CI),--no-fail-fast)
else
	$(CARGO) test -p vfu -p clib-script
	$(CARGO) test -p libvfio-user --lib --test headers
	@echo "SKIPPED: the tests of clib-abi, clib-hook and the installed library need $(MISSING)"
endif

.PHONY: lint
lint: $(VENV)/.tools ## formatting and lints of Rust and Python
	@$(CARGO) fmt --version >/dev/null && $(CARGO) clippy --version >/dev/null || \
	  { echo "make lint needs rustfmt and clippy: rustup component add rustfmt clippy"; exit 1; }
	$(CARGO) fmt --all --check
	PYO3_PYTHON=$(abspath $(PY)) $(CARGO) clippy --workspace --all-targets -- -D warnings
	$(VENV)/bin/ruff check python tests examples
	$(VENV)/bin/ruff format --check python tests examples

.PHONY: clean
clean: ## remove what was built
	rm -rf target $(VENV) build dist

# Python's own tools, in a virtual environment inside the checkout.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or later is needed; this is $$($(PYTHON) --version). Name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv $(VENV) || \
	  { rm -rf $(VENV); echo "Python cannot make virtual environments. On Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.tools: make/requirements.txt | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r make/requirements.txt
	@touch $@
