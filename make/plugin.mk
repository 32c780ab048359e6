##@ The pytest plugin

WHEELS := dist

# Everything that the plugin is built from. The virtual environment gets it with an optimised native module, built
# with less link-time work than a wheel, in a directory of its own so that the two do not undo each other.
PLUGIN_SOURCES := pyproject.toml Cargo.toml Cargo.lock \
  $(wildcard crates/clib-*/Cargo.toml) \
  $(shell find crates/clib-hook/src crates/clib-abi/src crates/clib-native/src crates/clib-script/src -name '*.rs' 2>/dev/null)

$(VENV)/.plugin: $(PLUGIN_SOURCES) $(VENV)/.tools
	CARGO_PROFILE_PLUGIN_LTO=off CARGO_PROFILE_PLUGIN_CODEGEN_UNITS=16 \
	  CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/plugin VIRTUAL_ENV=$(abspath $(VENV)) \
	  $(VENV)/bin/maturin develop --quiet --profile plugin
	@touch $@

.PHONY: wheel
wheel: $(VENV)/.tools ## the wheel of pytest-clib, in dist/
	$(VENV)/bin/maturin build --quiet --profile plugin --out $(WHEELS)
	@ls -1 $(WHEELS)/*.whl

.PHONY: test-plugin
test-plugin: $(VENV)/.plugin ## tests of the plugin, on small C libraries with planted bugs (ARGS=...)
	$(PY) -m pytest tests/plugin $(ARGS)

# Not part of the lints: what mypy says changes with its version and pytest's.
.PHONY: types
types: $(VENV)/.tools ## types of the Python package, with mypy
	$(PY) -m pip install --quiet --disable-pip-version-check mypy
	$(VENV)/bin/mypy

.PHONY: test-examples
test-examples: $(VENV)/.plugin ## the examples: zlib and SQLite as installed, in plain ctypes
	$(PY) -m pytest examples --clib=libz.so --clib=libsqlite3.so $(ARGS)
