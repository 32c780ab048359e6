//! Migration states, and the way from one to another.
//!
//! Numbers on the wire are those of `enum vfio_user_device_mig_state`; numbers towards devices those of
//! `vfu_migr_state_t`. ERROR and the peer-to-peer states exist on the wire only.

/// What a device can be told to do. The numbers are those of `vfu_migr_state_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MigrationState {
    /// Stand still, change nothing, write to no client memory.
    Stop = 0,
    /// Normal operation.
    Running = 1,
    /// Stand still, and give out the rest of the state.
    StopCopy = 2,
    /// Run, and give out state that will not change, or little.
    PreCopy = 3,
    /// Stand still, and take in state.
    Resume = 4,
}

use MigrationState::{PreCopy, Resume, Running, Stop, StopCopy};

impl MigrationState {
    /// From the number on the wire; `None` for states that no device can be asked for.
    #[must_use]
    pub const fn from_wire(state: u32) -> Option<Self> {
        Some(match state {
            1 => Stop,
            2 => Running,
            3 => StopCopy,
            4 => Resume,
            6 => PreCopy,
            _ => return None,
        })
    }

    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        match self {
            Stop => 1,
            Running => 2,
            StopCopy => 3,
            Resume => 4,
            PreCopy => 6,
        }
    }

    /// The next state on the shortest way to `target`; `None` when there is no way, or this is it.
    #[must_use]
    pub const fn step_to(self, target: Self) -> Option<Self> {
        Some(match (self, target) {
            (Stop, Running | PreCopy) | (PreCopy, Stop | Running | Resume) => Running,
            (Stop, StopCopy) | (PreCopy, StopCopy) => StopCopy,
            (Stop, Resume) => Resume,
            (Running, PreCopy) => PreCopy,
            (Running, Stop | StopCopy | Resume) => Stop,
            (StopCopy, Stop | Running | Resume) => Stop,
            (Resume, Stop | Running | StopCopy | PreCopy) => Stop,
            (StopCopy, PreCopy)
            | (Stop, Stop)
            | (Running, Running)
            | (StopCopy, StopCopy)
            | (PreCopy, PreCopy)
            | (Resume, Resume) => return None,
        })
    }

    /// True where the device stands still for good: most commands are refused.
    pub(crate) const fn is_stopped(self) -> bool {
        matches!(self, Stop | StopCopy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const ALL: [MigrationState; 5] = [Stop, Running, StopCopy, PreCopy, Resume];

    /// The direct transitions of the specification.
    fn direct(from: MigrationState) -> &'static [MigrationState] {
        match from {
            Stop => &[Running, StopCopy, Resume],
            Running => &[Stop, PreCopy],
            StopCopy | Resume => &[Stop],
            PreCopy => &[Running, StopCopy],
        }
    }

    fn distance(from: MigrationState, to: MigrationState) -> usize {
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((state, steps)) = queue.pop_front() {
            if state == to {
                return steps;
            }
            queue.extend(direct(state).iter().map(|next| (*next, steps + 1)));
        }
        unreachable!()
    }

    #[test]
    fn every_way_is_a_shortest_one() {
        for from in ALL {
            for to in ALL {
                let mut state = from;
                let mut steps = 0;
                while let Some(next) = state.step_to(to) {
                    assert!(direct(state).contains(&next), "{state:?} to {next:?}");
                    state = next;
                    steps += 1;
                }
                if (from, to) == (StopCopy, PreCopy) {
                    assert_eq!(steps, 0); // refused, though a way exists
                } else {
                    assert_eq!(
                        (state, steps),
                        (to, distance(from, to)),
                        "{from:?} to {to:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn wire_numbers_round_trip() {
        for state in ALL {
            assert_eq!(MigrationState::from_wire(state.to_wire()), Some(state));
        }
        for state in [0, 5, 7, 8, 0xabcd] {
            assert_eq!(MigrationState::from_wire(state), None);
        }
    }
}
