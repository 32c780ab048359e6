//! The life of a context: creation, clients that come and go, quiesce, resets, callbacks that call back, pipes.

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

use rig::{BAR, Event, RW, Rig, access, fields};
use vfu::client::{Client, Hello, NoMemory};
use vfu::wire::Command;
use vfu::{Context, Errno, IrqIndex, Level, Mode, Quiesce, RegionSetup, ResetKind};

const EINVAL: i32 = libc::EINVAL;

#[test]
fn creation_fails_with_the_system_s_errors() {
    let rig = Rig::bare(Mode::NonBlocking);
    let errno = |path: &str| {
        Context::listen(path, Mode::Blocking)
            .unwrap_err()
            .errno()
            .get()
    };
    assert_eq!(errno(rig.path.to_str().unwrap()), libc::EADDRINUSE);
    assert_eq!(errno("/nonexistent/directory/socket"), libc::ENOENT);
    assert_eq!(errno(&"x".repeat(108)), libc::ENAMETOOLONG);
    assert_eq!(errno("a\0b"), EINVAL);
    let one = Context::listen("", Mode::Blocking).unwrap();
    let _two = Context::listen("", Mode::Blocking).unwrap();
    assert!(one.path().is_empty());
    assert!(rig.path.exists());
    let path = rig.path.clone();
    drop(rig);
    assert!(!path.exists());
}

#[test]
fn life_of_a_context() {
    let mut rig = Rig::bare(Mode::NonBlocking);
    assert_eq!(rig.run().unwrap_err().errno().get(), EINVAL);
    rig.ctx.realize().unwrap();
    rig.ctx.realize().unwrap();
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
    let listening = rig.ctx.poll_fd();
    let client = rig.connect();
    assert_ne!(rig.ctx.poll_fd(), listening);
    assert_eq!(rig.run().unwrap().requests, 0);
    drop(client);
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
    assert_eq!(rig.ctx.poll_fd(), listening);
    assert_eq!(
        rig.device.take(),
        [Event::Quiesce, Event::Reset(ResetKind::LostConnection)]
    );
    let _client = rig.connect();
    rig.ctx.shutdown(&mut rig.device).unwrap();
    assert_eq!(rig.device.take(), [Event::Reset(ResetKind::LostConnection)]); // not asked to quiesce
    assert!(!rig.path.exists());
    assert_eq!(rig.ctx.poll_fd(), None);
}

#[test]
fn the_connection_is_closed_after_the_reset_callback() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let client = rig.connect();
    let connection = rig.ctx.poll_fd();
    rig.device.hook = Some(Box::new(move |ctx, event| {
        assert_eq!(*event, Event::Reset(ResetKind::LostConnection));
        assert_eq!(ctx.poll_fd(), connection);
        Ok(())
    }));
    drop(client);
    rig.run().unwrap_err();
    assert_eq!(rig.device.take().len(), 2);
}

const MAP: [u64; 4] = [32 | 3 << 32, 0, 0x1000, 0x1000];

#[test]
fn quiesce_now_later_and_never() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    assert_eq!(
        rig.ctx
            .device_quiesced(&mut rig.device, Ok(()))
            .unwrap_err()
            .errno()
            .get(),
        EINVAL
    );
    rig.device.quiesce = vec![
        Err(Errno::new(libc::ENOTTY)),
        Err(Errno::EBUSY),
        Ok(Quiesce::Pending),
        Ok(Quiesce::Done),
    ];
    let ticket = client.send(Command::DmaMap, &fields(&MAP), &[]).unwrap();
    assert_eq!(rig.run().unwrap().requests, 0);
    assert_eq!(
        client.receive(ticket).unwrap_err().errno().unwrap().get(),
        libc::ENOTTY
    );

    // D4: a quiesce that fails later fails the request, with an answer
    let ticket = client.send(Command::DmaMap, &fields(&MAP), &[]).unwrap();
    assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    assert!(rig.ctx.is_quiescing());
    let served = rig
        .ctx
        .device_quiesced(&mut rig.device, Err(Errno::new(libc::ENOTTY)))
        .unwrap();
    assert_eq!(served.failed.unwrap().get(), libc::ENOTTY);
    assert_eq!(
        client.receive(ticket).unwrap_err().errno().unwrap().get(),
        libc::ENOTTY
    );

    let ticket = client.send(Command::DmaMap, &fields(&MAP), &[]).unwrap();
    assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    assert_eq!(
        rig.ctx
            .device_quiesced(&mut rig.device, Ok(()))
            .unwrap()
            .requests,
        1
    );
    client.receive(ticket).unwrap();
    rig.unmap(&mut client, 0x1000, 0x1000).unwrap();
    let quiesce = Event::Quiesce;
    assert_eq!(
        rig.device.take(),
        [
            quiesce.clone(),
            quiesce.clone(),
            quiesce.clone(),
            Event::Register(0x1000, 0x1000),
            quiesce,
            Event::Unregister(0x1000, 0x1000)
        ]
    );
}

