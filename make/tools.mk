##@ Debugging tools

# The suite of libvfio-user under each tool; ARGS has more arguments for pytest, such as ARGS="-k dma -x".
TOOLS_SUITE = LIBVFIO_USER_SO=$(1) $(PY) -m pytest tests/vfio_user --clib=$(1)
RUST_TARGET ?= x86_64-unknown-linux-gnu

.PHONY: valgrind
valgrind: $(if $(LIB),,build) $(VENV)/.plugin ## the suite under memcheck (TOOL=helgrind for races; LIB=other.so ARGS=...)
	$(call TOOLS_SUITE,$(SUITE_LIB)) --clib-valgrind=$(or $(TOOL),memcheck) -o faulthandler_timeout=0 $(ARGS)

# A library of another build may be named; without one, ours is built by nightly with ASAN.
ASAN_LIB = $(if $(LIB),$(abspath $(LIB)),$(CARGO_TARGET_DIR)/asan/$(RUST_TARGET)/debug/libvfio_user.so)
.PHONY: asan
asan: $(VENV)/.plugin ## the suite with AddressSanitizer (needs nightly Rust; LIB=other.so ARGS=...)
	$(if $(LIB),,RUSTFLAGS="-Zsanitizer=address -Zsanitizer-recover=address" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/asan \
	  $(CARGO) +nightly build -p libvfio-user --target $(RUST_TARGET))
	$(call TOOLS_SUITE,$(ASAN_LIB)) --clib-asan $(ARGS)

# With a target named, flags are for the library alone, and not for what is run to build it.
COVERAGE_LIB := $(CARGO_TARGET_DIR)/coverage/$(RUST_TARGET)/debug/libvfio_user.so
# For Rust programs only, though compiled into the library: Context::readiness (C polls vfu_get_poll_fd), and the defaults of
# the trait Device (the C face overrides them). Their tests are crates/vfu/tests.
COVERAGE_FOR_RUST := readiness.rs sys/epoll.rs device.rs
COVERAGE = @echo "Not counted, only Rust programs get there: $(COVERAGE_FOR_RUST:%=crates/vfu/src/%)"; set -x; \
  $(call TOOLS_SUITE,$(COVERAGE_LIB)) --clib-coverage=build/$(1) $(COVERAGE_FOR_RUST:%='--clib-coverage-source=!*/crates/vfu/src/%')

.PHONY: coverage-lib llvm-tools
llvm-tools:
	@make/llvm-tools.sh

coverage-lib: llvm-tools $(VENV)/.plugin
	RUSTFLAGS="-C instrument-coverage" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/coverage \
	  $(CARGO) build -p libvfio-user --target $(RUST_TARGET)

.PHONY: coverage
coverage: coverage-lib ## line coverage of the library by its suite, at least 95 % (build/coverage; ARGS=...)
	$(call COVERAGE,coverage) --clib-coverage-fail-under=95 $(ARGS)

# The suite, and torture of those tests that reach most of what can fail; of all with COVERAGE_SAMPLE=, which takes long.
COVERAGE_SAMPLE := test_pipe or test_blocking or test_create or test_threads or shadow or many_areas or twin \
  or message_region or several or again or descriptor or direct_transfer or to_a_file
.PHONY: coverage-torture
coverage-torture: coverage-lib ## the same with error paths, at least 98 % (build/coverage-torture; ARGS=...)
	$(call COVERAGE,coverage-torture) -n auto --dist loadfile
	$(call COVERAGE,coverage-torture) -n auto --dist loadfile --clib-coverage-append --clib-coverage-fail-under=98 \
	  --clib-torture -k '$(COVERAGE_SAMPLE)' $(ARGS)

.PHONY: report
report: $(if $(LIB),,build) $(VENV)/.plugin ## the suite with its report as a page, build/report.html (LIB=other.so ARGS=...)
	@mkdir -p build
	$(call TOOLS_SUITE,$(SUITE_LIB)) --clib-report=build/report.html --clib-report=build/report.json $(ARGS)
