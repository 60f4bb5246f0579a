//! The traffic-control messages of rtnetlink that clsact needs (include/uapi/linux/rtnetlink.h and
//! pkt_cls.h, Linux 6.18), over a blocking socket of the current namespace.
//!
//! Of what others have attached only kind and name are looked at: an attribute that this module does
//! not know must not stand in the way.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

// Message types and flags (include/uapi/linux/rtnetlink.h, netlink.h).
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_ECHO: u16 = 0x8;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

// Attributes (rtnetlink.h, pkt_cls.h).
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// The program's return value is the verdict.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// Marks attributes that hold attributes.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// `TC_H_CLSACT`: what the qdisc hangs on.
const PARENT_CLSACT: u32 = 0xffff_fff1;
/// Handle of the clsact and the ingress qdisc.
const HANDLE_CLSACT: u32 = 0xffff_0000;
/// `ETH_P_ALL` in network byte order, as `tcm_info` has it.
const ALL_PROTOCOLS: u32 = 3_u16.to_be() as u32;

/// `struct nlmsghdr` and `struct tcmsg`, bytes.
const NETLINK_HEADER: usize = 16;
const TC_HEADER: usize = 20;

/// A direction of an interface, as a filter's parent (`TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Parent {
    Ingress = 0xffff_fff2,
    Egress = 0xffff_fff3,
}

/// A qdisc that filters on a direction can hang on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Qdisc {
    pub ifindex: u32,
    /// `clsact`, or `ingress`, which has the same handle and no egress.
    pub kind: String,
}

/// A filter of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub priority: u16,
    pub handle: u32,
    /// `bpf`, `u32`, …
    pub kind: String,
    /// Of a BPF filter, as given when it was attached.
    pub name: String,
}

/// A socket of the namespace in which it was opened.
pub(super) struct Tc {
    socket: OwnedFd,
    sequence: u32,
}

impl Tc {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The clsact and ingress qdiscs of all interfaces.
    pub(super) fn qdiscs(&mut self) -> io::Result<Vec<Qdisc>> {
        let replies = self.ask(RTM_GETQDISC, NLM_F_DUMP, TcMessage::default())?;
        let here = replies.iter().filter(|m| m.handle == HANDLE_CLSACT);
        Ok(here.map(|m| Qdisc { ifindex: m.ifindex, kind: m.kind() }).collect())
    }

    /// Adds a clsact qdisc; false when one, or an ingress qdisc, is there.
    pub(super) fn add_clsact(&mut self, ifindex: u32) -> io::Result<bool> {
        let mut message = TcMessage::qdisc(ifindex);
        message.attribute(TCA_KIND, b"clsact\0");
        match self.ask(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, message) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn delete_clsact(&mut self, ifindex: u32) -> io::Result<()> {
        self.ask(RTM_DELQDISC, 0, TcMessage::qdisc(ifindex)).map(drop)
    }

    /// Filters in the order in which packets meet them.
    pub(super) fn filters(&mut self, ifindex: u32, parent: Parent) -> io::Result<Vec<Filter>> {
        let message = TcMessage { ifindex, parent: parent as u32, ..TcMessage::default() };
        let replies = self.ask(RTM_GETTFILTER, NLM_F_DUMP, message)?;
        // Each priority is announced by a message with handle 0.
        Ok(replies.iter().filter(|m| m.handle != 0).map(TcMessage::filter).collect())
    }

    /// Attaches a BPF program. Returns the handle; fails with EINVAL when a filter of another kind
    /// has this priority.
    pub(super) fn add_filter(
        &mut self,
        ifindex: u32,
        parent: Parent,
        priority: u16,
        program: BorrowedFd<'_>,
        name: &str,
    ) -> io::Result<u32> {
        let mut message = TcMessage::of_filter(ifindex, parent, priority, 0);
        message.attribute(TCA_KIND, b"bpf\0");
        let mut options = Vec::new();
        attribute(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
        attribute(&mut options, TCA_BPF_NAME, &[name.as_bytes(), &[0]].concat());
        attribute(&mut options, TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
        message.attribute(TCA_OPTIONS, &options);
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;
        let replies = self.ask(RTM_NEWTFILTER, flags, message)?;
        replies
            .iter()
            .find(|m| m.handle != 0)
            .map(|m| m.handle)
            .ok_or_else(|| io::Error::other("the kernel did not say which handle a filter has"))
    }

    pub(super) fn delete_filter(
        &mut self,
        ifindex: u32,
        parent: Parent,
        priority: u16,
        handle: u32,
    ) -> io::Result<()> {
        let message = TcMessage::of_filter(ifindex, parent, priority, handle);
        self.ask(RTM_DELTFILTER, 0, message).map(drop)
    }

    /// Sends a request and reads all replies up to the acknowledgement or the end of the dump.
    fn ask(&mut self, kind: u16, flags: u16, message: TcMessage) -> io::Result<Vec<TcMessage>> {
        self.sequence += 1;
        let flags = flags | NLM_F_REQUEST | NLM_F_ACK;
        let bytes = message.emit(kind, flags, self.sequence);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut replies = Vec::new();
        // A dump comes in datagrams of up to 32 KiB (net/netlink/af_netlink.c).
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => continue,
                result => result?,
            };
            if read(&buffer[..n], self.sequence, &mut replies)? {
                return Ok(replies);
            }
        }
    }
}

/// A `struct tcmsg` and its attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TcMessage {
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
    attributes: Vec<u8>,
}

