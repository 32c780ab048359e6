##@ The library

# Where it goes: $(DESTDIR)$(PREFIX), with the libraries in LIBDIR and the headers in INCLUDEDIR.
PREFIX ?= /usr/local
override PREFIX := $(abspath $(PREFIX))
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
OBJCOPY ?= objcopy

LIBRARY_DIR := crates/libvfio-user
LIBRARY_VERSION := 0.0.1
LIBRARY_SONAME := libvfio-user.so.0
LIBRARY_FILE := libvfio-user.so.$(LIBRARY_VERSION)
LIBRARY_BUILT = $(CARGO_TARGET_DIR)/release
# What a program that links the static library needs besides; on glibc 2.34 and later these are empty.
LIBRARY_PRIVATE_LIBS := -lpthread -ldl -lm

LIBRARY_HEADERS = $(patsubst $(LIBRARY_DIR)/include/%,%,$(wildcard $(LIBRARY_DIR)/include/*.h))
LIBRARY_CAP_HEADERS = $(patsubst $(LIBRARY_DIR)/include/%,%,$(wildcard $(LIBRARY_DIR)/include/pci_caps/*.h))

.PHONY: build
build: ## build the library (release)
	CARGO_TARGET_DIR=$(CARGO_TARGET_DIR) $(CARGO) build --release -p libvfio-user

# Cargo's archive also has the symbols of Rust's own library, which would clash with those of another Rust
# archive in the same program. What the exported functions need becomes one object, whose only global symbols
# are theirs.
$(CARGO_TARGET_DIR)/libvfio-user.a: $(LIBRARY_BUILT)/libvfio_user.a $(LIBRARY_DIR)/exports.txt
	$(LD) -r --gc-sections $(addprefix -u ,$(shell cat $(LIBRARY_DIR)/exports.txt)) -o $(@:.a=.o) $<
	$(OBJCOPY) --keep-global-symbols=$(LIBRARY_DIR)/exports.txt $(@:.a=.o)
	rm -f $@
	$(AR) rcsD $@ $(@:.a=.o)

$(LIBRARY_BUILT)/libvfio_user.a: build

.PHONY: install
install: build $(CARGO_TARGET_DIR)/libvfio-user.a $(CARGO_TARGET_DIR)/libvfio-user.pc ## install library, headers, pkg-config file (PREFIX=DIR DESTDIR=DIR)
	install -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(PKGCONFIGDIR) $(DESTDIR)$(INCLUDEDIR)/vfio-user/pci_caps
	install -m 755 $(LIBRARY_BUILT)/libvfio_user.so $(DESTDIR)$(LIBDIR)/$(LIBRARY_FILE)
	ln -sf $(LIBRARY_FILE) $(DESTDIR)$(LIBDIR)/$(LIBRARY_SONAME)
	ln -sf $(LIBRARY_SONAME) $(DESTDIR)$(LIBDIR)/libvfio-user.so
	install -m 644 $(CARGO_TARGET_DIR)/libvfio-user.a $(DESTDIR)$(LIBDIR)/libvfio-user.a
	install -m 644 $(addprefix $(LIBRARY_DIR)/include/,$(LIBRARY_HEADERS)) $(DESTDIR)$(INCLUDEDIR)/vfio-user/
	install -m 644 $(addprefix $(LIBRARY_DIR)/include/,$(LIBRARY_CAP_HEADERS)) $(DESTDIR)$(INCLUDEDIR)/vfio-user/pci_caps/
	install -m 644 $(CARGO_TARGET_DIR)/libvfio-user.pc $(DESTDIR)$(PKGCONFIGDIR)/libvfio-user.pc

.PHONY: uninstall
uninstall: ## remove what install put there (same PREFIX and DESTDIR)
	rm -f $(DESTDIR)$(LIBDIR)/$(LIBRARY_FILE) $(DESTDIR)$(LIBDIR)/$(LIBRARY_SONAME) \
	  $(DESTDIR)$(LIBDIR)/libvfio-user.so $(DESTDIR)$(LIBDIR)/libvfio-user.a \
	  $(DESTDIR)$(PKGCONFIGDIR)/libvfio-user.pc \
	  $(addprefix $(DESTDIR)$(INCLUDEDIR)/vfio-user/,$(LIBRARY_HEADERS) $(LIBRARY_CAP_HEADERS))
	-@rmdir $(DESTDIR)$(INCLUDEDIR)/vfio-user/pci_caps $(DESTDIR)$(INCLUDEDIR)/vfio-user 2>/dev/null

# Written anew each time: it depends on PREFIX, which no file's date shows.
.PHONY: $(CARGO_TARGET_DIR)/libvfio-user.pc
$(CARGO_TARGET_DIR)/libvfio-user.pc: $(LIBRARY_DIR)/libvfio-user.pc.in
	@mkdir -p $(@D)
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	  -e 's|@VERSION@|$(LIBRARY_VERSION)|' -e 's|@PRIVATE_LIBS@|$(LIBRARY_PRIVATE_LIBS)|' $< >$@
