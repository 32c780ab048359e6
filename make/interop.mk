##@ Real guests

# As `make test` builds them, with overflow checks.
INTEROP_SERVERS = $(CARGO_TARGET_DIR)/debug/examples
INTEROP_LOGS ?= $(CARGO_TARGET_DIR)/interop

# Guests on QEMU, from Debian's packages in a folder of their own (160 MB once, see tests/interop/debian.py). It is skipped,
# with the reason, where they cannot be had. Everything that guests and servers said is kept in INTEROP_LOGS.
.PHONY: interop
interop: $(VENV)/.tools ## boot guests on QEMU against the example devices (ARGS=...)
	CARGO_TARGET_DIR=$(CARGO_TARGET_DIR) $(CARGO) build -p vfu --examples
	INTEROP_SERVERS=$(abspath $(INTEROP_SERVERS)) INTEROP_LOGS=$(abspath $(INTEROP_LOGS)) \
	  $(PY) -m pytest tests/interop $(ARGS)
	@echo "Logs of guests and servers: $(INTEROP_LOGS)"
