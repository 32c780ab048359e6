//! Files that are cut short, changed, or no libraries at all: an answer or a sentence, never a panic.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that fails is a test that fails"
)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use clib_abi::{DeclId, Error, Library};
use common::{directory, library, run};
use object::{Object, ObjectSection};

/// Asks a library everything it can be asked. Returns how many answers were errors, `None` if it did not open.
fn exercise(path: &Path) -> Option<usize> {
    let library = match Library::open(path) {
        Ok(library) => library,
        Err(error) => {
            check_sentence(&error);
            return None;
        }
    };
    let mut errors = Vec::new();
    for name in library.exported_functions() {
        errors.extend(library.function(&name).err());
    }
    for name in library.record_names() {
        errors.extend(library.records(None, &name).err());
    }
    for name in library.typedef_names() {
        match library.typedefs(&name) {
            Ok(found) => {
                for one in &found {
                    let _ = one.to_string();
                }
            }
            Err(error) => errors.push(error),
        }
        errors.extend(library.enumerations(&name).err());
    }
    for raw in [0, 1, 40, 77, 1 << 40, (3 << 40) | 99, u64::MAX] {
        errors.extend(library.record(DeclId::from_raw(raw)).err());
        errors.extend(library.enumeration(DeclId::from_raw(raw)).err());
    }
    errors.iter().for_each(check_sentence);
    Some(errors.len())
}

fn check_sentence(error: &Error) {
    let said = error.to_string();
    assert!(said.len() > 20 && !said.contains('\n'), "{said:?}");
    if !matches!(error, Error::UnknownId(_)) {
        assert!(said.starts_with('/'), "an error names its file: {said:?}");
    }
}

/// The variants whose readers differ most.
fn objects(test: &str) -> Vec<(&'static str, PathBuf)> {
    let variants: [(&str, &str, &str, &[&str]); 6] = [
        ("gcc4", "gcc", "shapes.c", &["-g", "-gdwarf-4"]),
        ("gcc5", "gcc", "shapes.c", &["-g", "-gdwarf-5", "-O2"]),
        (
            "types",
            "gcc",
            "shapes.c",
            &["-g", "-gdwarf-4", "-fdebug-types-section"],
        ),
        (
            "clang",
            "clang",
            "shapes.c",
            &["-g", "-gdwarf-5", "-gz=zlib"],
        ),
        ("cpp", "g++", "shapes.cc", &["-g", "-fdebug-types-section"]),
        ("dwp", "clang", "shapes.c", &["-g", "-gsplit-dwarf"]),
    ];
    variants
        .iter()
        .map(|(name, compiler, source, flags)| {
            let directory = directory(&format!("{test}-{name}"));
            let path = library(&directory, compiler, source, flags);
            if *name == "dwp" {
                run(
                    "llvm-dwp",
                    &["-e", "libshapes.so", "-o", "libshapes.so.dwp"],
                    &directory,
                );
                std::fs::remove_file(directory.join("shapes.dwo")).unwrap();
                return (*name, directory.join("libshapes.so.dwp"));
            }
            (*name, path)
        })
        .collect()
}

/// What to open to read `file`: the package belongs to a library.
fn opened_through(file: &Path) -> PathBuf {
    if file.extension().is_some_and(|extension| extension == "dwp") {
        return file.with_extension("");
    }
    file.to_path_buf()
}

/// Tries many changed copies of a file, in place, and gives the original back.
fn try_all(name: &str, file: &Path, changed: impl Iterator<Item = (String, Vec<u8>)>) {
    let original = std::fs::read(file).unwrap();
    let target = opened_through(file);
    assert_eq!(
        exercise(&target),
        Some(14),
        "{name}: only the invented identifiers are refused"
    );
    let (mut refused, mut answered) = (0, 0);
    for (what, bytes) in changed {
        std::fs::write(file, bytes).unwrap();
        match catch_unwind(AssertUnwindSafe(|| exercise(&target))) {
            Ok(None) => refused += 1,
            Ok(Some(_)) => answered += 1,
            Err(_) => panic!("{name}: {what}"),
        }
    }
    std::fs::write(file, original).unwrap();
    assert!(
        refused > 0 && answered > 0,
        "{name}: {refused} refused, {answered} answered"
    );
}

#[test]
fn truncated() {
    for (name, file) in objects("truncated") {
        let original = std::fs::read(&file).unwrap();
        let step = (original.len() / 150).max(1);
        let lengths = (0..=original.len()).step_by(step).chain([1, 4, 63, 64, 65]);
        let changed: Vec<_> = lengths
            .map(|length| {
                (
                    format!("cut to {length} bytes"),
                    original[..length].to_vec(),
                )
            })
            // The section headers lie at the end: with them kept, what they describe is what is missing.
            .chain((1..40).map(|part| {
                let mut bytes = original.clone();
                let from = bytes.len() * part / 40;
                let to = (from + bytes.len() / 8).min(bytes.len());
                bytes[from..to].fill(0);
                (format!("zeros from {from} to {to}"), bytes)
            }))
            .chain([("whole".to_owned(), original.clone())])
            .collect();
        try_all(name, &file, changed.into_iter());
    }
}

