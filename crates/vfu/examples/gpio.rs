//! A GPIO card that Linux's own driver knows (ACCES 104-IDIO-16 as PCI-IDIO-16: sixteen outputs, sixteen inputs).
//!
//! `cargo run -p vfu --example gpio -- /tmp/gpio.sock`, then, for a guest:
//! `qemu-system-x86_64 ... -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/gpio.sock"}}'`.
//! The outputs are wired to the inputs, so that a guest reads back what it writes. Registers of BAR 2, a byte each:
//!
//! | offset | read | written |
//! |---|---|---|
//! | 0, 4 | outputs | outputs |
//! | 1 | inputs, low | anything: acknowledges the interrupt |
//! | 2 | 0, and enables the interrupt | anything: disables it |
//! | 5 | inputs, high | |
//! | 6 | 4 while the interrupt is asserted | |
//!
//! While it is enabled, every change of an input asserts the interrupt pin until it is acknowledged.

use std::path::Path;
use std::process::ExitCode;

use vfu::builder::{Bar, BarIndex, Builder};
use vfu::{Context, Device, Errno, IrqIndex, Level, Mode, ResetKind};

const OUTPUTS_LOW: u64 = 0;
const INPUTS_LOW: u64 = 1; // written: acknowledges
const INTERRUPT: u64 = 2;
const OUTPUTS_HIGH: u64 = 4;
const INPUTS_HIGH: u64 = 5;
const STATUS: u64 = 6;

const STATUS_ASSERTED: u8 = 4;

/// Configuration space: the status register's bit that says that the interrupt pin is asserted.
const PCI_STATUS: usize = 6;
const PCI_STATUS_INTERRUPT: u16 = 8;

#[derive(Debug, Default)]
struct Gpio {
    outputs: [u8; 2],
    enabled: bool,
    asserted: bool,
}

impl Gpio {
    fn set_outputs(&mut self, ctx: &Context, half: usize, value: u8) {
        let changed = std::mem::replace(&mut self.outputs[half], value) != value;
        if changed && self.enabled && !self.asserted {
            self.assert_pin(ctx, true);
            self.interrupt(ctx);
        }
    }

    fn assert_pin(&mut self, ctx: &Context, asserted: bool) {
        self.asserted = asserted;
        let mut status = [0; 2];
        ctx.config_read(PCI_STATUS, &mut status);
        let mut status = u16::from_le_bytes(status) & !PCI_STATUS_INTERRUPT;
        if asserted {
            status |= PCI_STATUS_INTERRUPT;
        }
        ctx.config_write(PCI_STATUS, &status.to_le_bytes());
    }

    fn interrupt(&self, ctx: &Context) {
        if let Err(error) = ctx.irqs().trigger(0) {
            ctx.log(
                Level::Debug,
                format_args!("nobody waits for interrupts: {error}"),
            );
        }
    }
}

impl Device for Gpio {
    fn region_read(
        &mut self,
        _: &Context,
        _: u32,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), Errno> {
        for (address, byte) in (offset..).zip(data) {
            *byte = match address {
                OUTPUTS_LOW | INPUTS_LOW => self.outputs[0],
                OUTPUTS_HIGH | INPUTS_HIGH => self.outputs[1],
                STATUS if self.asserted => STATUS_ASSERTED,
                _ => 0,
            };
            self.enabled |= address == INTERRUPT;
        }
        Ok(())
    }

    fn region_write(
        &mut self,
        ctx: &Context,
        _: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Errno> {
        for (address, byte) in (offset..).zip(data) {
            match address {
                OUTPUTS_LOW => self.set_outputs(ctx, 0, *byte),
                OUTPUTS_HIGH => self.set_outputs(ctx, 1, *byte),
                INPUTS_LOW => self.assert_pin(ctx, false),
                INTERRUPT => self.enabled = false,
                _ => {}
            }
        }
        ctx.log(Level::Debug, format_args!("outputs {:?}", self.outputs));
        Ok(())
    }

    fn reset(&mut self, ctx: &Context, _: ResetKind) -> Result<(), Errno> {
        *self = Self::default();
        self.assert_pin(ctx, false);
        Ok(())
    }

    /// The pin is a level: after an unmask it is still there unless the guest has acknowledged.
    fn irq_state(&mut self, ctx: &Context, irq: IrqIndex, _: u32, _: u32, masked: bool) {
        if irq == IrqIndex::Intx && !masked && self.asserted {
            self.interrupt(ctx);
        }
    }
}

/// Serves one client after another.
#[expect(clippy::print_stderr, reason = "an example says what happens")]
pub(crate) fn serve(path: impl AsRef<Path>) -> vfu::Result<()> {
    let ctx = Builder::new(0x494f, 0x0dc8)
        .class(0x11, 0x80, 0)
        .bar(BarIndex::Bar2, Bar::io(8))
        .intx()
        .log(
            Box::new(|_: Level, line: &str| eprintln!("{line}")),
            Level::Info,
        )
        .build(path, Mode::Blocking)?;
    let mut gpio = Gpio::default();
    loop {
        if ctx.attach().is_err() {
            continue; // the log says why; the next client may do better
        }
        match ctx.run(&mut gpio) {
            Err(error) if error.errno() == Errno::ENOTCONN => {} // the client has gone: wait for the next one
            result => result.map(|_| ())?,
        }
    }
}

#[expect(clippy::print_stderr, reason = "an example says what went wrong")]
fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: gpio SOCKET");
        return ExitCode::FAILURE;
    };
    match serve(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gpio: {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
