##@ Torture

# Two tests of a module may need each other, so that modules are not split among workers.
TORTURE = LIBVFIO_USER_SO=$(SUITE_LIB) $(PY) -m pytest tests/vfio_user --clib=$(SUITE_LIB) -n auto --dist loadfile

.PHONY: torture
torture: $(if $(LIB),,build) $(VENV)/.plugin ## every system call and allocation of the library fails once per call site (LIB=... ARGS=...)
	$(TORTURE) --clib-torture $(ARGS)

# Tests that call ten thousand times at one place would take days with EACH=each.
EACH ?= each:3

.PHONY: torture-each
torture-each: $(if $(LIB),,build) $(VENV)/.plugin ## the same for several calls at each site, and for lasting failures; takes hours (EACH=each for all calls)
	$(TORTURE) --clib-torture=$(EACH) --clib-torture-later $(ARGS)

# The tests that reach most of the library: life of a context, negotiation, DMA, interrupts, waiting, threads; without the
# many spellings of capabilities, which all go the same way, and the few that take longest.
.PHONY: torture-sample
torture-sample: $(if $(LIB),,build) $(VENV)/.plugin ## a sample of it in under two minutes; part of `make test`
	$(TORTURE) --clib-torture -k '$(TORTURE_SAMPLE)' $(ARGS)

TORTURE_SAMPLE := context or (version and not values and not compared and not capabilities) or (dma_map and not many_regions) or interrupts or (test_blocking and not 1_mib) or test_threads
