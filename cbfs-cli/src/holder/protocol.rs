//! What holder and daemon say to each other: packets of JSON on a socket, descriptors beside them.
//!
//! The holder stays when the program is replaced, so the two may be of different versions: fields are only ever added,
//! and what the daemons keep for each other is text that the holder does not read.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Changes when a daemon could not work with an older holder.
pub(super) const VERSION: u32 = 1;
/// Descriptors that are kept at most.
const DESCRIPTORS_MAX: usize = 8;
/// A packet is much shorter than the socket's buffer.
const PACKET_BYTES_MAX: usize = 64 << 10;

/// How often the daemon was started anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// How often.
    pub count: u32,
    /// When it was last, seconds since 1970.
    pub last: Option<u64>,
    /// Why.
    pub reason: Option<String>,
}

/// The first packet to each daemon. With `kept`, the descriptors come with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(super) version: u32,
    /// The holder's process.
    pub(super) holder: u32,
    pub(super) life: u32,
    pub(super) restarts: Restarts,
    pub(super) kept: Option<String>,
}

/// Packets to the holder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// Keep this, and the descriptors that come with it, for the daemons that follow.
    Keep { text: String },
    /// Keep nothing: no daemon could go on with this mount.
    LetGo,
    /// The mount can be used. A daemon in the background says where it logs from now on.
    Serving { log: Option<PathBuf> },
    /// The end is wanted and begins.
    Stopping,
    /// This daemon is about to end so that another one can follow.
    HandingOver { reason: String },
}

/// Sends one packet.
pub(super) fn send(socket: impl AsFd, packet: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(packet)?;
    if bytes.len() > PACKET_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            done => return Ok(done.map(drop)?),
        }
    }
}

/// Whether to wait for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until one comes or the other side is gone.
    Wait,
    /// Take what is there: [`io::ErrorKind::WouldBlock`] if nothing is.
    Look,
}

/// Receives one packet; `None`: the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    patience: Patience,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = match patience {
        Patience::Wait => RecvFlags::CMSG_CLOEXEC,
        Patience::Look => RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    };
    let count = loop {
        match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            done => break done?.bytes,
        }
    };
    if count == 0 {
        return Ok(None);
    }
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    Ok(Some((serde_json::from_slice(bytes.get(..count).unwrap_or_default())?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    #[test]
    fn packets_bring_descriptors_and_end_with_the_other_side() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"kept").unwrap();
        let text = "x".repeat(10_000);
        send(&theirs, &Word::Keep { text: text.clone() }, &[file.as_fd(), file.as_fd()]).unwrap();
        send(&theirs, &Word::Stopping, &[]).unwrap();
        drop((theirs, file));

        let (word, descriptors) = receive::<Word>(&ours, Patience::Wait).unwrap().unwrap();
        assert!(matches!(word, Word::Keep { text: kept } if kept == text));
        assert_eq!(descriptors.len(), 2);
        let mut file = File::from(descriptors.into_iter().next().unwrap());
        file.rewind().unwrap();
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "kept");

        assert!(
            matches!(receive::<Word>(&ours, Patience::Look).unwrap(), Some((Word::Stopping, none)) if none.is_empty())
        );
        assert!(receive::<Word>(&ours, Patience::Wait).unwrap().is_none());
    }

    #[test]
    fn looking_does_not_wait() {
        let (ours, _theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        assert_eq!(receive::<Word>(&ours, Patience::Look).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_newer_field_does_no_harm() {
        let text = r#"{"version":1,"holder":7,"life":3,"restarts":{"count":3,"last":null,"reason":null,"new":1},"kept":null,"new":{}}"#;
        let welcome: Welcome = serde_json::from_str(text).unwrap();
        assert_eq!((welcome.life, welcome.restarts.count), (3, 3));
    }
}
