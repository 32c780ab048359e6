//! That nothing declared in a header is missing from the tables, and that the prototypes are the exported functions.

use std::collections::BTreeSet;

use crate::compiler::include;
use crate::constants::constants;
use crate::layouts::layouts;

const HEADERS: [&str; 9] = [
    "libvfio-user.h",
    "vfio-user.h",
    "pci_defs.h",
    "pci_caps/common.h",
    "pci_caps/dsn.h",
    "pci_caps/msi.h",
    "pci_caps/msix.h",
    "pci_caps/pm.h",
    "pci_caps/px.h",
];

/// Types without a layout: opaque, or functions, or a plain pointer.
const NO_LAYOUT: [&str; 5] = [
    "struct vfu_ctx",
    "struct dma_sg",
    "vfu_ctx_t",
    "dma_sg_t",
    "vfu_dma_addr_t",
];

/// Text of all headers without comments.
fn text() -> String {
    let mut all = String::new();
    for header in HEADERS {
        let mut rest = std::fs::read_to_string(include().join(header)).unwrap();
        while let Some(start) = rest.find("/*") {
            let end = start + rest[start..].find("*/").unwrap() + 2;
            rest.replace_range(start..end, " ");
        }
        assert!(!rest.contains("//"), "{header}: C89 comments only");
        all.push_str(&rest);
    }
    all
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

pub(crate) fn is_macro(name: &str) -> bool {
    macros(&text()).contains(name)
}

/// Names defined with a value.
fn macros(text: &str) -> BTreeSet<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("#define "));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Bodies of blocks that start with `keyword` and have a brace: (what stands before the brace, body).
fn blocks<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.match_indices(keyword).filter_map(move |(start, _)| {
        let rest = &text[start..];
        let open = rest.find('{')?;
        let head = &rest[..open];
        let plain = head
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ' ');
        let close = open + rest[open..].find('}')?;
        plain.then_some((head.trim(), &rest[open + 1..close]))
    })
}

#[test]
fn the_files_are_those_listed() {
    let mut found: Vec<String> = Vec::new();
    for (dir, prefix) in [(include(), ""), (include().join("pci_caps"), "pci_caps/")] {
        for entry in std::fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name != "pci_caps" {
                found.push(format!("{prefix}{name}"));
            }
        }
    }
    found.sort();
    let mut listed = HEADERS.map(str::to_owned).to_vec();
    listed.sort();
    assert_eq!(found, listed);
}

#[test]
fn every_type_is_in_the_layout_table() {
    let text = text();
    let known: BTreeSet<String> = layouts().into_iter().map(|layout| layout.name).collect();
    let mut declared = BTreeSet::new();
    for keyword in ["struct", "union"] {
        for (head, _) in blocks(&text, keyword) {
            if let [_, tag] = words(head).collect::<Vec<_>>()[..] {
                declared.insert(format!("{keyword} {tag}"));
            }
        }
    }
    // Names that end a definition: "} attributes name;"
    for line in text
        .lines()
        .filter(|line| line.starts_with('}') && line.ends_with(';'))
    {
        if let Some(name) = words(line).last().filter(|name| name.ends_with("_t")) {
            declared.insert(name.to_owned());
        }
    }
    let enums: BTreeSet<&str> = constants().into_iter().map(|(name, _)| name).collect();
    declared.retain(|name| {
        !NO_LAYOUT.contains(&name.as_str()) && !enums.contains(format!("sizeof({name})").as_str())
    });
    let missing: Vec<_> = declared.difference(&known).collect();
    assert!(missing.is_empty(), "not in layouts.txt: {missing:?}");
    assert!(
        declared.len() > 60,
        "only {} types were found",
        declared.len()
    );
}

#[test]
fn every_constant_is_in_the_table() {
    let text = text();
    let known: BTreeSet<String> = constants()
        .into_iter()
        .map(|(name, _)| name.to_owned())
        .collect();
    let mut declared = macros(&text);
    for (_, body) in blocks(&text, "enum") {
        for entry in body.split(',').filter_map(|entry| words(entry).next()) {
            declared.insert(entry.to_owned());
        }
    }
    let missing: Vec<_> = declared.difference(&known).collect();
    assert!(missing.is_empty(), "not in constants.txt: {missing:?}");
    assert!(
        declared.len() > 80,
        "only {} constants were found",
        declared.len()
    );
}

/// Programs that look for prototypes take a name and a parenthesis at the start of a line.
#[test]
fn prototypes_start_lines_and_are_the_exports() {
    let header = std::fs::read_to_string(include().join("libvfio-user.h")).unwrap();
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let found: BTreeSet<&str> = header
        .lines()
        .filter_map(|line| line.split_once('('))
        .map(|(name, _)| name)
        .filter(|name| !name.is_empty() && name.chars().all(lower))
        .collect();
    let exports = include_str!("../../exports.txt")
        .lines()
        .filter(|line| !line.is_empty());
    assert_eq!(found, exports.collect());
    assert_eq!(found.len(), 34);
}
