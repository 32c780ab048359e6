//! Types: from an entry to a [`Type`].
//!
//! 1. The walk stops at records and enumerations, so it ends for every type that a compiler can write.
//! 2. For what no compiler writes there are two limits, on depth and on the number of types in one answer. Reaching
//!    one is damage.
//! 3. What Rust says differently is put as C would: `Option<fn>` is a pointer, `c_void`, `()` and `!` are `void`.

use std::cell::Cell;

use gimli::{UnitOffset, constants as dw};

use crate::error::Result;
use crate::index::Index;
use crate::model::{Kind, Language, Parameter, Prototype, Qualifiers, RecordKind, Type};
use crate::units::{Die, DieId, Units, Value};

/// Deepest nesting of one type; compilers stay below it by two orders of magnitude.
const MAX_DEPTH: u32 = 256;
/// Most types in one answer.
const MAX_TYPES: u32 = 100_000;

/// Reads entries for one answer.
pub(crate) struct Resolver<'a> {
    pub(crate) units: &'a Units,
    pub(crate) index: &'a Index,
    types: Cell<u32>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(units: &'a Units, index: &'a Index) -> Self {
        Self {
            units,
            index,
            types: Cell::new(0),
        }
    }

    /// The type that an entry's `DW_AT_type` names; `void` if it has none.
    pub(crate) fn type_of(&self, unit: u32, entry: &Die, depth: u32) -> Result<Type> {
        match entry.attr_value(dw::DW_AT_type) {
            None => Ok(void()),
            Some(value) => match self.units.reference(unit, &value) {
                Some(id) => self.resolve(id, depth),
                None => Err(self.units.damaged(
                    unit,
                    format!("entry {:#x} has a type that is nowhere", entry.offset.0),
                )),
            },
        }
    }

    /// The type that an entry is.
    pub(crate) fn resolve(&self, id: DieId, depth: u32) -> Result<Type> {
        let mut qualifiers = Qualifiers::default();
        let mut typedefs = Vec::new();
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            self.count(id, depth)?;
            let entry = self.units.entry(id)?;
            match entry.tag {
                dw::DW_TAG_typedef | dw::DW_TAG_template_alias => {
                    typedefs.extend(self.attr_string(id.unit, &entry, dw::DW_AT_name));
                }
                dw::DW_TAG_const_type | dw::DW_TAG_immutable_type if typedefs.is_empty() => {
                    qualifiers.constant = true;
                }
                dw::DW_TAG_volatile_type if typedefs.is_empty() => qualifiers.volatile = true,
                dw::DW_TAG_restrict_type if typedefs.is_empty() => qualifiers.restrict = true,
                dw::DW_TAG_atomic_type if typedefs.is_empty() => qualifiers.atomic = true,
                // Below a typedef they are part of what it stands for.
                dw::DW_TAG_const_type
                | dw::DW_TAG_immutable_type
                | dw::DW_TAG_volatile_type
                | dw::DW_TAG_restrict_type
                | dw::DW_TAG_atomic_type
                | dw::DW_TAG_packed_type
                | dw::DW_TAG_shared_type => {}
                _ => {
                    let (kind, size) = self.kind(id, &entry, depth)?;
                    return Ok(Type {
                        qualifiers,
                        typedefs,
                        size,
                        kind,
                    });
                }
            }
            match entry.attr_value(dw::DW_AT_type) {
                None => {
                    return Ok(Type {
                        qualifiers,
                        typedefs,
                        size: None,
                        kind: Kind::Void,
                    });
                }
                Some(value) => {
                    id = self.units.reference(id.unit, &value).ok_or_else(|| {
                        self.units.damaged(
                            id.unit,
                            format!("entry {:#x} has a type that is nowhere", entry.offset.0),
                        )
                    })?;
                }
            }
        }
        Err(self
            .units
            .damaged(id.unit, "a chain of typedefs without an end"))
    }

    fn count(&self, id: DieId, depth: u32) -> Result<()> {
        let types = self.types.get().saturating_add(1);
        self.types.set(types);
        if types > MAX_TYPES || depth > MAX_DEPTH {
            return Err(self
                .units
                .damaged(id.unit, format!("the type at {:#x} has no end", id.offset)));
        }
        Ok(())
    }

    fn kind(&self, id: DieId, entry: &Die, depth: u32) -> Result<(Kind, Option<u64>)> {
        let unit = id.unit;
        let size = udata(entry, dw::DW_AT_byte_size);
        let name = || {
            self.attr_string(unit, entry, dw::DW_AT_name)
                .unwrap_or_default()
        };
        Ok(match entry.tag {
            dw::DW_TAG_base_type => base_kind(entry, name(), size),
            dw::DW_TAG_pointer_type
            | dw::DW_TAG_reference_type
            | dw::DW_TAG_rvalue_reference_type => {
                let to = Box::new(self.type_of(unit, entry, depth + 1)?);
                (
                    Kind::Pointer {
                        to,
                        reference: entry.tag != dw::DW_TAG_pointer_type,
                    },
                    Some(size.unwrap_or(8)),
                )
            }
            dw::DW_TAG_structure_type => self.record(id, entry, RecordKind::Struct, depth)?,
            dw::DW_TAG_class_type => self.record(id, entry, RecordKind::Class, depth)?,
            dw::DW_TAG_union_type => self.record(id, entry, RecordKind::Union, depth)?,
            dw::DW_TAG_enumeration_type => self.enumeration(id, entry, depth)?,
            dw::DW_TAG_subroutine_type => (
                Kind::Function(Box::new(self.prototype(id, entry, depth)?)),
                None,
            ),
            dw::DW_TAG_array_type => self.array(id, entry, depth)?,
            dw::DW_TAG_subrange_type => {
                let under = self.type_of(unit, entry, depth + 1)?;
                (under.kind, size.or(under.size))
            }
            _ => (Kind::Other { name: name() }, size),
        })
    }

    fn record(
        &self,
        id: DieId,
        entry: &Die,
        kind: RecordKind,
        depth: u32,
    ) -> Result<(Kind, Option<u64>)> {
        let definition = self.definition(id, entry);
        let other;
        let (id, entry) = match definition {
            Some(found) if found != id => {
                other = self.units.entry(found)?;
                (found, &other)
            }
            _ => (id, entry),
        };
        let size = udata(entry, dw::DW_AT_byte_size).filter(|_| !is_declaration(entry));
        let name = self.qualified(id, entry);
        if self.language(id.unit) == Language::Rust
            && let Some(inner) = self.rust_option(id, entry, size, depth)?
        {
            return Ok((inner, size));
        }
        Ok((
            Kind::Record {
                kind,
                name,
                id: id.pack(),
            },
            size,
        ))
    }

    /// `Option` of a pointer, reference or function is a nullable pointer.
    fn rust_option(
        &self,
        id: DieId,
        entry: &Die,
        size: Option<u64>,
        depth: u32,
    ) -> Result<Option<Kind>> {
        let name = self.attr_string(id.unit, entry, dw::DW_AT_name);
        if size != Some(8) || !name.is_some_and(|name| name.starts_with("Option<")) {
            return Ok(None);
        }
        for (child, some) in self.children(id)? {
            let is_some = some.tag == dw::DW_TAG_structure_type
                && self.attr_string(id.unit, &some, dw::DW_AT_name).as_deref() == Some("Some");
            if !is_some {
                continue;
            }
            for (_, member) in self.children(child)? {
                if member.tag == dw::DW_TAG_member {
                    let inner = self.type_of(id.unit, &member, depth + 1)?;
                    return Ok((inner.size == Some(8)).then_some(inner.kind));
                }
            }
        }
        Ok(None)
    }

    fn enumeration(&self, id: DieId, entry: &Die, depth: u32) -> Result<(Kind, Option<u64>)> {
        let id = self.definition(id, entry).unwrap_or(id);
        let entry = self.units.entry(id)?;
        let name = self.qualified(id, &entry);
        if self.language(id.unit) == Language::Rust
            && name
                .as_deref()
                .is_some_and(|name| name == "c_void" || name.ends_with("::c_void"))
        {
            return Ok((Kind::Void, None));
        }
        let signed = self.enumeration_is_signed(id, &entry, depth)?;
        Ok((
            Kind::Enumeration {
                name,
                id: id.pack(),
                signed,
            },
            udata(&entry, dw::DW_AT_byte_size),
        ))
    }

    /// Signedness of an enumeration: from its underlying type, else from its constants.
    pub(crate) fn enumeration_is_signed(&self, id: DieId, entry: &Die, depth: u32) -> Result<bool> {
        if entry.has_attr(dw::DW_AT_type) {
            let under = self.type_of(id.unit, entry, depth + 1)?;
            return Ok(matches!(
                under.kind,
                Kind::Integer { signed: true, .. } | Kind::Character { signed: true, .. }
            ));
        }
        if let Some(Value::Encoding(encoding)) = entry.attr_value(dw::DW_AT_encoding) {
            return Ok(matches!(
                encoding,
                dw::DW_ATE_signed | dw::DW_ATE_signed_char
            ));
        }
        let children = self.children(id)?;
        Ok(children.iter().any(|(_, child)| {
            matches!(child.attr_value(dw::DW_AT_const_value), Some(Value::Sdata(value)) if value < 0)
        }))
    }

    fn array(&self, id: DieId, entry: &Die, depth: u32) -> Result<(Kind, Option<u64>)> {
        let element = self.type_of(id.unit, entry, depth + 1)?;
        if matches!(
            entry.attr_value(dw::DW_AT_GNU_vector),
            Some(Value::Flag(true))
        ) {
            return Ok((
                Kind::Other {
                    name: "vector".into(),
                },
                udata(entry, dw::DW_AT_byte_size),
            ));
        }
        let mut counts = Vec::new();
        for (_, child) in self.children(id)? {
            if child.tag == dw::DW_TAG_subrange_type {
                counts.push(subrange_count(&child));
            }
        }
        if counts.is_empty() {
            counts.push(None);
        }
        let mut ty = element;
        for count in counts.into_iter().rev() {
            let size = ty
                .size
                .zip(count)
                .and_then(|(size, count)| size.checked_mul(count));
            ty = Type {
                qualifiers: Qualifiers::default(),
                typedefs: Vec::new(),
                size,
                kind: Kind::Array {
                    element: Box::new(ty),
                    count,
                },
            };
        }
        Ok((ty.kind, ty.size))
    }

    /// The signature of a subroutine type or of a function whose parameters are children of `id`.
    pub(crate) fn prototype(&self, id: DieId, entry: &Die, depth: u32) -> Result<Prototype> {
        let result = self.type_of(id.unit, entry, depth + 1)?;
        let (parameters, open) = self.parameters(id, depth)?;
        let prototyped = matches!(
            entry.attr_value(dw::DW_AT_prototyped),
            Some(Value::Flag(true))
        );
        Ok(self.signature(
            id.unit,
            result,
            parameters,
            open,
            prototyped,
            entry.tag == dw::DW_TAG_subroutine_type,
        ))
    }

    /// Judges what the parameters that were found amount to.
    pub(crate) fn signature(
        &self,
        unit: u32,
        result: Type,
        parameters: Vec<Parameter>,
        open: bool,
        prototyped: bool,
        is_type: bool,
    ) -> Prototype {
        let (variadic, complete) = match self.language(unit) {
            // `int f()`: the ellipsis stands for "not said".
            Language::C | Language::Other if !prototyped => {
                (open && !parameters.is_empty(), !parameters.is_empty())
            }
            Language::Rust => (open, is_type),
            _ => (open, true),
        };
        Prototype {
            result,
            parameters,
            variadic,
            complete,
        }
    }

    /// Parameters among the children of an entry, and whether an ellipsis follows.
    pub(crate) fn parameters(&self, id: DieId, depth: u32) -> Result<(Vec<Parameter>, bool)> {
        let mut parameters = Vec::new();
        let mut open = false;
        for (_, child) in self.children(id)? {
            match child.tag {
                dw::DW_TAG_formal_parameter => {
                    parameters.push(self.parameter(id.unit, child, depth)?);
                }
                dw::DW_TAG_unspecified_parameters => open = true,
                _ => {}
            }
        }
        Ok((parameters, open))
    }

    fn parameter(&self, unit: u32, entry: Die, depth: u32) -> Result<Parameter> {
        let (mut unit, mut entry) = (unit, entry);
        let mut name = self.attr_string(unit, &entry, dw::DW_AT_name);
        for _ in 0..4 {
            if entry.has_attr(dw::DW_AT_type) {
                break;
            }
            let Some(origin) = entry.attr_value(dw::DW_AT_abstract_origin) else {
                break;
            };
            let Some(id) = self.units.reference(unit, &origin) else {
                break;
            };
            (unit, entry) = (id.unit, self.units.entry(id)?);
            name = name.or_else(|| self.attr_string(unit, &entry, dw::DW_AT_name));
        }
        Ok(Parameter {
            name,
            ty: self.type_of(unit, &entry, depth + 1)?,
        })
    }

    /// Direct children of an entry.
    pub(crate) fn children(&self, id: DieId) -> Result<Vec<(DieId, Die)>> {
        let damaged = |error: gimli::Error| {
            self.units
                .damaged(id.unit, format!("entry {:#x}: {error}", id.offset))
        };
        let Some(member) = self.units.member(id.unit) else {
            return Ok(Vec::new());
        };
        let mut children = Vec::new();
        let mut cursor = member
            .unit
            .entries_at_offset(UnitOffset(id.offset))
            .map_err(damaged)?;
        if cursor
            .next_dfs()
            .map_err(damaged)?
            .is_none_or(|entry| !entry.has_children)
        {
            return Ok(children);
        }
        let mut next = cursor.next_dfs().map_err(damaged)?.cloned();
        if next.as_ref().is_some_and(|entry| entry.depth < 1) {
            return Ok(children);
        }
        while let Some(entry) = next {
            let child = DieId {
                unit: id.unit,
                offset: entry.offset.0,
            };
            children.push((child, entry));
            if children.len() > MAX_TYPES as usize {
                return Err(self.units.damaged(
                    id.unit,
                    format!("entry {:#x} has too many children", id.offset),
                ));
            }
            next = cursor.next_sibling().map_err(damaged)?.cloned();
        }
        Ok(children)
    }

    pub(crate) fn language(&self, unit: u32) -> Language {
        self.units
            .member(unit)
            .map_or(Language::Other, |member| member.language)
    }

    pub(crate) fn attr_string(&self, unit: u32, entry: &Die, name: dw::DwAt) -> Option<String> {
        self.units.string(unit, &entry.attr_value(name)?)
    }

    /// Where a record or enumeration that is only declared here is defined: in a type unit, or under its name.
    pub(crate) fn definition(&self, id: DieId, entry: &Die) -> Option<DieId> {
        if let Some(signature) = entry.attr_value(dw::DW_AT_signature) {
            return self.units.reference(id.unit, &signature);
        }
        if !is_declaration(entry) {
            return Some(id);
        }
        let name = self.attr_string(id.unit, entry, dw::DW_AT_name)?;
        let mut fallback = None;
        for found in self
            .index
            .named(&name)
            .iter()
            .filter(|found| !found.declaration)
        {
            let candidate = self.units.entry(found.die).ok()?;
            let alike =
                candidate.tag == entry.tag || (is_class(candidate.tag) && is_class(entry.tag));
            if !alike {
                continue;
            }
            if found.scope == 0 {
                return Some(found.die);
            }
            fallback.get_or_insert(found.die);
        }
        // A declaration does not say its namespace here; a definition in one is meant only if it is the only one.
        fallback.filter(|_| {
            self.index
                .named(&name)
                .iter()
                .filter(|found| !found.declaration)
                .count()
                == 1
        })
    }

    /// Name with namespaces, if the entry is known at the top level; its plain name otherwise.
    pub(crate) fn qualified(&self, id: DieId, entry: &Die) -> Option<String> {
        let name = self.attr_string(id.unit, entry, dw::DW_AT_name)?;
        let scope = self
            .index
            .named(&name)
            .iter()
            .find(|found| found.die == id)
            .map_or(0, |found| found.scope);
        match self.index.scopes.get(scope as usize) {
            Some(scope) if !scope.is_empty() => Some(format!("{scope}::{name}")),
            _ => Some(name),
        }
    }
}

