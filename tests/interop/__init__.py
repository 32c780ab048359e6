"""Guests on QEMU against the example devices; see the Makefile's `interop`."""
