//! That the headers compile: with each compiler, in each standard, however they are included, and for programs that
//! rely on what they bring along.

use std::os::unix::fs::symlink;

use crate::compiler::{Language, compile, include, must_compile, scratch};

const SYNTAX: &str = "-fsyntax-only";

#[test]
fn every_standard_of_every_compiler() {
    let dir = scratch("standards");
    let include = format!("-I{}", include().display());
    let source = "#include \"libvfio-user.h\"\nint main(void) { return 0; }\n";
    for language in Language::BOTH {
        for compiler in language.compilers() {
            for standard in language.standards() {
                let standard = format!("-std={standard}");
                must_compile(
                    compiler,
                    language,
                    &dir,
                    source,
                    &[SYNTAX, &include, &standard],
                );
                let pedantic = [
                    SYNTAX,
                    &include,
                    &standard,
                    "-pedantic",
                    "-Wshadow",
                    "-Wundef",
                ];
                must_compile(compiler, language, &dir, source, &pedantic);
            }
        }
    }
}

#[test]
fn each_header_alone_and_twice() {
    let dir = scratch("alone");
    let include = format!("-I{}", include().display());
    for header in ["vfio-user.h", "pci_defs.h"]
        .into_iter()
        .chain(
            ["common", "dsn", "msi", "msix", "pm", "px"].map(|name| match name {
                "common" => "pci_caps/common.h",
                "dsn" => "pci_caps/dsn.h",
                "msi" => "pci_caps/msi.h",
                "msix" => "pci_caps/msix.h",
                "pm" => "pci_caps/pm.h",
                _ => "pci_caps/px.h",
            }),
        )
        .chain(["libvfio-user.h"])
    {
        let source = format!(
            "#include \"{header}\"\n#include \"{header}\"\nint main(void) {{ return 0; }}\n"
        );
        for language in Language::BOTH {
            for compiler in language.compilers() {
                must_compile(
                    compiler,
                    language,
                    &dir,
                    &source,
                    &[SYNTAX, &include, "-pedantic"],
                );
            }
        }
    }
}

/// Installed, the headers live in `vfio-user/`, and both ways to include them are in use.
#[test]
fn installed_under_vfio_user() {
    let dir = scratch("installed");
    symlink(include(), dir.join("vfio-user")).unwrap();
    let source = "#include <vfio-user/libvfio-user.h>\n#include <vfio-user/pci_caps/px.h>\n\
                  int main(void) { return (int)sizeof(struct pxcap) - 60; }\n";
    for language in Language::BOTH {
        for compiler in language.compilers() {
            must_compile(compiler, language, &dir, source, &[SYNTAX, "-I."]);
        }
    }
}

/// Device code relies on what the headers include.
#[test]
fn what_the_headers_bring_along() {
    let dir = scratch("transitive");
    let include = format!("-I{}", include().display());
    let source = r#"
#include "libvfio-user.h"
struct item { int value; TAILQ_ENTRY(item) link; LIST_ENTRY(item) other; };
TAILQ_HEAD(items, item);
bool flag = true;
int level = LOG_DEBUG;
struct iovec range = { 0, 0 };
size_t bytes = sizeof(struct vfio_region_info);
ptrdiff_t distance = offsetof(struct msixcap, mtab);
uint64_t wide = UINT64_MAX;
const char *format = PRIu64;
int command = PCI_COMMAND + PCI_STD_HEADER_SIZEOF + PCI_CAP_ID_EXP + PCI_EXP_DEVCTL;
int irq = VFIO_PCI_MSIX_IRQ_INDEX;
int version = LINUX_VERSION_CODE;
int main(void)
{
    loff_t offset = 0;
    ssize_t count = 0;
    return close(-1) + (int)offset + (int)count;
}
"#;
    for language in Language::BOTH {
        for compiler in language.compilers() {
            must_compile(compiler, language, &dir, source, &[SYNTAX, &include]);
        }
    }
}

/// Each function has exactly the type that programs were written for.
const SIGNATURES: &str = r#"
#include "libvfio-user.h"
size_t (*f0)(void) = dma_sg_size;
vfu_ctx_t *(*f1)(vfu_trans_t, const char *, int, void *, vfu_dev_type_t) = vfu_create_ctx;
int (*f2)(vfu_ctx_t *) = vfu_realize_ctx;
int (*f3)(vfu_ctx_t *) = vfu_attach_ctx;
int (*f4)(vfu_ctx_t *) = vfu_get_poll_fd;
int (*f5)(vfu_ctx_t *) = vfu_run_ctx;
void (*f6)(vfu_ctx_t *) = vfu_destroy_ctx;
void *(*f7)(vfu_ctx_t *) = vfu_get_private;
void (*f8)(vfu_ctx_t *, int, const char *, ...) = vfu_log;
void (*log_line)(vfu_ctx_t *, int, const char *);
int (*f9)(vfu_ctx_t *, void (*)(vfu_ctx_t *, int, const char *), int) = vfu_setup_log;
int (*f10)(vfu_ctx_t *, int, size_t, ssize_t (*)(vfu_ctx_t *, char *, size_t, loff_t, bool), int, struct iovec *,
           uint32_t, int, uint64_t) = vfu_setup_region;
