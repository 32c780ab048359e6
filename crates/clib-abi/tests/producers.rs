//! The same declarations come out, whatever compiler wrote them down and wherever they lie.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that fails is a test that fails"
)]

mod common;

use clib_abi::{Error, Field, Kind, Language, Library, Record, RecordKind};
use common::{data, directory, library, run, strip_to};

fn record(library: &Library, kind: RecordKind, name: &str) -> Record {
    let mut found = library.records(Some(kind), name).unwrap();
    assert_eq!(found.len(), 1, "{name}: {found:#?}");
    found.remove(0)
}

fn layout(record: &Record) -> Vec<(String, u64, String)> {
    let line = |field: &Field| {
        (
            field.name.clone().unwrap_or_default(),
            field.offset,
            field.to_string(),
        )
    };
    record.fields.iter().map(line).collect()
}

fn expect(record: &Record, size: u64, fields: &[(&str, u64, &str)]) {
    assert_eq!(record.size, Some(size), "{record}");
    let wanted: Vec<_> = fields
        .iter()
        .map(|(name, offset, text)| ((*name).to_owned(), *offset, (*text).to_owned()))
        .collect();
    assert_eq!(layout(record), wanted, "{record}");
}

/// All of `shapes.c`.
fn check_shapes(library: &Library) {
    assert_eq!(library.damage(), [] as [&str; 0]);
    check_records(library);
    check_bit_fields(library);
    check_functions(library);
    check_enumerations(library);
}

fn check_records(library: &Library) {
    let point = record(library, RecordKind::Struct, "point");
    expect(&point, 8, &[("x", 0, "int32_t x"), ("y", 4, "int32_t y")]);
    let at = point.location.unwrap();
    assert!(at.file.ends_with("tests/data/shapes.h"), "{}", at.file);
    assert_eq!(at.line, 12);

    let typedef = library.typedefs("shape_t").unwrap().remove(0);
    let Kind::Record { id, .. } = typedef.ty.kind else {
        panic!("{typedef:?}")
    };
    let shape = library.record(id).unwrap();
    expect(
        &shape,
        48,
        &[
            ("kind", 0, "uint8_t kind"),
            ("number", 8, "uint64_t number"),
            ("low", 8, "uint32_t low"),
            ("high", 12, "uint32_t high"),
            ("corners", 16, "struct point corners[2]"),
            ("label", 32, "char label[3][4]"),
        ],
    );
    let overlapping: Vec<bool> = shape.fields.iter().map(|field| field.overlapping).collect();
    assert_eq!(overlapping, [false, true, true, true, false, false]);

    let wire = record(library, RecordKind::Struct, "wire");
    expect(
        &wire,
        11,
        &[
            ("tag", 0, "uint8_t tag"),
            ("length", 1, "uint64_t length"),
            ("crc", 9, "uint16_t crc"),
        ],
    );

    let list = record(library, RecordKind::Struct, "list");
    expect(
        &list,
        16,
        &[("next", 0, "struct list *next"), ("data", 8, "void *data")],
    );

    let message = record(library, RecordKind::Struct, "message");
    expect(
        &message,
        4,
        &[
            ("size", 0, "uint32_t size"),
            ("payload", 4, "uint8_t payload[]"),
        ],
    );

    let handlers = record(library, RecordKind::Struct, "handlers");
    expect(
        &handlers,
        40,
        &[
            ("read", 0, "read_cb read"),
            ("notify", 8, "notify_cb *notify"),
            ("weight", 16, "double weight"),
            ("name", 24, "const volatile char *const name"),
            ("colour", 32, "enum colour colour"),
        ],
    );
    let Kind::Pointer { to, .. } = &handlers.fields[0].ty.kind else {
        panic!("{handlers:?}")
    };
    assert_eq!(to.to_string(), "ssize_t (void *, char *, size_t)");
}

fn check_bit_fields(library: &Library) {
    let flags = record(library, RecordKind::Struct, "flags");
    assert_eq!(flags.size, Some(8));
    let bits: Vec<_> = flags
        .fields
        .iter()
        .map(|field| {
            (
                field.name.as_deref().unwrap(),
                field.bits.unwrap().offset,
                field.bits.unwrap().width,
            )
        })
        .collect();
    assert_eq!(
        bits,
        [
            ("ready", 0, 1),
            ("mode", 1, 3),
            ("level", 4, 12),
            ("wide", 16, 40)
        ]
    );
}

