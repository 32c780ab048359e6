##@ Debugging tools

# The suite of libvfio-user under each tool; ARGS has more arguments for pytest, such as ARGS="-k dma -x".
TOOLS_SUITE = LIBVFIO_USER_SO=$(1) $(PY) -m pytest tests/vfio_user --clib=$(1)
RUST_TARGET ?= x86_64-unknown-linux-gnu

.PHONY: valgrind
valgrind: $(if $(LIB),,build) $(VENV)/.plugin ## the suite under memcheck (TOOL=helgrind for races; LIB=other.so ARGS=...)
	$(call TOOLS_SUITE,$(SUITE_LIB)) --clib-valgrind=$(or $(TOOL),memcheck) $(ARGS)

# A library of another build may be named; without one, ours is built by nightly with ASAN.
ASAN_LIB = $(if $(LIB),$(abspath $(LIB)),$(CARGO_TARGET_DIR)/asan/$(RUST_TARGET)/debug/libvfio_user.so)
.PHONY: asan
asan: $(VENV)/.plugin ## the suite with AddressSanitizer (needs nightly Rust; LIB=other.so ARGS=...)
	$(if $(LIB),,RUSTFLAGS="-Zsanitizer=address -Zsanitizer-recover=address" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/asan \
	  $(CARGO) +nightly build -p libvfio-user --target $(RUST_TARGET))
	$(call TOOLS_SUITE,$(ASAN_LIB)) --clib-asan $(ARGS)

# With a target named, flags are for the library alone, and not for what is run to build it.
COVERAGE_LIB := $(CARGO_TARGET_DIR)/coverage/$(RUST_TARGET)/debug/libvfio_user.so
COVERAGE = $(call TOOLS_SUITE,$(COVERAGE_LIB)) --clib-coverage=$(1) --clib-coverage-fail-under=$(2)

.PHONY: coverage-lib llvm-tools
llvm-tools:
	@make/llvm-tools.sh

coverage-lib: llvm-tools $(VENV)/.plugin
	RUSTFLAGS="-C instrument-coverage" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/coverage \
	  $(CARGO) build -p libvfio-user --target $(RUST_TARGET)

.PHONY: coverage
coverage: coverage-lib ## line coverage of the library by its suite, over 95 % (build/coverage; ARGS=...)
	$(call COVERAGE,build/coverage,95) $(ARGS)

.PHONY: coverage-torture
coverage-torture: coverage-lib ## the same with its error paths, over 98 %; takes long (build/coverage-torture; ARGS=...)
	$(call COVERAGE,build/coverage-torture,98) --clib-torture -n auto --dist loadfile $(ARGS)

.PHONY: report
report: $(if $(LIB),,build) $(VENV)/.plugin ## the suite with its report as a page, build/report.html (LIB=other.so ARGS=...)
	@mkdir -p build
	$(call TOOLS_SUITE,$(SUITE_LIB)) --clib-report=build/report.html --clib-report=build/report.json $(ARGS)
