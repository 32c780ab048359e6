//! One pass over the top level of every unit: which names are declared where.
//!
//! 1. Only entries outside functions and records are read; the rest is skipped, by sibling offsets where the
//!    compiler left them.
//! 2. Headers are compiled into many units: equal entries (same name, tag, size, line and column) are kept once.
//! 3. A function is kept only if the library exports or imports its name or the address it begins at.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use gimli::{AttributeSpecification, EntriesRaw, Reader as _, UnitOffset, constants as dw};

use crate::files::{Bytes, Symbols};
use crate::units::{DieId, Units, Value};

/// What an index entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    Struct,
    Union,
    Enumeration,
    Typedef,
    Function,
}

/// One declaration under a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) die: DieId,
    pub(crate) class: Class,
    /// Only a declaration (`struct foo;`, `int f(int);`).
    pub(crate) declaration: bool,
    /// Number of the namespace in [`Index::scopes`].
    pub(crate) scope: u32,
}

/// Names, and where they are declared.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: HashMap<Box<[u8]>, Vec<Found>>,
    addresses: HashMap<u64, DieId>,
    /// Namespaces, qualified; the first is the global one.
    pub(crate) scopes: Vec<String>,
}

impl Index {
    /// Reads all units. Trouble is noted in `units`, and what was found before it is kept.
    pub(crate) fn build(units: &mut Units, symbols: &Symbols) -> Self {
        let mut builder = Builder::new(symbols);
        let mut troubles = Vec::new();
        for number in (0u32..).take(units.members.len()) {
            if let Err(error) = builder.unit(units, number) {
                troubles.push((number, format!("a unit cannot be read to its end: {error}")));
            }
        }
        for (number, trouble) in troubles {
            units.note_unit(number, &trouble);
        }
        builder.index
    }

    /// All declarations under a simple name.
    pub(crate) fn named(&self, name: &str) -> &[Found] {
        self.names.get(name.as_bytes()).map_or(&[], Vec::as_slice)
    }

    /// The function that begins at an address.
    pub(crate) fn at(&self, address: u64) -> Option<DieId> {
        self.addresses.get(&address).copied()
    }

    /// The simple names of all declarations of one class, in no order.
    pub(crate) fn names(&self, class: Class) -> impl Iterator<Item = &[u8]> {
        self.names
            .iter()
            .filter(move |(_, found)| found.iter().any(|f| f.class == class))
            .map(|(name, _)| &**name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.addresses.is_empty()
    }
}

/// Multiplies and rotates: the keys are not chosen to collide with our constants, and a collision costs one entry.
#[derive(Default, Clone, Copy)]
struct FastHasher(u64);

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut()
                .zip(chunk)
                .for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 59));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type FastBuild = BuildHasherDefault<FastHasher>;

struct Builder<'a> {
    index: Index,
    symbols: &'a Symbols,
    wanted: HashSet<&'a [u8], FastBuild>,
    starts: HashSet<u64, FastBuild>,
    seen: HashSet<u64, FastBuild>,
    scopes: HashMap<String, u32>,
}

/// The attributes of a top-level entry that the index needs.
#[derive(Default)]
struct Facts {
    name: Option<Value>,
    linkage_name: Option<Value>,
    sibling: Option<usize>,
    declaration: bool,
    external: bool,
    has_signature: bool,
    low_pc: Option<Value>,
    ranges: Option<Value>,
    identity: [u64; 4],
}

impl<'a> Builder<'a> {
    fn new(symbols: &'a Symbols) -> Self {
        let names = symbols.exported.keys().chain(&symbols.imported);
        Self {
            index: Index {
                scopes: vec![String::new()],
                ..Index::default()
            },
            symbols,
            wanted: names.map(Vec::as_slice).collect(),
            starts: symbols.exported.values().copied().collect(),
            seen: HashSet::default(),
            scopes: HashMap::from([(String::new(), 0)]),
        }
    }

