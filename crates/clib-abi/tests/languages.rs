//! C++ and Rust libraries, as far as C callers see them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that fails is a test that fails"
)]

mod common;

use clib_abi::{Kind, Language, Library, Record, RecordKind};
use common::{data, directory, library, run};

fn only(found: Vec<Record>) -> Record {
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().unwrap()
}

fn fields(record: &Record) -> Vec<(u64, String)> {
    record
        .fields
        .iter()
        .map(|field| (field.offset, field.to_string()))
        .collect()
}

#[test]
fn cpp() {
    for compiler in ["g++", "clang++"] {
        for version in ["-gdwarf-4", "-gdwarf-5"] {
            let directory = directory(&format!("{compiler}{version}"));
            let path = library(&directory, compiler, "shapes.cc", &["-g", version]);
            check_cpp(&Library::open(path).unwrap(), compiler);
        }
    }
}

fn check_cpp(library: &Library, compiler: &str) {
    let derived = only(library.records(None, "outer::inner::Derived").unwrap());
    assert_eq!(derived.name.as_deref(), Some("outer::inner::Derived"));
    // The base class's field stands in its place; the static member is no field.
    assert_eq!(
        fields(&derived),
        [
            (0, "int32_t id".into()),
            (8, "double value".into()),
            (16, "uint16_t tail".into())
        ]
    );
    assert_eq!(only(library.records(None, "Derived").unwrap()), derived);

    // Two records of one name: the global one comes first, and each can be had alone.
    let points = library.records(None, "point").unwrap();
    assert_eq!(points.len(), 2);
    assert_eq!(points[0].name.as_deref(), Some("point"));
    assert_eq!(points[0].size, Some(8));
    let inner = only(library.records(None, "outer::inner::point").unwrap());
    assert_eq!((inner.kind, inner.size), (RecordKind::Class, Some(24)));

    let size = library.function("derived_size").unwrap().unwrap();
    assert_eq!(size.language, Language::Cpp);
    assert_eq!(
        size.prototype.declare("derived_size"),
        "int derived_size(struct outer::inner::Derived *derived, struct outer::Base *base)"
    );
    let measure = library
        .exported_functions()
        .into_iter()
        .find(|name| name.contains("measure"))
        .unwrap();
    let measure = library.function(&measure).unwrap().unwrap();
    assert_eq!(measure.name, "measure");
    assert!(
        measure
            .linkage_name
            .is_some_and(|name| name.starts_with("_Z"))
    );
    assert_eq!(measure.prototype.parameters.len(), 2);

    let pair = library.function("pair_sum").unwrap().unwrap();
    let Kind::Pointer { to, .. } = &pair.prototype.parameters[0].ty.kind else {
        panic!("{pair:?}")
    };
    let Kind::Record { id, .. } = to.kind else {
        panic!("{pair:?}")
    };
    assert_eq!(
        fields(&library.record(id).unwrap()),
        [(0, "T first".into()), (8, "T second".into())]
            .map(|(at, text): (u64, String)| (at, template_name(&text, library, id))),
        "{compiler}"
    );
}

/// Compilers may or may not speak of the template's parameter; both are right.
fn template_name(text: &str, library: &Library, id: clib_abi::DeclId) -> String {
    let name = text.split(' ').next_back().unwrap_or_default();
    let ty = library
        .record(id)
        .unwrap()
        .fields
        .iter()
        .find(|f| f.name.as_deref() == Some(name))
        .unwrap()
        .ty
        .clone();
    assert!(matches!(ty.kind, Kind::Integer { signed: true, .. }));
    ty.declare(name)
}

#[test]
fn rust() {
    for (name, flags) in [
        ("debug", vec!["-g"]),
        ("release", vec!["-g", "-O", "-Clto=fat"]),
    ] {
        let directory = directory(&format!("rust-{name}"));
        let source = data("shapes.rs");
        let mut arguments = vec![
            "--edition",
            "2024",
            "-o",
            "libshapes.so",
            source.to_str().unwrap(),
        ];
        arguments.extend(flags);
        run("rustc", &arguments, &directory);
        check_rust(&Library::open(directory.join("libshapes.so")).unwrap());
    }
}

fn check_rust(library: &Library) {
    let options = library.records(None, "Options").unwrap();
    let options = options
        .iter()
        .find(|one| one.name.as_deref() == Some("shapes::api::Options"))
        .unwrap();
    assert_eq!(options.size, Some(32));
    let offsets: Vec<(Option<&str>, u64)> = options
        .fields
        .iter()
        .map(|field| (field.name.as_deref(), field.offset))
        .collect();
    let mut sorted = offsets.clone();
    sorted.sort_by_key(|(_, offset)| *offset);
    assert_eq!(
        sorted,
        [
            (Some("size"), 0),
            (Some("name"), 8),
            (Some("callback"), 16),
            (Some("colour"), 24),
            (Some("on"), 28)
        ]
    );
    let kind = |name: &str| {
        let field = options
            .fields
            .iter()
            .find(|field| field.name.as_deref() == Some(name));
        field.unwrap().ty.kind.clone()
    };
    // An optional function is a pointer that may be null.
    let Kind::Pointer { to, .. } = kind("callback") else {
        panic!("{:?}", kind("callback"))
    };
    let Kind::Function(callback) = &to.kind else {
        panic!("{to:?}")
    };
    assert!(callback.complete);
    assert_eq!(callback.parameters.len(), 2);
    let Kind::Pointer { to: context, .. } = &callback.parameters[0].ty.kind else {
        panic!("{callback:?}")
    };
    assert_eq!(context.kind, Kind::Void);
    assert!(matches!(
        callback.result.kind,
        Kind::Integer { signed: true, .. }
    ));
    assert!(
        matches!(kind("colour"), Kind::Enumeration { signed: false, .. }),
        "{:?}",
        kind("colour")
    );
    assert!(matches!(kind("on"), Kind::Boolean { .. }));

    let new = library.function("options_new").unwrap().unwrap();
    assert_eq!(
        (new.name.as_str(), new.language),
        ("options_new", Language::Rust)
    );
    assert!(!new.prototype.complete);
    let Kind::Pointer { to, .. } = &new.prototype.result.kind else {
        panic!("{new:?}")
    };
    assert!(
        matches!(&to.kind, Kind::Record { name: Some(name), .. } if name == "shapes::api::Options")
    );
    let free = library.function("options_free").unwrap().unwrap();
    assert_eq!(free.prototype.result.kind, Kind::Void);
    let value = library.records(Some(RecordKind::Union), "Value").unwrap();
    let value = value
        .iter()
        .find(|one| one.name.as_deref() == Some("shapes::Value"))
        .unwrap();
    assert!(
        value
            .fields
            .iter()
            .all(|field| field.overlapping && field.offset == 0)
    );
}
