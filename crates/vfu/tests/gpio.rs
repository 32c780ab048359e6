//! The example device, driven by our client.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::items_after_statements,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod rig;

#[path = "../examples/gpio.rs"]
#[allow(dead_code, reason = "its main function reads the command line")]
mod example;

use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread::JoinHandle;

use vfu::client::{Client, IrqSet, IrqSetAction, IrqSetData};
use vfu::pci::region::CONFIG;

fn connect(path: &Path, server: &JoinHandle<vfu::Result<()>>) -> Client {
    loop {
        match Client::connect(path) {
            Ok(client) => return client,
            Err(error) => assert!(!server.is_finished(), "the example ended: {error}"),
        }
        std::thread::yield_now(); // until it listens
    }
}

#[test]
fn lines_are_written_and_read_by_one_client_after_another() {
    let path = rig::unique("gpio");
    let copy = path.clone();
    let server = std::thread::spawn(move || example::serve(copy)); // ends with this process
    for _ in 0..2 {
        let mut client = connect(&path, &server);
        let mut id = [0; 4];
        client.region_read(CONFIG as u32, 0, &mut id).unwrap();
        assert_eq!(id, [0x4f, 0x49, 0xc8, 0x0d]);
        assert_eq!(client.region_info(2).unwrap().size, 8);
        assert_eq!(client.irq_info(0).unwrap().count, 1);
        let mut lines = [0; 8];
        client.region_read(2, 0, &mut lines).unwrap();
        assert_eq!(lines, [0; 8]); // after the reset that ends a connection
        client.region_write(2, 0, &[0xa5]).unwrap();
        client.region_write(2, 4, &[0x5a]).unwrap();
        client.region_read(2, 0, &mut lines).unwrap();
        assert_eq!(lines[..6], [0xa5, 0xa5, 0, 0, 0x5a, 0x5a]);
        client.reset().unwrap();
        client.region_read(2, 0, &mut lines).unwrap();
        assert_eq!(lines, [0; 8]);
        client.region_write(2, 0, &[1]).unwrap();
    }
    std::fs::remove_file(path).unwrap();
}

fn get(client: &mut Client, register: u64) -> u8 {
    let mut value = [0];
    client.region_read(2, register, &mut value).unwrap();
    value[0]
}

fn pin_is_asserted(client: &mut Client) -> bool {
    let mut status = [0; 2];
    client.region_read(CONFIG as u32, 6, &mut status).unwrap();
    assert_eq!(status[0] & 8 != 0, get(client, 6) == 4);
    status[0] & 8 != 0
}

#[test]
fn a_change_asserts_the_pin_until_it_is_acknowledged() {
    let path = rig::unique("gpio-pin");
    let copy = path.clone();
    let server = std::thread::spawn(move || example::serve(copy)); // ends with this process
    let event = rig::eventfd(0);
    let mut client = connect(&path, &server);
    let set = |client: &mut Client, action, data: IrqSetData<'_>| {
        let set = IrqSet {
            index: 0,
            start: 0,
            action,
            data,
        };
        client.set_irqs(&set).unwrap();
    };
    let fds = [event.as_raw_fd()];
    set(
        &mut client,
        IrqSetAction::Trigger,
        IrqSetData::Eventfd(&fds),
    );
    client.region_write(2, 0, &[1]).unwrap(); // not enabled yet
    assert_eq!(rig::drain(&event), None);
    assert_eq!(get(&mut client, 2), 0); // this enables it
    client.region_write(2, 0, &[1]).unwrap(); // no change
    assert_eq!(rig::drain(&event), None);
    assert!(!pin_is_asserted(&mut client));
    for (register, value) in [(0, 3), (4, 0x80), (4, 0)] {
        client.region_write(2, register, &[value]).unwrap();
        client.region_write(2, 0, &[0]).unwrap(); // asserted is asserted
        assert_eq!(rig::drain(&event), Some(1));
        assert!(pin_is_asserted(&mut client));
        // unmasked before it is acknowledged: it comes again
        set(&mut client, IrqSetAction::Unmask, IrqSetData::None(1));
        assert_eq!(rig::drain(&event), Some(1));
        client.region_write(2, 1, &[0]).unwrap();
        assert!(!pin_is_asserted(&mut client));
        set(&mut client, IrqSetAction::Unmask, IrqSetData::None(1));
        assert_eq!(rig::drain(&event), None);
    }
    client.region_write(2, 2, &[0]).unwrap(); // disabled
    client.region_write(2, 0, &[9]).unwrap();
    assert!(!pin_is_asserted(&mut client));
    get(&mut client, 2);
    client.region_write(2, 0, &[0]).unwrap();
    assert!(pin_is_asserted(&mut client));
    client.reset().unwrap();
    assert!(!pin_is_asserted(&mut client));
    client.region_write(2, 0, &[1]).unwrap();
    assert!(!pin_is_asserted(&mut client));
    std::fs::remove_file(path).unwrap();
}
