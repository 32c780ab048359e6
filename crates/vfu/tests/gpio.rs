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

use std::path::Path;
use std::thread::JoinHandle;

use vfu::client::Client;
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
        assert_eq!(lines, [0xa5, 0xa5, 0, 0, 0x5a, 0x5a, 0, 0]);
        client.reset().unwrap();
        client.region_read(2, 0, &mut lines).unwrap();
        assert_eq!(lines, [0; 8]);
        client.region_write(2, 0, &[1]).unwrap();
    }
    std::fs::remove_file(path).unwrap();
}
