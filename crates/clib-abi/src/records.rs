//! Records, enumerations, typedefs and functions: from an entry to its description.
//!
//! Anonymous members and base classes are flattened here, so that a record's fields are what a program can name.

use gimli::{EvaluationResult, Operation, Reader as _, constants as dw};

use crate::error::{Error, Result};
use crate::model::{
    Bits, DeclId, Enumeration, Field, Function, Kind, Location, Parameter, Record, RecordKind,
    Type, Typedef,
};
use crate::types::{Resolver, is_declaration, udata};
use crate::units::{Die, DieId, Value};

/// Deepest nesting of anonymous members.
const MAX_NESTING: u32 = 32;
/// Most fields of one record.
const MAX_FIELDS: usize = 65_536;

impl Resolver<'_> {
    /// Describes the record that `id` names.
    pub(crate) fn describe_record(&self, id: DeclId) -> Result<Record> {
        let unknown = || Error::UnknownId(id.0);
        let die = DieId::unpack(id).ok_or_else(unknown)?;
        let entry = self.units.entry(die).map_err(|_| unknown())?;
        let die = self.definition(die, &entry).unwrap_or(die);
        let entry = self.units.entry(die)?;
        let kind = match entry.tag {
            dw::DW_TAG_structure_type => RecordKind::Struct,
            dw::DW_TAG_class_type => RecordKind::Class,
            dw::DW_TAG_union_type => RecordKind::Union,
            _ => return Err(unknown()),
        };
        let mut fields = Vec::new();
        let defined = !is_declaration(&entry);
        if defined {
            self.fields(die, 0, kind == RecordKind::Union, 0, &mut fields)?;
        }
        Ok(Record {
            kind,
            name: self.qualified(die, &entry),
            id: die.pack(),
            size: udata(&entry, dw::DW_AT_byte_size).filter(|_| defined),
            fields,
            location: self.units.location(die.unit, &entry),
            language: self.language(die.unit),
        })
    }

    /// Appends the fields of a record that begins at byte `base` of the described one.
    fn fields(
        &self,
        id: DieId,
        base: u64,
        overlapping: bool,
        nesting: u32,
        fields: &mut Vec<Field>,
    ) -> Result<()> {
        for (_, child) in self.children(id)? {
            if fields.len() > MAX_FIELDS || nesting > MAX_NESTING {
                return Err(self.units.damaged(
                    id.unit,
                    format!("the record at {:#x} has no end", id.offset),
                ));
            }
            match child.tag {
                // A static member of a class: no part of the layout.
                dw::DW_TAG_member
                    if child.has_attr(dw::DW_AT_external) || is_declaration(&child) => {}
                dw::DW_TAG_member | dw::DW_TAG_inheritance => {
                    self.field(id.unit, &child, base, overlapping, nesting, fields)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn field(
        &self,
        unit: u32,
        entry: &Die,
        base: u64,
        overlapping: bool,
        nesting: u32,
        fields: &mut Vec<Field>,
    ) -> Result<()> {
        let Some(start) = member_offset(self, unit, entry) else {
            return Ok(());
        };
        let too_far = || {
            self.units.damaged(
                unit,
                format!("member at {:#x} lies beyond all memory", entry.offset.0),
            )
        };
        let offset = base
            .checked_add(start)
            .filter(|end| *end < 1 << 56)
            .ok_or_else(too_far)?;
        let name = self
            .attr_string(unit, entry, dw::DW_AT_name)
            .filter(|name| !name.is_empty());
        let ty = self.type_of(unit, entry, 0)?;
        let is_base = entry.tag == dw::DW_TAG_inheritance;
        if let Kind::Record { kind, id, .. } = &ty.kind
            && (name.is_none() || is_base)
            && let Some(inner) = DieId::unpack(*id)
        {
            return self.fields(
                inner,
                offset,
                overlapping || *kind == RecordKind::Union,
                nesting + 1,
                fields,
            );
        }
        let bits = bit_field(entry, offset, base, &ty);
        let offset = bits.map_or(offset, |bits| bits.offset / 8);
        let location = self.units.location(unit, entry);
        fields.push(Field {
            name,
            offset,
            bits,
            ty,
            overlapping,
            location,
        });
        Ok(())
    }

    /// Describes the enumeration that `id` names.
    pub(crate) fn describe_enumeration(&self, id: DeclId) -> Result<Enumeration> {
        let unknown = || Error::UnknownId(id.0);
        let die = DieId::unpack(id).ok_or_else(unknown)?;
        let entry = self.units.entry(die).map_err(|_| unknown())?;
        let die = self.definition(die, &entry).unwrap_or(die);
        let entry = self.units.entry(die)?;
        if entry.tag != dw::DW_TAG_enumeration_type {
            return Err(unknown());
        }
        let signed = self.enumeration_is_signed(die, &entry, 0)?;
        let mut constants = Vec::new();
        for (_, child) in self.children(die)? {
            if child.tag == dw::DW_TAG_enumerator
                && let Some(name) = self.attr_string(die.unit, &child, dw::DW_AT_name)
                && let Some(value) = child.attr(dw::DW_AT_const_value)
            {
                let signed_value = value.sdata_value().map(i128::from);
                let value = if signed {
                    signed_value
                } else {
                    value.udata_value().map(i128::from).or(signed_value)
                };
                constants.extend(value.map(|value| (name, value)));
            }
        }
        Ok(Enumeration {
            name: self.qualified(die, &entry),
            id: die.pack(),
            size: udata(&entry, dw::DW_AT_byte_size),
            signed,
            constants,
            location: self.units.location(die.unit, &entry),
        })
    }

    /// Describes a typedef.
    pub(crate) fn describe_typedef(&self, die: DieId) -> Result<Typedef> {
        let entry = self.units.entry(die)?;
        Ok(Typedef {
            name: self.qualified(die, &entry).unwrap_or_default(),
            ty: self.type_of(die.unit, &entry, 0)?,
            location: self.units.location(die.unit, &entry),
        })
    }

    /// Describes a function, putting together what its definition, its declaration and its inlined form say.
    pub(crate) fn describe_function(&self, die: DieId) -> Result<Function> {
        let mut chain = vec![(die, self.units.entry(die)?)];
        for _ in 0..4 {
            let Some((id, entry)) = chain.last() else {
                break;
            };
            let origin = entry
                .attr_value(dw::DW_AT_abstract_origin)
                .or_else(|| entry.attr_value(dw::DW_AT_specification));
            let Some(next) = origin.and_then(|origin| self.units.reference(id.unit, &origin))
            else {
                break;
            };
            chain.push((next, self.units.entry(next)?));
        }
        if chain
            .iter()
            .any(|(_, entry)| entry.tag != dw::DW_TAG_subprogram)
        {
            return Err(self.units.damaged(
                die.unit,
                format!("the function at {:#x} is none", die.offset),
            ));
        }
        let first = |name| {
            chain
                .iter()
                .find_map(|(id, entry)| self.attr_string(id.unit, entry, name))
        };
        let result = match chain
            .iter()
            .find(|(_, entry)| entry.has_attr(dw::DW_AT_type))
        {
            Some((id, entry)) => self.type_of(id.unit, entry, 0)?,
            None => crate::types::void(),
        };
        let (parameters, open) = self.merged_parameters(&chain)?;
        let prototyped = chain.iter().any(|(_, entry)| {
            matches!(
                entry.attr_value(dw::DW_AT_prototyped),
                Some(Value::Flag(true))
            )
        });
        let prototype = self.signature(die.unit, result, parameters, open, prototyped, false);
        let plain = first(dw::DW_AT_name).unwrap_or_default();
        let linkage_name =
            first(dw::DW_AT_linkage_name).or_else(|| first(dw::DW_AT_MIPS_linkage_name));
        let location: Option<Location> = chain
            .iter()
            .find_map(|(id, entry)| self.units.location(id.unit, entry));
        Ok(Function {
            linkage_name: linkage_name.filter(|name| *name != plain),
            name: plain,
            prototype,
            defined: !is_declaration(&chain[0].1),
            location,
            language: self.language(die.unit),
        })
    }

    /// The parameters that the entries of one function list. The declaration, which comes last, has all of them, where
    /// an optimised definition may have lost some; but only the definition need name them.
    fn merged_parameters(&self, chain: &[(DieId, Die)]) -> Result<(Vec<Parameter>, bool)> {
        let mut lists = Vec::new();
        for (id, _) in chain.iter().rev() {
            lists.push(self.parameters(*id, 0)?);
        }
        let full = lists
            .iter()
            .position(|(list, open)| !list.is_empty() || *open);
        let Some(full) = full else {
            return Ok((Vec::new(), false));
        };
        let (mut parameters, open) = lists.swap_remove(full);
        let count = parameters.len();
        for (list, _) in lists.iter().filter(|(list, _)| list.len() == count) {
            for (one, other) in parameters.iter_mut().zip(list) {
                if one.name.is_none() {
                    one.name.clone_from(&other.name);
                }
            }
        }
        Ok((parameters, open))
    }
}

/// Offset of a member in its record; `None` where it is only known at run time (virtual base classes). A member
/// without a location is at 0, as in unions.
fn member_offset(resolver: &Resolver<'_>, unit: u32, entry: &Die) -> Option<u64> {
    let Some(location) = entry.attr(dw::DW_AT_data_member_location) else {
        return Some(0);
    };
    if let Value::Exprloc(expression) = location.value() {
        let encoding = resolver.units.member(unit)?.unit.encoding();
        let mut operations = expression.clone().operations(encoding);
        return match operations.next() {
            Ok(Some(Operation::PlusConstant { value }))
                if matches!(operations.next(), Ok(None)) =>
            {
                Some(value)
            }
            _ => constant_expression(expression, encoding),
        };
    }
    location.udata_value()
}

/// Old compilers push the constant and add it.
fn constant_expression(
    expression: gimli::Expression<crate::files::Bytes>,
    encoding: gimli::Encoding,
) -> Option<u64> {
    if expression.0.len() > 32 {
        return None;
    }
    let mut evaluation = expression.evaluation(encoding);
    evaluation.set_initial_value(0);
    evaluation.set_max_iterations(16);
    match evaluation.evaluate().ok()? {
        EvaluationResult::Complete => match evaluation.result().first()?.location {
            gimli::Location::Address { address } => Some(address),
            _ => None,
        },
        _ => None,
    }
}

/// Position of a bit field, from either of the two ways to say it.
fn bit_field(entry: &Die, offset: u64, base: u64, ty: &Type) -> Option<Bits> {
    let width = udata(entry, dw::DW_AT_bit_size)?;
    if let Some(start) = udata(entry, dw::DW_AT_data_bit_offset) {
        return Some(Bits {
            offset: base.checked_mul(8)?.checked_add(start)?,
            width,
        });
    }
    // Until DWARF 3: counted from the most significant bit of the storage unit.
    let storage = udata(entry, dw::DW_AT_byte_size)
        .or(ty.size)?
        .checked_mul(8)?;
    let from_top = udata(entry, dw::DW_AT_bit_offset).unwrap_or(0);
    let start = offset
        .checked_mul(8)?
        .checked_add(storage)?
        .checked_sub(from_top.checked_add(width)?)?;
    Some(Bits {
        offset: start,
        width,
    })
}