void (*f11)(vfu_ctx_t *, int (*)(vfu_ctx_t *)) = vfu_setup_device_quiesce_cb;
int (*f12)(vfu_ctx_t *, int) = vfu_device_quiesced;
int (*f13)(vfu_ctx_t *, int (*)(vfu_ctx_t *, vfu_reset_type_t)) = vfu_setup_device_reset_cb;
int (*f14)(vfu_ctx_t *, size_t, void (*)(vfu_ctx_t *, vfu_dma_info_t *), void (*)(vfu_ctx_t *, vfu_dma_info_t *)) =
    vfu_setup_device_dma;
int (*f15)(vfu_ctx_t *, enum vfu_dev_irq_type, uint32_t) = vfu_setup_device_nr_irqs;
int (*f16)(vfu_ctx_t *, enum vfu_dev_irq_type, void (*)(vfu_ctx_t *, uint32_t, uint32_t, bool)) =
    vfu_setup_irq_state_callback;
int (*f17)(vfu_ctx_t *, const vfu_migration_callbacks_t *) = vfu_setup_device_migration_callbacks;
int (*f18)(vfu_ctx_t *, uint32_t) = vfu_irq_trigger;
int (*f19)(vfu_ctx_t *, vfu_dma_addr_t, size_t, dma_sg_t *, size_t, int) = vfu_addr_to_sgl;
int (*f20)(vfu_ctx_t *, dma_sg_t *, struct iovec *, size_t, int) = vfu_sgl_get;
void (*f21)(vfu_ctx_t *, dma_sg_t *, size_t) = vfu_sgl_mark_dirty;
void (*f22)(vfu_ctx_t *, dma_sg_t *, struct iovec *, size_t) = vfu_sgl_put;
int (*f23)(vfu_ctx_t *, dma_sg_t *, size_t, void *, int) = vfu_sgl_read;
int (*f24)(vfu_ctx_t *, dma_sg_t *, size_t, void *, int) = vfu_sgl_write;
int (*f25)(vfu_ctx_t *, vfu_pci_type_t, int, int) = vfu_pci_init;
void (*f26)(vfu_ctx_t *, uint16_t, uint16_t, uint16_t, uint16_t) = vfu_pci_set_id;
void (*f27)(vfu_ctx_t *, uint8_t, uint8_t, uint8_t) = vfu_pci_set_class;
vfu_pci_config_space_t *(*f28)(vfu_ctx_t *) = vfu_pci_get_config_space;
ssize_t (*f29)(vfu_ctx_t *, size_t, int, void *) = vfu_pci_add_capability;
size_t (*f30)(vfu_ctx_t *, bool, int) = vfu_pci_find_capability;
size_t (*f31)(vfu_ctx_t *, bool, size_t, int) = vfu_pci_find_next_capability;
bool (*f32)(vfu_ctx_t *, dma_sg_t *) = vfu_sg_is_mappable;
int (*f33)(vfu_ctx_t *, uint32_t, int, size_t, uint32_t, uint32_t, uint64_t, int, size_t) = vfu_create_ioeventfd;
vfu_log_fn_t *c0 = (void (*)(vfu_ctx_t *, int, const char *))0;
vfu_region_access_cb_t *c1 = (ssize_t (*)(vfu_ctx_t *, char *, size_t, loff_t, bool))0;
vfu_device_quiesce_cb_t *c2 = (int (*)(vfu_ctx_t *))0;
vfu_reset_cb_t *c3 = (int (*)(vfu_ctx_t *, vfu_reset_type_t))0;
vfu_dma_register_cb_t *c4 = (void (*)(vfu_ctx_t *, vfu_dma_info_t *))0;
vfu_dma_unregister_cb_t *c5 = (void (*)(vfu_ctx_t *, vfu_dma_info_t *))0;
vfu_dev_irq_state_cb_t *c6 = (void (*)(vfu_ctx_t *, uint32_t, uint32_t, bool))0;
vfu_migration_callbacks_t callbacks = { VFU_MIGR_CALLBACKS_VERS, (int (*)(vfu_ctx_t *, vfu_migr_state_t))0,
                                        (ssize_t (*)(vfu_ctx_t *, void *, uint64_t))0,
                                        (ssize_t (*)(vfu_ctx_t *, void *, uint64_t))0 };
int main(void) { return 0; }
"#;

#[test]
fn functions_have_the_types_that_programs_expect() {
    let dir = scratch("signatures");
    let include = format!("-I{}", include().display());
    for language in Language::BOTH {
        for compiler in language.compilers() {
            must_compile(compiler, language, &dir, SIGNATURES, &[SYNTAX, &include]);
        }
    }
    for function in include_str!("../../exports.txt").lines() {
        assert!(
            SIGNATURES.contains(&format!(" {function};")),
            "{function} is not checked"
        );
    }
}

/// The compiler reads the format strings of `vfu_log`.
#[test]
fn vfu_log_formats_are_checked() {
    let dir = scratch("format");
    let include = format!("-I{}", include().display());
    let program = |argument: &str| {
        format!(
            "#include \"libvfio-user.h\"\nvoid f(vfu_ctx_t *c) {{ vfu_log(c, LOG_ERR, \"%s\", {argument}); }}\n"
        )
    };
    for compiler in Language::C.compilers() {
        must_compile(
            compiler,
            Language::C,
            &dir,
            &program("\"text\""),
            &[SYNTAX, &include],
        );
        let output = compile(
            compiler,
            Language::C,
            &dir,
            &program("1"),
            &[SYNTAX, &include],
        );
        assert!(
            !output.status.success(),
            "{compiler} accepts a wrong format"
        );
    }
}
