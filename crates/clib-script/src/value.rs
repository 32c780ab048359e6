//! Numbers and byte strings that differ for each iteration or instance.
//!
//! A value is a pure function of (iteration, instance): runs with the same seed
//! send the same bytes, whatever the number of threads.

/// A 64-bit number, worked out anew in each iteration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The same number each time.
    Constant(u64),
    /// `start + step * iteration`, modulo 2^64; then modulo `wrap` unless that is 0.
    Counter {
        /// The number in iteration 0.
        start: u64,
        /// What each iteration adds.
        step: u64,
        /// The number of different values; 0 for no limit.
        wrap: u64,
    },
    /// A number from `low` to `high` inclusive, drawn from `seed` and the iteration.
    Random {
        /// Names the sequence.
        seed: u64,
        /// Smallest result.
        low: u64,
        /// Largest result; at least `low`.
        high: u64,
    },
    /// The numbers of a list in turn. An empty list yields 0.
    List(Vec<u64>),
    /// The number that the running instance has at this index; 0 if it has none.
    Instance(usize),
}

impl Value {
    /// The number for `iteration` of an instance whose own numbers are `instance`.
    #[must_use]
    pub fn at(&self, iteration: u64, instance: &[u64]) -> u64 {
        match self {
            Self::Constant(number) => *number,
            Self::Counter { start, step, wrap } => {
                let turn = if *wrap == 0 {
                    iteration
                } else {
                    iteration % wrap
                };
                start.wrapping_add(step.wrapping_mul(turn))
            }
            Self::Random { seed, low, high } => within(mix(*seed, iteration), *low, *high),
            Self::List(numbers) => usize::try_from(iteration)
                .ok()
                .and_then(|turn| turn.checked_rem(numbers.len()))
                .map_or(0, |turn| numbers[turn]),
            Self::Instance(index) => instance.get(*index).copied().unwrap_or(0),
        }
    }
}

/// `SplitMix64`: one well-mixed number for each (seed, iteration).
fn mix(seed: u64, iteration: u64) -> u64 {
    let mut z = seed.wrapping_add(
        iteration
            .wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15),
    );
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn within(random: u64, low: u64, high: u64) -> u64 {
    match high.saturating_sub(low).checked_add(1) {
        None => random,
        Some(span) => {
            let scaled = (u128::from(random) * u128::from(span)) >> 64;
            // The product is below span * 2^64, so its upper half fits in 64 bits.
            low.wrapping_add(u64::try_from(scaled).unwrap_or(0))
        }
    }
}

/// A byte string with numbers in it that differ for each iteration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    fixed: Vec<u8>,
    patches: Vec<Patch>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Patch {
    offset: usize,
    width: usize,
    value: Value,
}

impl Bytes {
    /// Bytes that are always the same.
    #[must_use]
    pub fn fixed(bytes: Vec<u8>) -> Self {
        Self {
            fixed: bytes,
            patches: Vec::new(),
        }
    }

    /// Puts the low `width` bytes (1 to 8, little-endian) of `value` at `offset`.
    ///
    /// # Errors
    ///
    /// A sentence, if the width is not 1 to 8 or the field does not lie within the bytes.
    pub fn patch(&mut self, offset: usize, width: usize, value: Value) -> Result<(), String> {
        if !(1..=8).contains(&width) {
            return Err(format!("a value of {width} bytes: 1 to 8 are possible"));
        }
        if offset
            .checked_add(width)
            .is_none_or(|end| end > self.fixed.len())
        {
            return Err(format!(
                "a value of {width} bytes at offset {offset} does not fit into {} bytes",
                self.fixed.len()
            ));
        }
        self.patches.push(Patch {
            offset,
            width,
            value,
        });
        Ok(())
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fixed.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty()
    }

    /// A buffer for [`Bytes::write`], with the bytes that never change.
    #[must_use]
    pub fn buffer(&self) -> Vec<u8> {
        self.fixed.clone()
    }

    /// Brings a buffer from [`Bytes::buffer`] up to date for `iteration`.
    pub fn write(&self, buffer: &mut [u8], iteration: u64, instance: &[u64]) {
        for Patch {
            offset,
            width,
            value,
        } in &self.patches
        {
            let number = value.at(iteration, instance).to_le_bytes();
            buffer[*offset..*offset + *width].copy_from_slice(&number[..*width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_wraps_by_turns() {
        let value = Value::Counter {
            start: 8,
            step: 4,
            wrap: 3,
        };
        let seen: Vec<u64> = (0..5).map(|turn| value.at(turn, &[])).collect();
        assert_eq!(seen, [8, 12, 16, 8, 12]);
    }

    #[test]
    fn random_stays_within_its_bounds_and_repeats_by_seed() {
        let value = Value::Random {
            seed: 7,
            low: 10,
            high: 12,
        };
        let seen: Vec<u64> = (0..200).map(|turn| value.at(turn, &[])).collect();
        assert!(seen.iter().all(|number| (10..=12).contains(number)));
        assert!([10, 11, 12].iter().all(|number| seen.contains(number)));
        assert_eq!(seen[5], value.at(5, &[]));
        let all = Value::Random {
            seed: 7,
            low: 0,
            high: u64::MAX,
        };
        assert_ne!(all.at(0, &[]), all.at(1, &[]));
    }

    #[test]
    fn lists_and_instances_tolerate_being_short() {
        assert_eq!(Value::List(vec![]).at(3, &[]), 0);
        assert_eq!(Value::List(vec![5, 6]).at(3, &[]), 6);
        assert_eq!(Value::Instance(1).at(0, &[4]), 0);
        assert_eq!(Value::Instance(0).at(0, &[4]), 4);
    }

    #[test]
    fn a_patch_outside_the_bytes_is_refused() {
        let mut bytes = Bytes::fixed(vec![0; 4]);
        assert!(bytes.patch(1, 4, Value::Constant(1)).is_err());
        assert!(bytes.patch(usize::MAX, 4, Value::Constant(1)).is_err());
        assert!(bytes.patch(0, 9, Value::Constant(1)).is_err());
        bytes.patch(2, 2, Value::Constant(0x1_0203)).unwrap();
        let mut buffer = bytes.buffer();
        bytes.write(&mut buffer, 0, &[]);
        assert_eq!(buffer, [0, 0, 3, 2]);
    }
}
