//! The symbols: exactly those of `exports.txt`, which are the prototypes of the header.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::install::{prefix, root, run};

fn listed() -> BTreeSet<String> {
    fs::read_to_string(root().join("crates/libvfio-user/exports.txt"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_shared_library_exports_exactly_the_listed_symbols() {
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only"])
        .arg(prefix().join("lib/libvfio-user.so"));
    let symbols = run(&mut nm);
    let mut exported = BTreeSet::new();
    for line in symbols.lines() {
        let [_, kind, name] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("odd line of nm: {line}")
        };
        assert_eq!(kind, "T", "{name} is no function, or weak");
        exported.insert(name.to_owned());
    }
    assert_eq!(exported, listed());
    assert_eq!(exported.len(), 34);
}

#[test]
fn the_header_declares_exactly_the_listed_symbols() {
    // Prototypes stand with their name at column 0, as upstream's do, so that its own linkage test works too.
    let header = fs::read_to_string(prefix().join("include/vfio-user/libvfio-user.h")).unwrap();
    let declared: BTreeSet<String> = header
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split_once('('))
        .map(|(name, _)| name)
        .filter(|name| {
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(declared, listed());
}

#[test]
fn the_static_library_defines_every_listed_symbol_and_no_other_global_one() {
    let mut nm = Command::new("nm");
    nm.args(["--defined-only", "--extern-only", "--quiet"])
        .arg(prefix().join("lib/libvfio-user.a"));
    let symbols = run(&mut nm);
    let global: BTreeSet<String> = symbols
        .lines()
        .filter_map(
            |line| match line.split_whitespace().collect::<Vec<_>>()[..] {
                [_, _, name] => Some(name.to_owned()),
                _ => None,
            },
        )
        .collect();
    assert_eq!(global, listed());
}

#[test]
fn the_soname_is_upstream_s_and_all_symbols_bind_at_load() {
    let mut readelf = Command::new("readelf");
    readelf.arg("-dW").arg(prefix().join("lib/libvfio-user.so"));
    let dynamic = run(&mut readelf);
    assert!(
        dynamic.contains("Library soname: [libvfio-user.so.0]"),
        "{dynamic}"
    );
    assert!(dynamic.contains("BIND_NOW"), "{dynamic}");
    // libc, the loader and the unwinder; nothing that a user would have to install
    for line in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        let known = [
            "libc.so.6",
            "libgcc_s.so.1",
            "ld-linux-x86-64.so.2",
            "libm.so.6",
        ];
        assert!(known.iter().any(|name| line.contains(name)), "{line}");
    }
}
