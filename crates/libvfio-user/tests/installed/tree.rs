//! The installed files, their symbolic links and their pkg-config file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::install::{make, pkg_config, prefix, root, scratch};

fn files(dir: &Path, below: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, below, found);
        } else {
            found.insert(path.strip_prefix(below).unwrap().display().to_string());
        }
    }
}

/// Paths of all files below `dir`, relative to it.
fn tree(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    files(dir, dir, &mut found);
    found
}

fn expected() -> BTreeSet<String> {
    let library = [
        "libvfio-user.a",
        "libvfio-user.so",
        "libvfio-user.so.0",
        "libvfio-user.so.0.0.1",
    ];
    let headers = ["libvfio-user.h", "vfio-user.h", "pci_defs.h"];
    let capabilities = ["common.h", "dsn.h", "msi.h", "msix.h", "pm.h", "px.h"];
    (library.iter().map(|file| format!("lib/{file}")))
        .chain(["lib/pkgconfig/libvfio-user.pc".to_owned()])
        .chain(
            headers
                .iter()
                .map(|file| format!("include/vfio-user/{file}")),
        )
        .chain(
            capabilities
                .iter()
                .map(|file| format!("include/vfio-user/pci_caps/{file}")),
        )
        .collect()
}

#[test]
fn install_puts_every_file_in_its_place() {
    assert_eq!(tree(prefix()), expected());
    let target = |name: &str| fs::read_link(prefix().join("lib").join(name)).unwrap();
    assert_eq!(
        target("libvfio-user.so"),
        PathBuf::from("libvfio-user.so.0")
    );
    assert_eq!(
        target("libvfio-user.so.0"),
        PathBuf::from("libvfio-user.so.0.0.1")
    );
}

#[test]
fn the_pkg_config_file_names_the_prefix_it_was_installed_for() {
    let include = prefix().join("include");
    let cflags = pkg_config(&["--cflags"]);
    assert_eq!(
        cflags,
        [
            format!("-I{}", include.display()),
            format!("-I{}/vfio-user", include.display())
        ]
    );
    assert_eq!(pkg_config(&["--modversion"]), ["0.0.1"]);
    assert_eq!(
        pkg_config(&["--libs"]),
        [
            format!("-L{}/lib", prefix().display()),
            "-lvfio-user".to_owned()
        ]
    );
}

#[test]
fn destdir_is_a_root_of_its_own_and_uninstall_leaves_nothing() {
    let destdir = scratch("destdir");
    let arguments = [
        "PREFIX=/opt/vfio-user".to_owned(),
        format!("DESTDIR={}", destdir.display()),
    ];
    // A file of someone else in a shared directory stays.
    let foreign = destdir.join("opt/vfio-user/lib/libother.so");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "").unwrap();
    make("install", &arguments);
    let mut wanted: BTreeSet<String> = expected()
        .iter()
        .map(|file| format!("opt/vfio-user/{file}"))
        .collect();
    wanted.insert("opt/vfio-user/lib/libother.so".to_owned());
    assert_eq!(tree(&destdir), wanted);
    let pc =
        fs::read_to_string(destdir.join("opt/vfio-user/lib/pkgconfig/libvfio-user.pc")).unwrap();
    assert!(pc.contains("prefix=/opt/vfio-user\n"), "{pc}");
    assert!(
        !pc.contains(&root().canonicalize().unwrap().display().to_string()),
        "{pc}"
    );
    make("uninstall", &arguments);
    assert_eq!(
        tree(&destdir),
        BTreeSet::from(["opt/vfio-user/lib/libother.so".to_owned()])
    );
}
