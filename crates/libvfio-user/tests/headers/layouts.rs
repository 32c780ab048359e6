//! Sizes, alignments, offsets and bit positions of everything the headers declare.

use std::fmt::Write as _;

use crate::compiler::{Language, run};

/// A structure or union, as `layouts.txt` has it.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) name: String,
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) members: Vec<Member>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Bytes { offset: usize, size: usize },
    Tail { offset: usize },
    Bits { first: usize, width: usize },
}

impl Layout {
    pub(crate) fn offset(&self, member: &str) -> usize {
        match self.member(member) {
            Place::Bytes { offset, .. } | Place::Tail { offset } => offset,
            Place::Bits { .. } => panic!("{}.{member} is a bit field", self.name),
        }
    }

    pub(crate) fn member(&self, member: &str) -> Place {
        let found = self.members.iter().find(|m| m.name == member);
        found
            .unwrap_or_else(|| panic!("{} has no {member}", self.name))
            .place
    }
}

/// The facts.
pub(crate) fn layouts() -> Vec<Layout> {
    let mut layouts: Vec<Layout> = Vec::new();
    for line in include_str!("layouts.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            [name, place] => {
                let (first, width) = place.strip_prefix('@').unwrap().split_once('+').unwrap();
                let place = Place::Bits {
                    first: number(first),
                    width: number(width),
                };
                push(&mut layouts, name, place);
            }
            [name, offset, "-"] => push(
                &mut layouts,
                name,
                Place::Tail {
                    offset: number(offset),
                },
            ),
            [name, offset, size] if line.starts_with(' ') => {
                let place = Place::Bytes {
                    offset: number(offset),
                    size: number(size),
                };
                push(&mut layouts, name, place);
            }
            [.., size, align] => layouts.push(Layout {
                name: words[..words.len() - 2].join(" "),
                size: number(size),
                align: number(align),
                members: Vec::new(),
            }),
            [_] => panic!("not understood: {line}"),
        }
    }
    layouts
}

fn push(layouts: &mut [Layout], name: &str, place: Place) {
    layouts.last_mut().unwrap().members.push(Member {
        name: name.to_owned(),
        place,
    });
}

pub(crate) fn number(text: &str) -> usize {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => usize::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("not a number: {text}"))
}

/// What a correct program prints.
fn expected(layouts: &[Layout]) -> String {
    let mut text = String::new();
    for layout in layouts {
        writeln!(text, "{} {} {}", layout.name, layout.size, layout.align).unwrap();
        for Member { name, place } in &layout.members {
            match place {
                Place::Bytes { offset, size } => writeln!(text, "  {name} {offset} {size}"),
                Place::Tail { offset } => writeln!(text, "  {name} {offset} -"),
                Place::Bits { first, width } => writeln!(text, "  {name} @{first}+{width}"),
            }
            .unwrap();
        }
    }
    text
}

/// A program that prints what the headers say.
fn probe(layouts: &[Layout]) -> String {
    let mut text = String::from(PRELUDE);
    for (index, Layout { name, members, .. }) in layouts.iter().enumerate() {
        writeln!(text, "static void f{index}(void)\n{{").unwrap();
        writeln!(text, "struct aligned {{ char c; {name} x; }};").unwrap();
        writeln!(text, "{name} *p = ({name} *)memory; (void)p;").unwrap();
        writeln!(
            text,
            "printf(\"{name} %zu %zu\\n\", sizeof({name}), offsetof(struct aligned, x));"
        )
        .unwrap();
        for Member {
            name: member,
            place,
        } in members
        {
            match place {
                Place::Bytes { .. } => writeln!(
                    text,
                    "printf(\"  {member} %zu %zu\\n\", offsetof({name}, {member}), sizeof(p->{member}));"
                ),
                Place::Tail { .. } => writeln!(
                    text,
                    "printf(\"  {member} %zu -\\n\", offsetof({name}, {member}));"
                ),
                Place::Bits { .. } => writeln!(
                    text,
                    "clear(); p->{member} = ones; printf(\"  {member} \"); bits();"
                ),
            }
            .unwrap();
        }
        text.push_str("}\n");
    }
    text.push_str("int main(void)\n{\n");
    for index in 0..layouts.len() {
        writeln!(text, "f{index}();").unwrap();
    }
    text.push_str("return 0;\n}\n");
    text
}

/// `bits` prints where the ones in the memory are; ones that are not adjacent are shown as such.
const PRELUDE: &str = r#"
#include <stdio.h>
#include <string.h>
#include <stddef.h>
#include "libvfio-user.h"

static unsigned char memory[512] __attribute__((aligned(16)));
static volatile unsigned ones = 0xffffffffu;

static void clear(void)
{
    memset(memory, 0, sizeof(memory));
}

static void bits(void)
{
    unsigned i, first = 0, width = 0;
    for (i = 0; i < sizeof(memory) * 8; i++) {
        if (!(memory[i / 8] >> i % 8 & 1))
            continue;
        if (width == 0)
            first = i;
        else if (first + width != i)
            printf("scattered ");
        width++;
    }
    printf("@%u+%u\n", first, width);
}
"#;

#[test]
fn the_headers_lay_out_everything_as_specified() {
    let layouts = layouts();
    let source = probe(&layouts);
    for language in Language::BOTH {
        for compiler in language.compilers() {
            let printed = run(compiler, language, "layouts", &source);
            similar_lines(&expected(&layouts), &printed, compiler);
        }
    }
}

/// Compares line by line, so that a failure names the member.
pub(crate) fn similar_lines(expected: &str, printed: &str, compiler: &str) {
    let wrong: Vec<_> = expected
        .lines()
        .zip(printed.lines())
        .filter(|(a, b)| a != b)
        .collect();
    assert!(wrong.is_empty(), "{compiler}: (expected, found) {wrong:#?}");
    assert_eq!(
        expected.lines().count(),
        printed.lines().count(),
        "{compiler}"
    );
}

/// Bytes of a structure that no member takes: padding that the ABI has.
const PADDING: [(&str, &[usize]); 2] = [
    ("struct vfu_dma_info", &[52, 53, 54, 55]),
    ("vfu_migration_callbacks_t", &[4, 5, 6, 7]),
];

/// Short forms of a structure that is listed in full under its tag.
const ALIASES: [&str; 5] = [
    "vfio_user_region_io_fds_request_t",
    "vfio_user_region_io_fds_reply_t",
    "vfio_user_sub_region_ioeventfd_t",
    "vfio_user_sub_region_ioregionfd_t",
    "vfu_dma_info_t",
];

#[test]
fn the_members_listed_account_for_every_byte() {
    for layout in layouts()
        .iter()
        .filter(|layout| !ALIASES.contains(&layout.name.as_str()))
    {
        let mut taken = vec![false; layout.size * 8];
        for member in &layout.members {
            let (first, width) = match member.place {
                Place::Bytes { offset, size } => (offset * 8, size * 8),
                Place::Bits { first, width } => (first, width),
                Place::Tail { offset } => {
                    assert_eq!(offset, layout.size, "{}.{}", layout.name, member.name);
                    continue;
                }
            };
            taken[first..first + width].fill(true);
        }
        let free: Vec<usize> = (0..layout.size)
            .filter(|byte| !taken[byte * 8..byte * 8 + 8].iter().all(|&t| t))
            .collect();
        let padding = PADDING
            .iter()
            .find(|(name, _)| *name == layout.name)
            .map_or(&[][..], |p| p.1);
        assert_eq!(free, padding, "{}", layout.name);
    }
}
