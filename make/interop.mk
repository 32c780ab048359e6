##@ Real guests

# As `make test` builds them, with overflow checks.
INTEROP_SERVERS = $(CARGO_TARGET_DIR)/debug/examples
INTEROP_LOGS ?= $(CARGO_TARGET_DIR)/interop

# Seconds that all guests together may take, with the making of their packages' folder; what is not decided by then is skipped.
INTEROP_SECONDS ?=

# Guests on QEMU, from Debian's packages in a folder of their own (160 MB once, see tests/interop/debian.py). It is skipped,
# with the reason, where they cannot be had. Everything that guests and servers said is kept in INTEROP_LOGS.
.PHONY: interop
interop: $(VENV)/.tools ## boot guests on QEMU against the example devices (INTEROP_SECONDS=900 ARGS=...)
	CARGO_TARGET_DIR=$(CARGO_TARGET_DIR) $(CARGO) build -p vfu --examples
	INTEROP_SERVERS=$(abspath $(INTEROP_SERVERS)) INTEROP_LOGS=$(abspath $(INTEROP_LOGS)) INTEROP_SECONDS=$(INTEROP_SECONDS) \
	  $(PY) -m pytest -o faulthandler_timeout=600 tests/interop $(ARGS)
	@echo "Logs of guests and servers: $(INTEROP_LOGS)"
