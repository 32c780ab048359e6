##@ Packages

# Debian packages of the library: run time, development files, debug symbols. Built from an ordinary `make install`
# into a directory of its own, so that no root is needed.
PACKAGES := dist
DEB_VERSION ?= $(LIBRARY_VERSION)
DEB_MAINTAINER ?= libvfio-user developers <libvfio-user@localhost>
DEB_MULTIARCH = $(shell dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || $(CC) -print-multiarch)
DEB_STAGE = $(CARGO_TARGET_DIR)/deb

.PHONY: deb
deb: ## Debian packages of the library, in dist/: libvfio-user0, -dev, -dbgsym (DEB_VERSION=...)
	@command -v dpkg-deb >/dev/null || { echo "make deb needs dpkg-deb. On Debian: apt-get install dpkg"; exit 1; }
	rm -rf $(DEB_STAGE)
	$(MAKE) --no-print-directory install CARGO_TARGET_DIR=$(CARGO_TARGET_DIR) DESTDIR=$(DEB_STAGE)/all PREFIX=/usr LIBDIR=/usr/lib/$(DEB_MULTIARCH) >/dev/null
	OBJCOPY=$(OBJCOPY) make/deb.sh $(DEB_STAGE) $(DEB_MULTIARCH) $(DEB_VERSION) '$(DEB_MAINTAINER)' $(abspath $(PACKAGES))

.PHONY: test-deb
test-deb: deb ## unpack the packages into an empty root; compile, link and run a program against them
	make/test-deb.sh $(abspath $(PACKAGES)) $(DEB_VERSION) $(DEB_MULTIARCH)

.PHONY: doc
doc: ## the reference of the Rust crates (no warnings allowed), and the examples in docs/rust-api.md
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps -p vfu -p libvfio-user -p clib-hook -p clib-abi -p clib-script
	$(CARGO) test --doc -p vfu

.PHONY: test-wheel
test-wheel: wheel ## install the wheel into an empty environment, and test a library with it
	rm -rf $(CARGO_TARGET_DIR)/wheel-env
	$(PYTHON) -m venv $(CARGO_TARGET_DIR)/wheel-env || $(PYTHON) -m virtualenv $(CARGO_TARGET_DIR)/wheel-env
	$(CARGO_TARGET_DIR)/wheel-env/bin/python -m pip install --quiet --disable-pip-version-check $$(ls -t $(WHEELS)/*.whl | head -1)
	cd examples && $(CARGO_TARGET_DIR)/wheel-env/bin/python -m pytest -q --clib=libz.so test_zlib.py