#[test]
fn a_lost_connection_waits_for_the_quiesce_once() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.map(&mut client, 0, 0x1000, None).unwrap();
    rig.map(&mut client, 0x5000, 0x1000, None).unwrap();
    rig.device.take();
    rig.device.quiesce = vec![Ok(Quiesce::Pending)];
    drop(client);
    for _ in 0..3 {
        assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    }
    assert_eq!(rig.device.take(), [Event::Quiesce]);
    let _ = rig.ctx.device_quiesced(&mut rig.device, Ok(())).unwrap();
    let gone = [
        Event::Unregister(0, 0x1000),
        Event::Unregister(0x5000, 0x1000),
        Event::Reset(ResetKind::LostConnection),
    ];
    assert_eq!(rig.device.take(), gone);
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
}

#[test]
fn a_client_that_goes_while_a_callback_runs() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let client = rig.connect();
    let mut client = Some(client);
    let _ = client
        .as_mut()
        .unwrap()
        .send(Command::DmaMap, &fields(&MAP), &[])
        .unwrap();
    rig.device.hook = Some(Box::new(move |_, _| {
        drop(client.take());
        Ok(())
    }));
    assert_eq!(rig.run().unwrap().requests, 1);
    let lost = Event::Reset(ResetKind::LostConnection);
    let map = (0x1000, 0x1000);
    assert_eq!(
        rig.device.take(),
        [
            Event::Quiesce,
            Event::Register(map.0, map.1),
            Event::Quiesce,
            Event::Unregister(map.0, map.1),
            lost
        ]
    );
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
}

/// A device that has just said that it is quiet is not asked again.
#[test]
fn a_client_that_goes_under_a_request_that_waited() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = Some(rig.connect());
    let _ = client
        .as_mut()
        .unwrap()
        .send(Command::DmaMap, &fields(&MAP), &[])
        .unwrap();
    rig.device.quiesce = vec![Ok(Quiesce::Pending)];
    rig.device.hook = Some(Box::new(move |_, _| {
        drop(client.take());
        Ok(())
    }));
    assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    rig.ctx.device_quiesced(&mut rig.device, Ok(())).unwrap();
    assert_eq!(
        rig.device.take(),
        [
            Event::Quiesce,
            Event::Register(0x1000, 0x1000),
            Event::Unregister(0x1000, 0x1000),
            Event::Reset(ResetKind::LostConnection)
        ]
    );
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
}

#[test]
fn resets() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.round_trip(&mut client, Command::DeviceReset, &[])
        .unwrap();
    rig.round_trip(&mut client, Command::DeviceReset, &[1, 2, 3])
        .unwrap();
    rig.device.hook = Some(Box::new(|_, _| Err(Errno::EIO)));
    assert_eq!(
        rig.refused(&mut client, Command::DeviceReset, &[]),
        libc::EIO
    );
    assert!(rig.logged(Level::Info, "resets"));
    let reset = [Event::Quiesce, Event::Reset(ResetKind::Device)];
    assert_eq!(
        rig.device.take(),
        [reset.clone(), reset.clone(), reset].concat()
    );
}

