//! When the mount does end: it says so, and nothing hangs.

use crate::{Kept, LIMIT, wait_held};
use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::node::is_mounted;
use cbfs_tests::process::{is_alive, signal, wait_until};
use cbfs_tests::scenario::{Scenario, write_durable};
use cbfs_tests::serial::serial;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::Signal;
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;

/// Exit code: bytes that are not what they should be.
const CORRUPT: i32 = 10;
/// Exit code: this version, kernel or mount cannot do it.
const UNSUPPORTED: i32 = 11;

/// Nothing can be made there, and the bare directory does not show.
fn is_dead(dir: &Path) -> bool {
    let error = fs::write(dir.join("nobody's"), "").err().and_then(|error| error.raw_os_error());
    error == Some(rustix::io::Errno::NOTCONN.raw_os_error())
}

/// The only instance of a node.
fn instance(kept: &Kept) -> Result<std::path::PathBuf> {
    let mut all = fs::read_dir(kept.node.state_dir().join("fs"))?;
    Ok(all.next().context("no instance")??.path())
}

#[test]
fn a_daemon_that_cannot_come_back_ends_the_mount_and_what_waits_in_it() -> Result<()> {
    let _turn = serial()?;
    let mut kept = Kept::new("broken")?;
    write_durable(&kept.mount.path("file"), b"content")?;
    let layers = instance(&kept)?.join("layers");
    let aside = layers.with_extension("aside");
    fs::rename(&layers, &aside)?;
    fs::create_dir(&layers)?;
    let pid = kept.mount.pid()?;
    // It cannot answer any more: whoever asks now waits for the next one, in vain.
    signal(pid, Signal::STOP)?;
    // The signal is on its way when kill(2) returns: a thread may answer once more.
    wait_until("all threads have stopped", LIMIT, || all_stopped(pid))?;
    let waiting = (0..3).map(|number| {
        let path = kept.mount.path(&format!("new {number}"));
        thread::spawn(move || fs::create_dir(path))
    });
    let waiting: Vec<_> = waiting.collect();
    thread::sleep(std::time::Duration::from_millis(200));
    ensure!(waiting.iter().all(|thread| !thread.is_finished()), "a stopped daemon has answered");
    signal(pid, Signal::KILL)?;
    ensure!(kept.mount.wait_for_end()? == Some(CORRUPT), "the holder ended otherwise\n{}", kept.mount.log()?);
    wait_until("all calls have ended", LIMIT, || Ok(waiting.iter().all(thread::JoinHandle::is_finished)))?;
    for thread in waiting {
        let outcome = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        ensure!(outcome.is_err(), "a directory was made by nobody");
    }
    ensure!(is_dead(kept.mount.dir()), "the bare directory shows, and programs would write into it");
    ensure!(kept.mount.log()?.contains("the mount is given up"), "not said: {}", kept.mount.log()?);

    fs::remove_dir(&layers)?;
    fs::rename(&aside, &layers)?;
    let Kept { mount, node, scenario } = kept;
    mount.kill()?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    ensure!(fs::read(mount.path("file"))? == b"content");
    Kept { mount, node, scenario }.end()
}

/// Whether every thread of a process stands still after SIGSTOP.
fn all_stopped(pid: u32) -> Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        // The state stands behind the name, which is in parentheses and may hold anything.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

#[test]
fn without_restart_a_killed_daemon_ends_the_mount() -> Result<()> {
    let _turn = serial()?;
    let scenario = Scenario::new(StoreKind::Directory, "off")?;
    let node = scenario.node()?;
    let mount = node.mount(&scenario.address, "mnt", &["--set", "daemon.restart=off"])?;
    let mut kept = Kept { mount, node, scenario };
    write_durable(&kept.mount.path("file"), b"content")?;
    ensure!(kept.status("holder")?.is_null());
    ensure!(kept.status("unheld")?.as_str().is_some_and(|why| why.contains("daemon.restart")));
    let refused = kept.node.cbfs(&["upgrade", &kept.scenario.address])?;
    refused.refused(UNSUPPORTED, &["daemon.restart"])?;
    signal(kept.mount.pid()?, Signal::KILL)?;
    ensure!(kept.mount.wait_for_end()? == Some(128 + 9), "the holder ended otherwise\n{}", kept.mount.log()?);
    ensure!(is_dead(kept.mount.dir()), "not dead");

    // As a person does it: mounting again is all.
    let Kept { node, scenario, mount } = kept;
    let dir = mount.dir().to_str().context("not UTF-8")?;
    node.cbfs_long(&["mount", &scenario.address, dir])?.success()?;
    ensure!(fs::read(mount.path("file"))? == b"content");
    node.cbfs_long(&["unmount", dir])?.success()?;
    ensure!(!is_mounted(mount.dir())?, "still mounted");
    Ok(())
}