pub(crate) fn void() -> Type {
    Type {
        qualifiers: Qualifiers::default(),
        typedefs: Vec::new(),
        size: None,
        kind: Kind::Void,
    }
}

pub(crate) fn udata(entry: &Die, name: dw::DwAt) -> Option<u64> {
    entry.attr(name)?.udata_value()
}

pub(crate) fn is_declaration(entry: &Die) -> bool {
    matches!(
        entry.attr_value(dw::DW_AT_declaration),
        Some(Value::Flag(true))
    )
}

fn is_class(tag: dw::DwTag) -> bool {
    matches!(tag, dw::DW_TAG_structure_type | dw::DW_TAG_class_type)
}

fn base_kind(entry: &Die, name: String, size: Option<u64>) -> (Kind, Option<u64>) {
    let encoding = match entry.attr_value(dw::DW_AT_encoding) {
        Some(Value::Encoding(encoding)) => encoding,
        _ => dw::DwAte(0),
    };
    if size == Some(0) {
        return (Kind::Void, None);
    }
    let kind = match encoding {
        dw::DW_ATE_boolean => Kind::Boolean { name },
        dw::DW_ATE_float => Kind::Float { name },
        dw::DW_ATE_signed => Kind::Integer { name, signed: true },
        dw::DW_ATE_unsigned | dw::DW_ATE_address => Kind::Integer {
            name,
            signed: false,
        },
        dw::DW_ATE_signed_char => Kind::Character { name, signed: true },
        dw::DW_ATE_unsigned_char | dw::DW_ATE_UTF | dw::DW_ATE_ASCII | dw::DW_ATE_UCS => {
            Kind::Character {
                name,
                signed: false,
            }
        }
        _ => Kind::Other { name },
    };
    (kind, size)
}

/// Number of elements; `None` if the entry does not say, or says it by an expression.
fn subrange_count(entry: &Die) -> Option<u64> {
    if let Some(count) = udata(entry, dw::DW_AT_count) {
        return Some(count);
    }
    let upper = entry.attr(dw::DW_AT_upper_bound)?;
    // `int a[0]` has an upper bound of -1.
    if upper.sdata_value() == Some(-1) {
        return Some(0);
    }
    upper.udata_value()?.checked_add(1)
}