impl TcMessage {
    fn qdisc(ifindex: u32) -> Self {
        Self { ifindex, handle: HANDLE_CLSACT, parent: PARENT_CLSACT, ..Self::default() }
    }

    fn of_filter(ifindex: u32, parent: Parent, priority: u16, handle: u32) -> Self {
        let info = u32::from(priority) << 16 | ALL_PROTOCOLS;
        Self { ifindex, handle, parent: parent as u32, info, ..Self::default() }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        attribute(&mut self.attributes, kind, value);
    }

    fn emit(&self, kind: u16, flags: u16, sequence: u32) -> Vec<u8> {
        let length = NETLINK_HEADER + TC_HEADER + self.attributes.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        // The kernel knows who asks; AF_UNSPEC and padding.
        bytes.extend([0; 4]);
        bytes.extend([0; 4]);
        for word in [self.ifindex, self.handle, self.parent, self.info] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.attributes);
        bytes
    }

    fn parse(payload: &[u8]) -> Option<Self> {
        let word = |at| Some(u32::from_ne_bytes(payload.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            ifindex: word(4)?,
            handle: word(8)?,
            parent: word(12)?,
            info: word(16)?,
            attributes: payload.get(TC_HEADER..)?.to_vec(),
        })
    }

    fn kind(&self) -> String {
        find(&self.attributes, TCA_KIND).map(text).unwrap_or_default()
    }

    fn filter(&self) -> Filter {
        let kind = self.kind();
        let options = find(&self.attributes, TCA_OPTIONS).filter(|_| kind == "bpf");
        let name = options.and_then(|options| find(options, TCA_BPF_NAME)).map(text);
        Filter {
            priority: u16::try_from(self.info >> 16).unwrap_or(0),
            handle: self.handle,
            kind,
            name: name.unwrap_or_default(),
        }
    }
}

/// Appends an attribute, padded to four bytes.
fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of this type.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (half(attributes, 0)?, half(attributes, 2)?);
        let value = attributes.get(4..usize::from(length))?;
        if kind & NLA_TYPE_MASK == wanted {
            return Some(value);
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4)..)?;
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A string up to its zero byte.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Reads the messages of one datagram; true when the last of them ends the answer.
fn read(mut bytes: &[u8], sequence: u32, replies: &mut Vec<TcMessage>) -> io::Result<bool> {
    let malformed = || io::Error::other("malformed netlink message");
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
        word.map(u32::from_ne_bytes).ok_or_else(malformed)
    };
    while !bytes.is_empty() {
        let length = word(bytes, 0)? as usize;
        let message = bytes.get(NETLINK_HEADER..length).ok_or_else(malformed)?;
        let kind = half(bytes, 4).ok_or_else(malformed)?;
        // An earlier request's rest has another number.
        if word(bytes, 8)? == sequence {
            match kind {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    // A negative errno, or 0 for "done".
                    let error = word(message, 0)?.cast_signed();
                    return if error == 0 {
                        Ok(true)
                    } else {
                        Err(io::Error::from_raw_os_error(error.saturating_neg()))
                    };
                }
                _ => replies.extend(TcMessage::parse(message)),
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let mut message = TcMessage::of_filter(7, Parent::Egress, 1, 2);
        message.attribute(TCA_KIND, b"bpf\0");
        let mut options = Vec::new();
        attribute(&mut options, TCA_BPF_NAME, b"podtrace/1\0");
        message.attribute(TCA_OPTIONS | 0x8000, &options);
        let bytes = message.emit(RTM_NEWTFILTER, 0, 5);
        let mut replies = Vec::new();
        assert!(!read(&bytes, 5, &mut replies).unwrap());
        assert_eq!(replies, std::slice::from_ref(&message));
        let filter = replies[0].filter();
        assert_eq!((filter.priority, filter.handle), (1, 2));
        assert_eq!((filter.kind.as_str(), filter.name.as_str()), ("bpf", "podtrace/1"));
        // Somebody else's answer is not ours.
        replies.clear();
        assert!(!read(&bytes, 6, &mut replies).unwrap());
        assert!(replies.is_empty());
    }

    #[test]
    fn errors_of_the_kernel_are_errors() {
        let reply = |error: i32| {
            let mut bytes = Vec::new();
            bytes.extend(20_u32.to_ne_bytes());
            bytes.extend(NLMSG_ERROR.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(1_u32.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(error.to_ne_bytes());
            read(&bytes, 1, &mut Vec::new())
        };
        assert!(reply(0).unwrap());
        assert_eq!(reply(-libc::ENOENT).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut replies = Vec::new();
            let _ = read(&bytes, 0, &mut replies);
            let message = TcMessage { attributes: bytes, ..TcMessage::default() };
            let _ = message.filter();
        }
    }
}
