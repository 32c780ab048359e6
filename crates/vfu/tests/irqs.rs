//! Interrupts: eventfds that come and go, masks, loop-back, and what is refused.

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

use std::os::fd::OwnedFd;

use rig::{Event, Rig, drain, eventfd, fields, open_fds};
use vfu::wire::Command;
use vfu::{Errno, IrqIndex, Mode};

const EINVAL: i32 = libc::EINVAL;

fn irqs(flags: u64, index: u64, start: u64, count: u32) -> Vec<u8> {
    let mut payload = fields(&[20 | flags << 32, index | start << 32]);
    payload.extend(count.to_le_bytes());
    payload
}

const MSIX: u64 = 2;

#[test]
fn interrupts_come_and_go() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let before = open_fds();
    let (a, b) = (eventfd(0), eventfd(libc::EFD_NONBLOCK));
    let handle = rig.ctx.irqs();
    assert_eq!(handle.trigger(0).unwrap_err().errno(), Errno::ENOENT);
    assert_eq!(handle.trigger(8).unwrap_err().errno().get(), EINVAL);
    rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, MSIX, 3, 2),
        &[&a, &b],
    )
    .unwrap();
    handle.trigger(3).unwrap();
    handle.trigger(3).unwrap();
    std::thread::scope(|scope| scope.spawn(|| handle.trigger(4).unwrap()).join().unwrap());
    assert_eq!((drain(&a), drain(&b)), (Some(2), Some(1)));

    // loop-back
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(33, MSIX, 0, 8))
        .unwrap();
    let mut bools = irqs(34, MSIX, 3, 2);
    bools.extend([0, 1]);
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &bools)
        .unwrap();
    assert_eq!((drain(&a), drain(&b)), (Some(1), Some(2)));

    // D20: a range that does not start at 0 is disabled
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(36, MSIX, 4, 1))
        .unwrap();
    assert_eq!(handle.trigger(4).unwrap_err().errno(), Errno::ENOENT);
    handle.trigger(3).unwrap();
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(33, MSIX, 0, 0))
        .unwrap();
    assert_eq!(handle.trigger(3).unwrap_err().errno(), Errno::ENOENT);
    assert_eq!(open_fds(), before + 2);

    rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, MSIX, 0, 1),
        &[&a],
    )
    .unwrap();
    rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, 3, 0, 1),
        &[&b],
    )
    .unwrap();
    handle.notify(IrqIndex::Err).unwrap();
    assert_eq!(drain(&b), Some(1));
    assert_eq!(
        handle.notify(IrqIndex::Req).unwrap_err().errno(),
        Errno::ENOENT
    );
    drop(client);
    rig.run().unwrap_err();
    assert_eq!(handle.trigger(0).unwrap_err().errno(), Errno::ENOENT);
    assert_eq!(open_fds(), before - 2 + 2);
}

/// D59: pipes and sockets are no eventfds, and do not stay open.
#[test]
fn other_descriptors_than_eventfds_are_refused() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    drop(reader);
    let before = open_fds();
    let result = rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, MSIX, 0, 1),
        &[&writer],
    );
    assert_eq!(result.unwrap_err().errno(), Some(Errno::EINVAL));
    assert_eq!(open_fds(), before);
    assert_eq!(
        rig.ctx.irqs().trigger(0).unwrap_err().errno(),
        Errno::ENOENT
    );
}

#[test]
fn interrupt_requests_that_are_refused() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let (a, b) = (eventfd(0), eventfd(0));
    let before = open_fds();
    for (payload, fds) in [
        (irqs(33, 5, 0, 1), vec![]),
        (irqs(33, 0, 0, 0), vec![]), // none configured
        (irqs(8 | 16 | 1, MSIX, 0, 1), vec![]),
        (irqs(1, MSIX, 0, 1), vec![]),
        (irqs(32, MSIX, 0, 1), vec![]),
        (irqs(32 | 3, MSIX, 0, 1), vec![]),
        (irqs(33, MSIX, 8, 1), vec![]),
        (irqs(33, MSIX, 7, 2), vec![]),
        (irqs(33, MSIX, 1, u32::MAX), vec![]),
        (irqs(9, 3, 0, 1), vec![]),
        (irqs(33, 4, 0, 2), vec![]),
        (irqs(33, MSIX, 1, 0), vec![]),
        (irqs(9, MSIX, 0, 0), vec![]),
        (irqs(33, MSIX, 0, 1), vec![&a]),
        (irqs(36, MSIX, 0, 2), vec![&a]),
        (irqs(36, MSIX, 0, 1), vec![&a, &b]),
        (irqs(34, MSIX, 0, 1), vec![]),
        (irqs(8 | 4, MSIX, 0, 1), vec![&a]),
        (irqs(33, MSIX, 0, 1)[..19].to_vec(), vec![]),
    ] {
        let result = rig.round_trip_fds(&mut client, Command::DeviceSetIrqs, &payload, &fds);
        assert_eq!(
            result.unwrap_err().errno(),
            Some(Errno::EINVAL),
            "{payload:?}"
        );
        assert_eq!(open_fds(), before);
    }
    assert!(rig.device.take().is_empty());
}

#[test]
fn masks_reach_the_device() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(9, MSIX, 2, 3))
        .unwrap();
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(17, MSIX, 0, 8))
        .unwrap();
    let mut bools = irqs(10, MSIX, 4, 3);
    bools.extend([1, 0, 1]); // D21
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &bools)
        .unwrap();
    let state = |start, count, masked| Event::IrqState(IrqIndex::Msix, start, count, masked);
    assert_eq!(
        rig.device.take(),
        [
            state(2, 3, true),
            state(0, 8, false),
            state(4, 1, true),
            state(6, 1, true)
        ]
    );
}

/// D11, D87.
#[test]
fn interrupt_counts() {
    let mut rig = Rig::new(Mode::NonBlocking);
    assert_eq!(
        rig.ctx
            .set_irq_count(IrqIndex::Err, 2)
            .unwrap_err()
            .errno()
            .get(),
        EINVAL
    );
    rig.ctx.set_irq_count(IrqIndex::Msix, 100).unwrap(); // after realize: the table grows
    let mut client = rig.connect();
    let event = eventfd(0);
    rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, MSIX, 99, 1),
        &[&event],
    )
    .unwrap();
    rig.ctx.irqs().trigger(99).unwrap();
    assert_eq!(drain(&event), Some(1));
    let reply = rig
        .round_trip(&mut client, Command::DeviceGetIrqInfo, &fields(&[16, 2]))
        .unwrap();
    assert_eq!(reply, fields(&[16 | 1 << 32, 2 | 100 << 32]));
    for bad in [fields(&[16, 5]), fields(&[8, 2]), fields(&[16])] {
        assert_eq!(
            rig.refused(&mut client, Command::DeviceGetIrqInfo, &bad),
            EINVAL
        );
    }
}
