//! The frame around one record: `len | crc | xid | body | padding`.

use crate::ids::Xid;
use crate::segment::header::{u32_at, u64_at};

/// Bytes before the body.
pub(super) const FRAME_BYTES: usize = 16;
const ALIGN: usize = 8;

/// Bytes that a record with `body` bytes occupies in a segment.
pub(super) fn framed_bytes(body: usize) -> usize {
    (FRAME_BYTES + body).next_multiple_of(ALIGN)
}

/// Writes the frame of a record into `out`, replacing what was there.
pub(super) fn encode(salt: u32, xid: Xid, body: &[u8], out: &mut Vec<u8>) {
    let len = body.len() as u32;
    out.clear();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum(salt, len, xid, body).to_le_bytes());
    out.extend_from_slice(&xid.0.to_le_bytes());
    out.extend_from_slice(body);
    out.resize(framed_bytes(body.len()), 0);
}

/// The body of record `xid` at `at`, and where the next one starts; `None` if that record is not there in one piece.
pub(super) fn decode(salt: u32, xid: Xid, segment: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let len = u32_at(segment, at)?;
    let crc = u32_at(segment, at + 4)?;
    if u64_at(segment, at + 8)? != xid.0 {
        return None;
    }
    let start = at + FRAME_BYTES;
    let body = segment.get(start..start.checked_add(len as usize)?)?;
    (checksum(salt, len, xid, body) == crc).then(|| (body, at + framed_bytes(body.len())))
}

/// The salt goes first: a record of a former life of the file fails, whatever its xid.
fn checksum(salt: u32, len: u32, xid: Xid, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &len.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &xid.0.to_le_bytes());
    crc32c::crc32c_append(crc, body)
}
