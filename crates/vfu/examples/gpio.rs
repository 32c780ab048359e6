//! A GPIO card that Linux's own driver knows (ACCES 104-IDIO-16 as PCI-IDIO-16: sixteen outputs, sixteen inputs).
//!
//! `cargo run -p vfu --example gpio -- /tmp/gpio.sock`, then, for a guest:
//! `qemu-system-x86_64 ... -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/gpio.sock"}}'`.
//! The outputs are wired to the inputs, so that a guest reads back what it writes.

use std::path::Path;

use vfu::builder::{Bar, BarIndex, Builder};
use vfu::{Context, Device, Errno, Level, Mode, ResetKind};

/// The card's registers.
const OUTPUTS_LOW: u64 = 0;
const INPUTS_LOW: u64 = 1;
const OUTPUTS_HIGH: u64 = 4;
const INPUTS_HIGH: u64 = 5;

#[derive(Debug, Default)]
struct Gpio {
    outputs: [u8; 2],
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
                _ => 0,
            };
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
                OUTPUTS_LOW => self.outputs[0] = *byte,
                OUTPUTS_HIGH => self.outputs[1] = *byte,
                _ => {}
            }
        }
        ctx.log(Level::Debug, format_args!("outputs {:?}", self.outputs));
        Ok(())
    }

    fn reset(&mut self, _: &Context, _: ResetKind) -> Result<(), Errno> {
        self.outputs = [0; 2];
        Ok(())
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
        ctx.attach()?;
        match ctx.run(&mut gpio) {
            Err(error) if error.errno() == Errno::ENOTCONN => {} // the client has gone: wait for the next one
            result => result.map(|_| ())?,
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: gpio SOCKET")?;
    Ok(serve(path)?)
}