fn check_functions(library: &Library) {
    let said = |name: &str| library.function(name).unwrap().unwrap().to_string();
    assert_eq!(
        said("opaque_open"),
        "struct opaque *opaque_open(const char *path, enum colour colour)"
    );
    assert_eq!(
        said("opaque_read"),
        "ssize_t opaque_read(struct opaque *self, void *buffer, size_t size)"
    );
    assert_eq!(
        said("opaque_close"),
        "void opaque_close(struct opaque *self)"
    );
    assert_eq!(
        said("print_some"),
        "int print_some(const char *format, ...)"
    );
    assert_eq!(
        said("scale"),
        "double scale(float factor, const struct point *p, struct point by_value)"
    );
    assert_eq!(
        said("set_handlers"),
        "void set_handlers(const struct handlers *handlers, notify_cb *other)"
    );
    let ready = library.function("opaque_ready").unwrap().unwrap();
    assert!(matches!(ready.prototype.result.kind, Kind::Boolean { .. }));
    assert!(ready.defined && ready.prototype.complete && !ready.prototype.variadic);
    assert_eq!(ready.language, Language::C);
    assert!(
        ready
            .location
            .unwrap()
            .file
            .ends_with("/tests/data/shapes.c")
    );
    // An alias has no entry of its own: it is found by its address.
    assert_eq!(
        said("opaque_free"),
        "void opaque_close(struct opaque *self)"
    );
    assert_eq!(library.function("hidden").unwrap(), None);
    assert_eq!(library.function("nothing_like_it").unwrap(), None);
    let exports = library.exported_functions();
    assert!(
        exports.iter().any(|name| name == "make_shape"),
        "{exports:?}"
    );
    assert!(
        !exports
            .iter()
            .any(|name| name == "hidden" || name == "some_variable"),
        "{exports:?}"
    );
}

fn check_enumerations(library: &Library) {
    let colour = library.enumerations("colour").unwrap().remove(0);
    assert_eq!((colour.size, colour.signed), (Some(4), false));
    let constants: Vec<_> = colour
        .constants
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    assert_eq!(constants, [("RED", 1), ("GREEN", 2), ("BLUE", 40)]);
    let direction = library.enumerations("direction").unwrap().remove(0);
    assert!(direction.signed);
    assert_eq!(direction.constants[0], ("LEFT".into(), -1));
}

/// Every combination of compiler, version and optimisation with one more flag.
fn each(name: &str, flags: &[&str]) {
    for compiler in ["gcc", "clang"] {
        for version in ["-gdwarf-4", "-gdwarf-5"] {
            for optimisation in ["-O0", "-O2"] {
                let directory = directory(&format!("{name}-{compiler}{version}{optimisation}"));
                let mut all = vec!["-g", version, optimisation];
                all.extend(flags);
                let path = library(&directory, compiler, "shapes.c", &all);
                check_shapes(&Library::open(path).unwrap());
            }
        }
    }
}

#[test]
fn plain() {
    each("plain", &[]);
}

#[test]
fn compressed() {
    each("compressed", &["-gz=zlib"]);
}

#[test]
fn compressed_the_old_way() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let directory = directory(&format!("zdebug{version}"));
        library(&directory, "gcc", "shapes.c", &["-g", version]);
        run(
            "objcopy",
            &[
                "--compress-debug-sections=zlib-gnu",
                "libshapes.so",
                "old.so",
            ],
            &directory,
        );
        check_shapes(&Library::open(directory.join("old.so")).unwrap());
    }
}

#[test]
fn type_units() {
    each("types", &["-fdebug-types-section"]);
}

#[test]
fn split() {
    each("split", &["-gsplit-dwarf"]);
}

#[test]
fn split_type_units() {
    each("split-types", &["-gsplit-dwarf", "-fdebug-types-section"]);
}

#[test]
fn split_and_packed() {
    for compiler in ["gcc", "clang"] {
        for version in ["-gdwarf-4", "-gdwarf-5"] {
            for types in [None, Some("-fdebug-types-section")] {
                let directory = directory(&format!("dwp-{compiler}{version}{}", types.is_some()));
                let mut flags = vec!["-g", version, "-gsplit-dwarf"];
                flags.extend(types);
                let path = library(&directory, compiler, "shapes.c", &flags);
                run(
                    "llvm-dwp",
                    &["-e", "libshapes.so", "-o", "libshapes.so.dwp"],
                    &directory,
                );
                std::fs::remove_file(directory.join("shapes.dwo")).unwrap();
                check_shapes(&Library::open(path).unwrap());
            }
        }
    }
}

#[test]
fn split_parts_that_are_gone_are_said_to_be() {
    let directory = directory("gone");
    let path = library(&directory, "gcc", "shapes.c", &["-g", "-gsplit-dwarf"]);
    std::fs::remove_file(directory.join("shapes.dwo")).unwrap();
    let error = Library::open(path).unwrap_err().to_string();
    assert!(error.contains("shapes.dwo"), "{error}");
}

