//! Writes to the standard header: one register a call, a short write merged into the register's bytes.

use super::error::Error;
use super::event::{Event, Events};
use super::region::{BARS, FLAG_64_BITS, FLAG_MEM, ROM, Regions};
use super::regs::{
    BASE_ADDRESS_0, BASE_ADDRESS_IO_FLAGS, BASE_ADDRESS_MEM_FLAGS, CACHE_LINE_SIZE, CLASS_PROG,
    COMMAND, COMMAND_WRITABLE, INTERRUPT_LINE, INTERRUPT_PIN, LATENCY_TIMER, MAX_LAT, MIN_GNT,
    REVISION_ID, ROM_ADDRESS, ROM_ADDRESS_ENABLE, ROM_ADDRESS_MASK, STATUS, STATUS_RW1C,
};
use super::space::ConfigSpace;

/// First byte behind the BARs.
const BARS_END: usize = BASE_ADDRESS_0 + 4 * BARS;

/// Writes the register that starts at `offset` (below 64) and returns how many bytes of `data` it took.
pub(super) fn write(
    space: &ConfigSpace,
    regions: &impl Regions,
    offset: usize,
    data: &[u8],
    events: &mut Events,
) -> Result<usize, Error> {
    let size = match offset {
        COMMAND | STATUS => 2,
        CLASS_PROG => 3,
        BASE_ADDRESS_0..BARS_END if offset.is_multiple_of(4) => 4,
        ROM_ADDRESS => 4,
        REVISION_ID | CACHE_LINE_SIZE | LATENCY_TIMER | INTERRUPT_LINE | INTERRUPT_PIN
        | MIN_GNT | MAX_LAT => 1,
        _ => {
            return Err(Error::BadWrite {
                offset: offset as u64,
                len: data.len(),
            });
        }
    };
    let len = size.min(data.len());
    let bytes = data.get(..len).unwrap_or(data);
    match offset {
        COMMAND => command(space, merge16(space.u16(COMMAND), 0, bytes), events),
        STATUS => status(space, merge16(0, 0, bytes), events),
        BASE_ADDRESS_0..BARS_END => {
            bar(
                space,
                regions,
                (offset - BASE_ADDRESS_0) / 4,
                merge32(space.u32(offset), bytes),
                events,
            );
        }
        ROM_ADDRESS => rom(
            space,
            regions,
            merge32(space.u32(ROM_ADDRESS), bytes),
            events,
        ),
        CACHE_LINE_SIZE => set_byte(space, offset, "cache line size", bytes, events),
        LATENCY_TIMER => set_byte(space, offset, "latency timer", bytes, events),
        INTERRUPT_LINE => set_byte(space, offset, "interrupt line", bytes, events),
        // Read-only registers that operating systems write: ignored.
        _ => {}
    }
    Ok(len)
}

/// Replaces bytes of a 16-bit register from byte `at`; bytes beyond it are dropped.
pub(super) fn merge16(old: u16, at: usize, bytes: &[u8]) -> u16 {
    let mut merged = old.to_le_bytes();
    for (to, from) in merged.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
    u16::from_le_bytes(merged)
}

fn merge32(old: u32, bytes: &[u8]) -> u32 {
    let mut merged = old.to_le_bytes();
    for (to, from) in merged.iter_mut().zip(bytes) {
        *to = *from;
    }
    u32::from_le_bytes(merged)
}

fn set_byte(
    space: &ConfigSpace,
    offset: usize,
    name: &'static str,
    bytes: &[u8],
    events: &mut Events,
) {
    if let Some(&value) = bytes.first() {
        space.set_u8(offset, value);
        events.push(Event::RegisterSet {
            name,
            value: u32::from(value),
        });
    }
}

fn command(space: &ConfigSpace, value: u16, events: &mut Events) {
    let old = space.u16(COMMAND);
    let new = (old & !COMMAND_WRITABLE) | (value & COMMAND_WRITABLE);
    let ignored = (value ^ old) & !COMMAND_WRITABLE;
    if ignored != 0 {
        events.push(Event::CommandBitsIgnored { bits: ignored });
    }
    if new != old {
        space.set_u16(COMMAND, new);
        events.push(Event::CommandChanged { old, new });
    }
}

fn status(space: &ConfigSpace, written: u16, events: &mut Events) {
    let old = space.u16(STATUS);
    let cleared = old & written & STATUS_RW1C;
    if cleared != 0 {
        space.set_u16(STATUS, old & !cleared);
    }
    events.push(Event::StatusWritten { cleared });
}

fn bar(
    space: &ConfigSpace,
    regions: &impl Regions,
    index: usize,
    written: u32,
    events: &mut Events,
) {
    let register = BASE_ADDRESS_0 + 4 * index;
    let lower = if index % 2 == 1 {
        Some(regions.region(index - 1))
    } else {
        None
    };
    let (address, flags) = match lower {
        Some(lower) if lower.has(FLAG_64_BITS) => (high(address_mask(lower.size)), 0),
        _ => {
            let region = regions.region(index);
            let flags = if region.has(FLAG_MEM) {
                BASE_ADDRESS_MEM_FLAGS
            } else {
                BASE_ADDRESS_IO_FLAGS
            };
            (low(address_mask(region.size)), flags)
        }
    };
    let value = (written & address & !flags) | (space.u32(register) & flags);
    space.set_u32(register, value);
    events.push(Event::BarWritten {
        index,
        written,
        value,
    });
}

/// Address bits that a client can set in a BAR of `size` bytes: none if it does not exist.
const fn address_mask(size: u64) -> u64 {
    if size == 0 { 0 } else { !(size - 1) }
}

const fn low(mask: u64) -> u32 {
    (mask & 0xffff_ffff) as u32
}

const fn high(mask: u64) -> u32 {
    (mask >> 32) as u32
}

fn rom(space: &ConfigSpace, regions: &impl Regions, written: u32, events: &mut Events) {
    let size = regions.region(ROM).size;
    if size == 0 {
        if written == 0 {
            space.set_u32(ROM_ADDRESS, 0);
        } else {
            events.push(Event::RomWriteIgnored { value: written });
        }
        return;
    }
    // ROM regions may have any size; decoders have powers of two.
    let mask = size.checked_next_power_of_two().map_or(0, address_mask);
    let value = written & ((low(mask) & ROM_ADDRESS_MASK) | ROM_ADDRESS_ENABLE);
    space.set_u32(ROM_ADDRESS, value);
    events.push(Event::RegisterSet {
        name: "ROM BAR",
        value,
    });
}
