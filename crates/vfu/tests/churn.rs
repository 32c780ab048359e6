//! Four threads translate, copy, mark and trigger while another serves a client that maps and unmaps what they use.
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

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rig::{Rig, eventfd, fields, memfd};
use vfu::Mode;
use vfu::dma::{PROT_READ, PROT_WRITE, Segment};
use vfu::wire::Command;

const ROUNDS: usize = 2000;
const REGION: u64 = 0x4000;

#[test]
fn four_threads_under_map_and_unmap() {
    let mut rig = Rig::new(Mode::NonBlocking);
    rig.ctx.setup_migration();
    rig.ctx.set_log(None, vfu::Level::Error);
    let mut client = rig.connect();
    let memory = memfd(REGION);
    let event = eventfd(libc::EFD_NONBLOCK);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&memory);
    let event_fd = std::os::fd::AsRawFd::as_raw_fd(&event);
    let logging = client
        .send(
            Command::DeviceFeature,
            &fields(&[24 | (1 << 17 | 6) << 32, 4096, 0]),
            &[],
        )
        .unwrap();
    rig.run().unwrap();
    client.receive(logging).unwrap();

    let done = AtomicBool::new(false);
    let (used, stale) = (AtomicU64::new(0), AtomicU64::new(0));
    let (dma, irqs) = (rig.ctx.dma().unwrap(), rig.ctx.irqs());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (dma, irqs, done, used, stale) = (dma.clone(), irqs.clone(), &done, &used, &stale);
            scope.spawn(move || {
                let iova = thread * REGION / 2; // two threads a region
                let mut kept = Segment::default();
                while !done.load(Ordering::Relaxed) {
                    let mut list = [const { MaybeUninit::uninit() }; 2];
                    if let Ok(1) = dma.translate(iova, 64, PROT_READ | PROT_WRITE, &mut list) {
                        // SAFETY: one entry was needed, so the first was written.
                        kept = unsafe { list[0].assume_init() };
                    }
                    let mut data = [0; 64];
                    match dma.read(&kept, &mut data) {
                        Ok(_) => used.fetch_add(1, Ordering::Relaxed),
                        Err(_) => stale.fetch_add(1, Ordering::Relaxed),
                    };
                    let _ = dma.write(&kept, &data);
                    let _ = dma.mark_dirty(&kept);
                    let _ = irqs.trigger(0);
                }
            });
        }
        for round in 0..ROUNDS {
            let set = |flags: u64, count: u32| {
                let mut payload = fields(&[20 | flags << 32, 2]);
                payload.extend(count.to_le_bytes());
                payload
            };
            let mut tickets = Vec::new();
            for iova in [0, REGION] {
                tickets.push(
                    client
                        .send(
                            Command::DmaMap,
                            &fields(&[32 | 7 << 32, 0, iova, REGION]),
                            &[fd],
                        )
                        .unwrap(),
                );
            }
            tickets.push(
                client
                    .send(Command::DeviceSetIrqs, &set(36, 1), &[event_fd])
                    .unwrap(),
            );
            while rig.run().unwrap().requests > 0 {}
            if round % 3 == 0 {
                tickets.push(
                    client
                        .send(Command::DeviceSetIrqs, &set(33, 0), &[])
                        .unwrap(),
                );
            }
            for iova in [0, REGION] {
                tickets.push(
                    client
                        .send(Command::DmaUnmap, &fields(&[24, iova, REGION]), &[])
                        .unwrap(),
                );
            }
            while rig.run().unwrap().requests > 0 {}
            for ticket in tickets {
                client.receive(ticket).unwrap();
            }
            let _ = rig::drain(&event);
            rig.device.take();
        }
        // both have happened, whatever the scheduler did
        while used.load(Ordering::Relaxed) == 0 {
            let map = client
                .send(
                    Command::DmaMap,
                    &fields(&[32 | 7 << 32, 0, 0, REGION]),
                    &[fd],
                )
                .unwrap();
            rig.run().unwrap();
            let _ = client.receive(map);
        }
        while stale.load(Ordering::Relaxed) == 0 {
            let unmap = client
                .send(Command::DmaUnmap, &fields(&[24 | 2 << 32, 0, 0]), &[])
                .unwrap();
            rig.run().unwrap();
            let _ = client.receive(unmap);
        }
        done.store(true, Ordering::Relaxed);
    });
    rig.ctx.shutdown(&mut rig.device).unwrap();
    assert!(dma.is_empty());
    assert!(irqs.trigger(0).is_err());
}