    fn unit(&mut self, units: &Units, number: u32) -> gimli::Result<()> {
        let Some(member) = units.member(number) else {
            return Ok(());
        };
        if member.is_skeleton {
            return Ok(());
        }
        let mut entries = member.unit.entries_raw(None)?;
        let mut base = 0;
        // The root, which is depth 0; its children are depth 1.
        match entries.read_abbreviation()? {
            Some(root) => entries.skip_attributes(root.attributes())?,
            None => return Ok(()),
        }
        // Open namespaces: depth of their children, and their number.
        let mut open: Vec<(isize, u32)> = vec![(1, 0)];
        while !entries.is_empty() {
            let depth = base + entries.next_depth();
            if depth < 1 {
                break;
            }
            while open.len() > 1 && open.last().is_some_and(|&(inside, _)| inside > depth) {
                open.pop();
            }
            let &(inside, scope) = open.last().unwrap_or(&(1, 0));
            let offset = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            if depth != inside {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let tag = abbreviation.tag();
            let facts = Self::facts(&mut entries, abbreviation.attributes())?;
            if tag == dw::DW_TAG_namespace || tag == dw::DW_TAG_module {
                if abbreviation.has_children() {
                    let name = facts
                        .name
                        .as_ref()
                        .and_then(|name| units.string(number, name));
                    open.push((depth + 1, self.scope(scope, name.as_deref())));
                }
                continue;
            }
            if let Some(class) = class_of(tag) {
                self.add(
                    units,
                    DieId {
                        unit: number,
                        offset: offset.0,
                    },
                    class,
                    scope,
                    &facts,
                );
            }
            if abbreviation.has_children()
                && let Some(sibling) = facts.sibling
                && sibling > entries.next_offset().0
            {
                entries = member.unit.entries_raw(Some(UnitOffset(sibling)))?;
                base = depth;
            }
        }
        Ok(())
    }

    fn facts(
        entries: &mut EntriesRaw<'_, Bytes>,
        specifications: &[AttributeSpecification],
    ) -> gimli::Result<Facts> {
        let mut facts = Facts::default();
        for &specification in specifications {
            let attribute = entries.read_attribute_inline(specification)?;
            match attribute.name() {
                dw::DW_AT_name => facts.name = Some(attribute.value()),
                dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => {
                    facts.linkage_name = Some(attribute.value());
                }
                dw::DW_AT_sibling => {
                    if let Value::UnitRef(offset) = attribute.value() {
                        facts.sibling = Some(offset.0);
                    }
                }
                dw::DW_AT_declaration => {
                    facts.declaration = matches!(attribute.value(), Value::Flag(true));
                }
                dw::DW_AT_external => {
                    facts.external = matches!(attribute.value(), Value::Flag(true));
                }
                dw::DW_AT_signature => facts.has_signature = true,
                dw::DW_AT_low_pc => facts.low_pc = Some(attribute.value()),
                dw::DW_AT_ranges => facts.ranges = Some(attribute.value()),
                dw::DW_AT_byte_size => facts.identity[0] = attribute.udata_value().unwrap_or(0),
                dw::DW_AT_decl_line => facts.identity[1] = attribute.udata_value().unwrap_or(0),
                dw::DW_AT_decl_column => facts.identity[2] = attribute.udata_value().unwrap_or(0),
                _ => {}
            }
        }
        Ok(facts)
    }

    fn add(&mut self, units: &Units, die: DieId, class: Class, scope: u32, facts: &Facts) {
        if class == Class::Function {
            return self.add_function(units, die, scope, facts);
        }
        let Some(name) = self.name(units, die, facts.name.as_ref()) else {
            return;
        };
        let declaration = facts.declaration || facts.has_signature;
        self.add_named(
            &slice(&name),
            Found {
                die,
                class,
                declaration,
                scope,
            },
            facts,
        );
    }

    fn add_function(&mut self, units: &Units, die: DieId, scope: u32, facts: &Facts) {
        for address in self.starts_of(units, die, facts) {
            self.index.addresses.entry(address).or_insert(die);
        }
        if !facts.external && !facts.declaration {
            return;
        }
        // A function with a linkage name of its own is not what a symbol with its plain name means.
        let value = facts.linkage_name.as_ref().or(facts.name.as_ref());
        let Some(name) = self.name(units, die, value) else {
            return;
        };
        let bytes = slice(&name);
        if !self.wanted.contains(&*bytes) {
            return;
        }
        self.add_named(
            &bytes,
            Found {
                die,
                class: Class::Function,
                declaration: facts.declaration,
                scope,
            },
            facts,
        );
    }

    /// Notes what was found under its name, unless the same thing was found in another unit.
    fn add_named(&mut self, name: &[u8], found: Found, facts: &Facts) {
        let mut identity = facts.identity;
        identity[3] = (u64::from(found.scope) << 8)
            | ((found.class as u64) << 1)
            | u64::from(found.declaration);
        if self.is_new(name, &identity) {
            self.index.names.entry(name.into()).or_default().push(found);
        }
    }

    /// The exported addresses at which a function begins; one whose cold part lies elsewhere has several ranges.
    fn starts_of(&self, units: &Units, die: DieId, facts: &Facts) -> Vec<u64> {
        let mut starts = Vec::new();
        let Some(member) = units.member(die.unit) else {
            return starts;
        };
        let Some(dwarf) = units.dwarf(member) else {
            return starts;
        };
        if let Some(value) = &facts.low_pc {
            starts.extend(
                dwarf
                    .attr_address(&member.unit, value.clone())
                    .ok()
                    .flatten(),
            );
        } else if let Some(value) = &facts.ranges
            && let Ok(Some(mut ranges)) = dwarf.attr_ranges(&member.unit, value.clone())
        {
            // Compilers write two or three; a list without an end is not read to it.
            while starts.len() < 16
                && let Ok(Some(range)) = ranges.next()
            {
                starts.push(range.begin);
            }
        }
        starts.retain(|address| *address != 0 && self.starts.contains(address));
        starts
    }

    fn name(&self, units: &Units, die: DieId, value: Option<&Value>) -> Option<Bytes> {
        let member = units.member(die.unit)?;
        units
            .dwarf(member)?
            .attr_string(&member.unit, value?.clone())
            .ok()
    }

    fn is_new(&mut self, name: &[u8], identity: &[u64; 4]) -> bool {
        let mut hasher = FastBuild::default().build_hasher();
        hasher.write(name);
        identity.iter().for_each(|&word| hasher.write_u64(word));
        self.seen.insert(hasher.finish())
    }

    fn scope(&mut self, parent: u32, name: Option<&str>) -> u32 {
        let prefix = self
            .index
            .scopes
            .get(parent as usize)
            .map_or("", String::as_str);
        let name = name.unwrap_or("(anonymous)");
        let qualified = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}::{name}")
        };
        let Ok(next) = u32::try_from(self.index.scopes.len()) else {
            return parent;
        };
        let number = *self.scopes.entry(qualified.clone()).or_insert(next);
        if number == next {
            self.index.scopes.push(qualified);
        }
        number
    }
}

impl std::fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("exported", &self.symbols.exported.len())
            .finish_non_exhaustive()
    }
}

fn slice(name: &Bytes) -> std::borrow::Cow<'_, [u8]> {
    name.to_slice().unwrap_or_default()
}

fn class_of(tag: dw::DwTag) -> Option<Class> {
    match tag {
        dw::DW_TAG_structure_type | dw::DW_TAG_class_type => Some(Class::Struct),
        dw::DW_TAG_union_type => Some(Class::Union),
        dw::DW_TAG_enumeration_type => Some(Class::Enumeration),
        dw::DW_TAG_typedef | dw::DW_TAG_template_alias => Some(Class::Typedef),
        dw::DW_TAG_subprogram => Some(Class::Function),
        _ => None,
    }
}
