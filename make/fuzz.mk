##@ Hostile clients

# Seconds for each target, and which.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= messages config_space migration version dma_table
FUZZ_DIR = $(CARGO_TARGET_DIR)/fuzz

# The corpus under version control is read; what is found goes to the target directory. An input that fails stays in
# fuzz/artifacts, and the message says how to run it again.
.PHONY: fuzz
fuzz: ## hostile clients: each fuzz target for a minute (FUZZ_SECONDS=600 FUZZ_TARGETS=messages)
	@$(CARGO) +nightly --version >/dev/null 2>&1 || { echo "make fuzz needs a nightly compiler: rustup toolchain install nightly"; exit 1; }
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --quiet --locked cargo-fuzz
	CARGO_TARGET_DIR=$(FUZZ_DIR) $(CARGO) +nightly fuzz build
	@set -e; for target in $(FUZZ_TARGETS); do \
	  echo "fuzz: $$target, $(FUZZ_SECONDS) seconds"; \
	  mkdir -p $(FUZZ_DIR)/corpus/$$target; \
	  CARGO_TARGET_DIR=$(FUZZ_DIR) $(CARGO) +nightly fuzz run $$target $(FUZZ_DIR)/corpus/$$target fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1; \
	done

.PHONY: fuzz-sequences
fuzz-sequences: build $(VENV)/.plugin ## random sequences of requests against a model of the device (FUZZ_SECONDS=600)
	LIBVFIO_USER_SECONDS=$(FUZZ_SECONDS) LIBVFIO_USER_SO=$(CARGO_TARGET_DIR)/release/libvfio_user.so \
	  $(PY) -m pytest -s -o faulthandler_timeout=0 tests/vfio_user/test_state_machine.py $(ARGS)

# The fewest short inputs that reach all that the old corpus and the found inputs reach.
.PHONY: fuzz-corpus
fuzz-corpus: ## reduce what the fuzzer found to a small corpus under fuzz/corpus
	@set -e; for target in $(FUZZ_TARGETS); do \
	  rm -rf $(FUZZ_DIR)/reduced; mkdir -p $(FUZZ_DIR)/reduced $(FUZZ_DIR)/corpus/$$target fuzz/corpus/$$target; \
	  CARGO_TARGET_DIR=$(FUZZ_DIR) $(CARGO) +nightly fuzz run $$target -- -set_cover_merge=1 -max_len=128 -verbosity=0 \
	    $(FUZZ_DIR)/reduced $(abspath fuzz)/corpus/$$target $(FUZZ_DIR)/corpus/$$target; \
	  rm -f fuzz/corpus/$$target/*; mv $(FUZZ_DIR)/reduced/* fuzz/corpus/$$target/; \
	done
