//! Asks the kernel for a table over netlink, as bytes: for families that the netlink crates do not
//! parse, or not for every kernel.

use std::io;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::sys::Socket;

/// The kernel answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(2);
/// Size of `struct nlmsghdr` (include/uapi/linux/netlink.h), bytes.
const HEADER: usize = 16;
/// NLM_F_REQUEST | NLM_F_DUMP.
const FLAGS: u16 = 0x301;
/// NLMSG_ERROR.
const ERROR: u16 = 2;
/// NLMSG_DONE.
const DONE: u16 = 3;

/// Every message of a dump, without its header, given to `each`; this goes on until `each` says
/// no.
///
/// # Errors
/// When the kernel refuses, or does not answer.
pub(super) fn dump(
    protocol: isize,
    kind: u16,
    body: &[u8],
    mut each: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    let patience = TimeVal::milliseconds(i64::try_from(PATIENCE.as_millis()).unwrap_or(i64::MAX));
    setsockopt(&socket, ReceiveTimeout, &patience)?;
    socket.send(&request(kind, body), 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if datagram.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = datagram.as_slice();
        while let Some((kind, body, after)) = message(rest) {
            match kind {
                DONE => return Ok(()),
                ERROR => return error(body),
                _ if !each(body) => return Ok(()),
                _ => rest = after,
            }
        }
    }
}

fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(FLAGS.to_ne_bytes());
    // Sequence number and port of the sender: only this request is on the socket.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// The first message: its type, its body, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(number32(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((number16(bytes, 4)?, body, after))
}

fn error(body: &[u8]) -> io::Result<()> {
    match number32(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_abs())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Attributes (`struct nlattr`): type without flags, and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    // NLA_F_NESTED and NLA_F_NET_BYTEORDER.
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let length = usize::from(number16(bytes, 0)?);
        let value = bytes.get(4..length)?;
        let kind = number16(bytes, 2)? & !FLAGS;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A string that ends with a zero byte.
pub(super) fn string(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// The bytes at `at`.
pub(super) fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// In the machine's byte order.
pub(super) fn number16(from: &[u8], at: usize) -> Option<u16> {
    bytes(from, at).map(u16::from_ne_bytes)
}

/// In the machine's byte order.
pub(super) fn number32(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_ne_bytes)
}

/// In the machine's byte order.
pub(super) fn number64(from: &[u8], at: usize) -> Option<u64> {
    bytes(from, at).map(u64::from_ne_bytes)
}
