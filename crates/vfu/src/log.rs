//! The device's log: levels, the sink, and formatting without allocation.
//!
//! 1. A line never ends in a newline; the sink adds what it needs.
//! 2. The sink is a user callback and may call back into the context. It is taken out of its place while it runs, so a line
//!    that the library would log from inside a sink is dropped, and there is no recursion.
//! 3. Lines are cut at [`LINE`] bytes, at a character boundary.

use core::cell::Cell;
use core::fmt::{self, Write};

use crate::pci;

/// Longest line in bytes.
pub const LINE: usize = 1024;

/// How urgent a line is. The numbers are those of `syslog.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// The system is unusable.
    Emergency = 0,
    /// Something has to be done at once.
    Alert = 1,
    /// Critical.
    Critical = 2,
    /// A request or call failed. The threshold of a new context.
    Error = 3,
    /// Something odd.
    Warning = 4,
    /// Unusual but in order.
    Notice = 5,
    /// Resets and the like.
    Info = 6,
    /// Normal operation.
    Debug = 7,
}

impl Level {
    /// From a number of `syslog.h`; `None` unless 0 to 7.
    #[must_use]
    pub const fn new(level: i32) -> Option<Self> {
        Some(match level {
            0 => Self::Emergency,
            1 => Self::Alert,
            2 => Self::Critical,
            3 => Self::Error,
            4 => Self::Warning,
            5 => Self::Notice,
            6 => Self::Info,
            7 => Self::Debug,
            _ => return None,
        })
    }
}

impl From<pci::Level> for Level {
    fn from(level: pci::Level) -> Self {
        match level {
            pci::Level::Error => Self::Error,
            pci::Level::Warning => Self::Warning,
            pci::Level::Info => Self::Info,
            pci::Level::Debug => Self::Debug,
        }
    }
}

/// Where log lines go. Any `Fn(Level, &str) + Send` is one.
pub trait Log: Send {
    /// Takes one line, at most [`LINE`] bytes, without a newline at its end.
    fn log(&self, level: Level, message: &str);
}

impl<F: Fn(Level, &str) + Send> Log for F {
    fn log(&self, level: Level, message: &str) {
        self(level, message);
    }
}

/// The sink of one context and its threshold.
pub(crate) struct Logger {
    sink: Cell<Option<Box<dyn Log>>>,
    threshold: Cell<Level>,
    /// What [`Self::enabled`] looks at: 0 to 7, or -1 without a sink.
    effective: Cell<i8>,
    /// Counts `set`, so that a sink that replaces itself while it runs is not put back.
    changes: Cell<u32>,
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger")
            .field("threshold", &self.threshold.get())
            .finish_non_exhaustive()
    }
}

impl Logger {
    pub(crate) const fn new() -> Self {
        Self {
            sink: Cell::new(None),
            threshold: Cell::new(Level::Error),
            effective: Cell::new(-1),
            changes: Cell::new(0),
        }
    }

    pub(crate) fn set(&self, sink: Option<Box<dyn Log>>, threshold: Level) {
        self.effective.set(if sink.is_some() {
            (threshold as u8).cast_signed()
        } else {
            -1
        });
        self.threshold.set(threshold);
        self.changes.set(self.changes.get().wrapping_add(1));
        drop(self.sink.replace(sink));
    }

    #[inline]
    pub(crate) fn enabled(&self, level: Level) -> bool {
        (level as u8).cast_signed() <= self.effective.get()
    }

    #[inline]
    pub(crate) fn line(&self, level: Level, message: fmt::Arguments<'_>) {
        if self.enabled(level) {
            self.write(level, message);
        }
    }

    #[cold]
    fn write(&self, level: Level, message: fmt::Arguments<'_>) {
        let Some(sink) = self.sink.take() else { return }; // inside the sink
        let changes = self.changes.get();
        let put_back = PutBack {
            logger: self,
            sink: Some(sink),
            changes,
        };
        let mut line = Line::new();
        let _ = line.write_fmt(message); // cut at the end of the buffer
        if let Some(sink) = &put_back.sink {
            sink.log(level, line.text());
        }
    }
}

/// Puts the sink back, also when it panics.
struct PutBack<'a> {
    logger: &'a Logger,
    sink: Option<Box<dyn Log>>,
    changes: u32,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        if self.logger.changes.get() == self.changes {
            self.logger.sink.set(self.sink.take());
        }
    }
}

/// A line under construction, on the stack.
pub(crate) struct Line {
    bytes: [u8; LINE],
    length: usize,
}

impl Line {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; LINE],
            length: 0,
        }
    }

    pub(crate) fn text(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE - self.length;
        let mut fits = room.min(text.len());
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        if let Some(place) = self.bytes.get_mut(self.length..self.length + fits) {
            place.copy_from_slice(&text.as_bytes()[..fits]);
            self.length += fits;
        }
        if fits == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn long_lines_are_cut_at_a_character() {
        let mut line = Line::new();
        let long = "é".repeat(LINE);
        let _ = write!(line, "x{long}");
        assert_eq!(line.text().len(), LINE - 1);
        assert!(line.text().ends_with('é'));
    }

    #[test]
    fn a_sink_gets_what_is_urgent_enough_and_can_be_replaced_from_inside() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let logger = Logger::new();
        logger.line(Level::Error, format_args!("nobody listens"));
        let copy = Arc::clone(&lines);
        logger.set(
            Some(Box::new(move |level, text: &str| {
                copy.lock().unwrap().push((level, text.to_owned()));
            })),
            Level::Info,
        );
        logger.line(Level::Info, format_args!("a {}", 1));
        logger.line(Level::Debug, format_args!("b"));
        assert_eq!(*lines.lock().unwrap(), [(Level::Info, "a 1".to_owned())]);
        logger.set(None, Level::Debug);
        logger.line(Level::Emergency, format_args!("c"));
        assert_eq!(lines.lock().unwrap().len(), 1);
    }
}