#[test]
fn flipped() {
    for (name, file) in objects("flipped") {
        let original = std::fs::read(&file).unwrap();
        let parsed = object::File::parse(&*original).unwrap();
        let sections: Vec<(usize, usize)> = parsed
            .sections()
            .filter(|section| {
                section
                    .name()
                    .is_ok_and(|name| name.contains("debug") || name.contains(".dyn"))
            })
            .filter_map(|section| section.file_range())
            .map(|(start, size)| {
                (
                    usize::try_from(start).unwrap(),
                    usize::try_from(size).unwrap(),
                )
            })
            .filter(|(_, size)| *size > 0)
            .collect();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 16).unwrap()
        };
        let changed = (0..700).map(|round| {
            let mut bytes = original.clone();
            let count = [1, 1, 1, 4, 32][round % 5];
            let mut places = Vec::new();
            for _ in 0..count {
                let (start, size) = sections[random() % sections.len()];
                // The file's own headers get their share.
                let place = if random() % 16 == 0 {
                    random() % bytes.len()
                } else {
                    start + random() % size
                };
                bytes[place] = if random() % 4 == 0 {
                    0xff
                } else {
                    bytes[place] ^ (1 << (random() % 8))
                };
                places.push(place);
            }
            (format!("round {round}, bytes {places:?}"), bytes)
        });
        let changed: Vec<_> = changed.collect();
        let intact = std::iter::once(("whole".to_owned(), original.clone()));
        let empty = std::iter::once(("empty".to_owned(), Vec::new()));
        try_all(name, &file, changed.into_iter().chain(intact).chain(empty));
    }
}

#[test]
fn what_is_no_library() {
    let directory = directory("no-library");
    let open = |name: &str| Library::open(directory.join(name)).unwrap_err();

    let missing = open("missing.so");
    assert!(matches!(missing, Error::Read { .. }), "{missing}");
    assert!(
        missing.to_string().contains("missing.so: No such file"),
        "{missing}"
    );

    std::fs::write(directory.join("text.so"), "INPUT(libfoo.so.1)\n").unwrap();
    assert!(matches!(open("text.so"), Error::NotElf { .. }));
    std::fs::write(directory.join("empty.so"), "").unwrap();
    assert!(matches!(open("empty.so"), Error::NotElf { .. }));
    std::fs::create_dir(directory.join("folder.so")).unwrap();
    assert!(matches!(open("folder.so"), Error::NotElf { .. }));

    library(&directory, "gcc", "shapes.c", &[]);
    let stripped = open("libshapes.so");
    assert!(
        matches!(stripped, Error::NoDebugInformation { .. }),
        "{stripped}"
    );
    assert!(
        stripped.to_string().contains("/usr/lib/debug/.build-id/"),
        "{stripped}"
    );

    let mut other = std::fs::read(directory.join("libshapes.so")).unwrap();
    other[18] = 183; // EM_AARCH64
    std::fs::write(directory.join("arm.so"), &other).unwrap();
    let foreign = open("arm.so");
    assert!(
        matches!(foreign, Error::ForeignArchitecture { .. }),
        "{foreign}"
    );
    assert!(foreign.to_string().contains("aarch64"), "{foreign}");
    other[4] = 1; // ELFCLASS32
    std::fs::write(directory.join("small.so"), &other).unwrap();
    let foreign = open("small.so");
    assert!(
        matches!(
            foreign,
            Error::ForeignArchitecture { .. } | Error::NotElf { .. }
        ),
        "{foreign}"
    );
}

/// One unit of two is damaged: the other still answers.
#[test]
fn damage_stays_where_it_is() {
    let directory = directory("one-of-two");
    let one = common::data("shapes.c");
    let one = one.to_str().unwrap();
    std::fs::write(
        directory.join("other.c"),
        "struct tail { int last; }; int other(struct tail *t) { return t->last; }\n",
    )
    .unwrap();
    run(
        "gcc",
        &["-g", "-shared", "-fPIC", "-o", "libtwo.so", "other.c", one],
        &directory,
    );
    let path = directory.join("libtwo.so");
    let mut bytes = std::fs::read(&path).unwrap();
    let (start, _) = {
        let parsed = object::File::parse(&*bytes).unwrap();
        let section = parsed.section_by_name(".debug_info").unwrap();
        section.file_range().unwrap()
    };
    // The second unit begins where the first one's length says.
    let start = usize::try_from(start).unwrap();
    let length = u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap());
    let second = start + 4 + usize::try_from(length).unwrap();
    bytes[second + 8..second + 12].fill(0xff); // its abbreviations lie nowhere
    std::fs::write(&path, &bytes).unwrap();
    let library = Library::open(&path).unwrap();
    assert_eq!(
        library.function("other").unwrap().unwrap().to_string(),
        "int other(struct tail *t)"
    );
    assert_eq!(library.function("opaque_open").unwrap(), None);
    assert_eq!(library.damage().len(), 1, "{:?}", library.damage());
    assert!(
        library.damage()[0].contains("libtwo.so"),
        "{:?}",
        library.damage()
    );
}