#[test]
fn beside_the_library_by_debuglink() {
    for (compiler, place) in [
        ("gcc", "libshapes.debug"),
        ("clang", ".debug/libshapes.debug"),
    ] {
        let directory = directory(&format!("debuglink-{compiler}"));
        let path = library(&directory, compiler, "shapes.c", &["-g"]);
        strip_to(&directory, "libshapes.so", "libshapes.debug");
        run(
            "objcopy",
            &["--add-gnu-debuglink=libshapes.debug", "libshapes.so"],
            &directory,
        );
        std::fs::create_dir_all(directory.join(".debug")).unwrap();
        std::fs::rename(directory.join("libshapes.debug"), directory.join(place)).unwrap();
        let opened = Library::open(&path).unwrap();
        assert_eq!(
            opened.debug_path(),
            directory.canonicalize().unwrap().join(place)
        );
        check_shapes(&opened);

        // A debug file of another build is refused by its checksum.
        let mut other = std::fs::read(directory.join(place)).unwrap();
        other.push(0);
        std::fs::write(directory.join(place), other).unwrap();
        let error = Library::open(&path).unwrap_err();
        assert!(matches!(error, Error::NoDebugInformation { .. }), "{error}");
        assert!(error.to_string().contains("libshapes.debug"), "{error}");
    }
}

#[test]
fn under_the_build_identifier() {
    let directory = directory("build-id");
    let path = library(&directory, "gcc", "shapes.c", &["-g"]);
    let id = Library::open(&path).unwrap().build_id().unwrap().to_vec();
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    strip_to(&directory, "libshapes.so", "libshapes.debug");
    let store = directory.join("store");
    let place = store.join(".build-id").join(&hex[..2]);
    std::fs::create_dir_all(&place).unwrap();
    let place = place.join(format!("{}.debug", &hex[2..]));
    std::fs::rename(directory.join("libshapes.debug"), &place).unwrap();
    let opened = Library::open_with(&path, std::slice::from_ref(&store)).unwrap();
    assert_eq!(opened.debug_path(), place);
    check_shapes(&opened);
    assert!(matches!(
        Library::open(&path),
        Err(Error::NoDebugInformation { .. })
    ));
}

/// `dwz -m` moved what two libraries have in common to a third file. The files are kept with the tests, since few
/// machines have the tool; `tests/data/dwz/README.md` says how they were made.
#[test]
fn common_entries_in_a_supplementary_file() {
    for name in ["first.elf", "second.elf"] {
        let opened = Library::open(data("dwz").join(name)).unwrap();
        assert_eq!(opened.damage(), [] as [&str; 0]);
        check_records(&opened);
        check_bit_fields(&opened);
        let said = opened.function("opaque_read").unwrap().unwrap().to_string();
        assert_eq!(
            said,
            "ssize_t opaque_read(struct opaque *self, void *buffer, size_t size)"
        );
    }
}

#[test]
fn a_missing_supplementary_file_is_said_to_be() {
    let directory = directory("dwz-alone");
    let path = directory.join("first.elf");
    std::fs::copy(data("dwz").join("first.elf"), &path).unwrap();
    let said = match Library::open(&path) {
        Ok(opened) => opened.damage().join("\n"),
        Err(error) => error.to_string(),
    };
    assert!(said.contains("common.debug"), "{said}");
}

#[test]
fn parameters_that_nobody_declared_are_not_known() {
    let directory = directory("unprototyped");
    let path = library(&directory, "gcc", "shapes.c", &["-g", "-DUNPROTOTYPED"]);
    let anything = Library::open(path)
        .unwrap()
        .function("anything")
        .unwrap()
        .unwrap();
    assert!(
        !anything.prototype.complete && !anything.prototype.variadic,
        "{anything:?}"
    );
    assert_eq!(anything.to_string(), "int anything()");
}

/// What a library calls: optimising compilers record the prototypes.
#[test]
fn functions_of_others() {
    for compiler in ["gcc", "clang"] {
        let directory = directory(&format!("imports-{compiler}"));
        let path = library(&directory, compiler, "shapes.c", &["-g", "-O2"]);
        let opened = Library::open(path).unwrap();
        let gettime = opened.function("clock_gettime").unwrap().expect(compiler);
        assert!(!gettime.defined);
        assert_eq!(
            gettime.to_string(),
            "int clock_gettime(clockid_t, struct timespec *)"
        );
    }
}