/// D5: a callback that fails without an error number fails all the same.
#[test]
fn failures_without_a_number_are_failures() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    for raw in [0, -5] {
        rig.device.hook = Some(Box::new(move |_, _| Err(Errno::new(raw))));
        assert_eq!(
            rig.refused(&mut client, Command::DeviceReset, &[]),
            EINVAL,
            "{raw}"
        );
    }
}

/// Calls that a callback must not make are refused; all others work, whatever is being served.
#[test]
fn callbacks_may_call_anything() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.device.hook = Some(Box::new(|ctx, _| {
        let mut other = rig::Recorder::default();
        assert_eq!(ctx.run(&mut other).unwrap_err().errno(), Errno::EBUSY);
        assert_eq!(ctx.attach().unwrap_err().errno(), Errno::EBUSY);
        assert_eq!(ctx.shutdown(&mut other).unwrap_err().errno(), Errno::EBUSY);
        assert_eq!(
            ctx.device_quiesced(&mut other, Ok(()))
                .unwrap_err()
                .errno()
                .get(),
            EINVAL
        );
        assert!(ctx.is_serving() && ctx.is_attached() && !ctx.is_quiescing());
        let setup = RegionSetup {
            index: 4,
            size: 64,
            flags: RW | 4,
            callback: true,
            ..RegionSetup::default()
        };
        ctx.setup_region(setup, []).unwrap();
        ctx.setup_migration();
        ctx.set_irq_count(IrqIndex::Msi, 4).unwrap();
        ctx.pci_set_class(1, 2, 3);
        assert!(ctx.pci_find_capability(false, 0, 1).is_err());
        assert!(ctx.poll_fd().is_some() && ctx.dma().is_some());
        ctx.set_log(None, Level::Error);
        Ok(())
    }));
    rig.round_trip(&mut client, Command::RegionRead, &access(BAR, 0, 1))
        .unwrap();
    rig.device.hook = None;
    rig.round_trip(&mut client, Command::RegionRead, &access(4, 0, 64))
        .unwrap();
}

#[test]
fn pipes() {
    use std::io::{Read as _, Write as _};
    let (server_in, mut client_out) = std::io::pipe().unwrap();
    let (mut client_in, server_out) = std::io::pipe().unwrap();
    let ctx = Context::pipe(
        OwnedFd::from(server_in).into(),
        OwnedFd::from(server_out).into(),
        Mode::NonBlocking,
    )
    .unwrap();
    assert_eq!(ctx.poll_fd(), None);
    ctx.realize().unwrap();
    assert_eq!(ctx.attach().unwrap_err().errno().get(), libc::EAGAIN);
    client_out
        .write_all(&rig::message(1, Command::Version, 0, &[0, 0, 1, 0]))
        .unwrap();
    ctx.attach().unwrap();
    client_out
        .write_all(&rig::message(
            2,
            Command::DeviceGetInfo,
            0,
            &fields(&[16, 0]),
        ))
        .unwrap();
    assert_eq!(ctx.run(&mut rig::Recorder::default()).unwrap().requests, 1);
    let mut bytes = [0; 512];
    let mut count = 0;
    while count < 16 || count < u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize + 32 {
        count += client_in.read(&mut bytes[count..]).unwrap();
    }
    let version = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize; // D48: the size is filled in
    assert_eq!(count, version + 32);
    drop(client_out);
    assert_eq!(
        ctx.run(&mut rig::Recorder::default()).unwrap_err().errno(),
        Errno::ENOTCONN
    );
}

#[test]
fn two_clients_one_after_the_other() {
    let mut rig = Rig::new(Mode::NonBlocking);
    for _ in 0..3 {
        let mut client: Client = rig.connect_with(&Hello::default(), NoMemory);
        rig.map(&mut client, 0, 0x1000, None).unwrap();
        drop(client);
        assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
        assert!(rig.ctx.dma().unwrap().is_empty());
    }
}