#[test]
fn a_mount_goes_on_without_its_holder_and_ends_with_its_daemon() -> Result<()> {
    let _turn = serial()?;
    let mut kept = Kept::new("orphaned")?;
    let (holder, daemon) = (kept.mount.holder(), kept.mount.pid()?);
    signal(holder, Signal::KILL)?;
    kept.mount.wait_for_end()?;
    write_durable(&kept.mount.path("file"), b"content")?;
    wait_until("it is known", LIMIT, || Ok(kept.status("holder")?.is_null()))?;
    ensure!(kept.status("unheld")?.as_str().is_some_and(|why| why.contains("holder")));
    kept.node.cbfs(&["upgrade", &kept.scenario.address])?.refused(UNSUPPORTED, &["holder"])?;
    ensure!(fs::read(kept.mount.path("file"))? == b"content");
    signal(daemon, Signal::KILL)?;
    wait_until("the mount is dead", LIMIT, || Ok(!is_alive(daemon) && is_dead(kept.mount.dir())))?;

    let Kept { mount, node, scenario } = kept;
    mount.kill()?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    ensure!(fs::read(mount.path("file"))? == b"content");
    Kept { mount, node, scenario }.end()
}

/// The process that a service manager has started speaks for all that follow.
#[test]
fn a_service_manager_hears_one_process() -> Result<()> {
    let _turn = serial()?;
    let folder = tempfile::tempdir()?;
    let address = folder.path().join("notify");
    let manager = UnixDatagram::bind(&address)?;
    manager.set_read_timeout(Some(LIMIT))?;
    let hear = || -> Result<(String, u32)> {
        let mut bytes = [0; 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let buffers = &mut [IoSliceMut::new(&mut bytes)];
        let count = rustix::net::recvmsg(&manager, buffers, &mut control, RecvFlags::empty())?.bytes;
        let sender = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid.as_raw_nonzero().get() as u32),
            _ => None,
        });
        Ok((String::from_utf8_lossy(&bytes[..count]).into_owned(), sender.context("no sender")?))
    };
    rustix::net::sockopt::set_socket_passcred(&manager, true)?;

    let scenario = Scenario::new(StoreKind::Directory, "notify")?;
    let mut node = scenario.node()?;
    node.set_env("NOTIFY_SOCKET", address.to_str().context("not UTF-8")?);
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    let holder = mount.holder();
    ensure!(hear()? == ("READY=1\n".to_owned(), holder));
    mount.kill_daemon()?;
    let (status, sender) = hear()?;
    ensure!(status.contains("restarts: 1") && status.contains("SIGKILL") && sender == holder, "{status}");
    let kept = Kept { mount, node, scenario };
    wait_held(&kept.node)?;
    kept.end()?;
    ensure!(hear()? == ("STOPPING=1\n".to_owned(), holder));
    Ok(())
}

#[test]
fn sigterm_to_the_holder_unmounts() -> Result<()> {
    let _turn = serial()?;
    let mut kept = Kept::new("term")?;
    kept.mount.kill_daemon()?;
    fs::write(kept.mount.path("file"), "content")?;
    signal(kept.mount.holder(), Signal::TERM)?;
    ensure!(kept.mount.wait_for_end()? == Some(0), "not a clean end\n{}", kept.mount.log()?);
    ensure!(!is_mounted(kept.mount.dir())?, "still mounted");
    let left = cbfs_tests::process::processes_with(kept.node.state_dir())?;
    ensure!(left.is_empty(), "processes are left: {left:?}");
    Ok(())
}
