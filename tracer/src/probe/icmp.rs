//! Echo requests over a raw socket.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Probe;
use super::engine::{Sent, Transport};
use super::tally::{Tally, error_text};
use super::wire::{self, Message};

/// Socket buffer asked for, bytes: seconds of answers at 1,000 packets/s.
pub(super) const RECEIVE_BUFFER: usize = 4 << 20;
/// Largest packet a raw socket can hand over: an IPv4 packet with header.
const MAX_PACKET: usize = 1 << 16;
/// `SOL_RAW`, `ICMP_FILTER` (include/uapi/linux/icmp.h).
const SOL_RAW: libc::c_int = 255;
const ICMP_FILTER: libc::c_int = 1;
/// `ICMPV6_FILTER` (include/uapi/linux/icmpv6.h).
const ICMPV6_FILTER: libc::c_int = 1;

/// An ICMP probe.
pub(super) struct Icmp {
    socket: Socket,
    to: SockAddr,
    dst: IpAddr,
    id: u16,
    size: usize,
    buffer: Vec<u8>,
}

impl Icmp {
    /// Opens the socket, in the namespace of the calling thread.
    pub(super) fn open(probe: &Probe) -> io::Result<Self> {
        let (domain, protocol) = match probe.dst {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))
            .map_err(|e| probe.context("open a raw socket for ICMP (needs CAP_NET_RAW)", &e))?;
        filter(&socket, probe.dst.is_ipv4())
            .map_err(|e| probe.context("filter the raw socket for ICMP", &e))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        probe.bind(&socket)?;
        if probe.dont_fragment {
            whole(&socket, probe.dst.is_ipv4())
                .map_err(|e| probe.context("forbid fragmentation", &e))?;
        }
        // Random, so that several probes from one pod do not take each other's answers.
        let id = (RandomState::new().hash_one(probe.dst) as u16).max(1);
        Ok(Self {
            socket,
            to: probe.remote(0),
            dst: probe.dst,
            id,
            size: probe.size,
            buffer: vec![0; MAX_PACKET],
        })
    }
}

impl Transport for Icmp {
    fn send(&mut self, tally: &mut Tally) -> Sent {
        let number = tally.sent();
        let packet = wire::echo_request(self.dst.is_ipv4(), self.id, number, self.size);
        tally.send(Instant::now());
        match self.socket.send_to(&packet, &self.to) {
            Ok(_) => Sent::Yes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tally.unsend();
                Sent::NotNow
            }
            Err(error) => {
                tally.fail(number, error_text(&error));
                Sent::Yes
            }
        }
    }

    fn receive(&mut self, tally: &mut Tally) {
        loop {
            match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut self.buffer) {
                Ok((length, from)) => {
                    let now = Instant::now();
                    let Some(from) = from.as_ref().and_then(address) else { continue };
                    let packet = self.buffer.get(..length).unwrap_or_default();
                    match wire::parse(packet, from, self.dst, self.id) {
                        Some(Message::Reply { seq }) => {
                            if let Some(number) = tally.number(seq) {
                                tally.answer(number, now);
                            }
                        }
                        Some(Message::Error { kind, code, seq }) => {
                            let text = wire::describe(self.dst.is_ipv4(), kind, code);
                            let text = format!("{text} from {from}");
                            match tally.number(seq) {
                                Some(number) => tally.fail(number, text),
                                None => tally.error(text),
                            }
                        }
                        None => {}
                    }
                }
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tally.error(error_text(&errno.into()));
                    return;
                }
            }
        }
    }

    fn sockets(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        vec![(self.socket.as_fd(), PollFlags::POLLIN)]
    }
}

/// The network address of a socket address.
pub(super) fn address(from: &SockaddrStorage) -> Option<IpAddr> {
    match from.family()? {
        nix::sys::socket::AddressFamily::Inet => Some(from.as_sockaddr_in()?.ip().into()),
        nix::sys::socket::AddressFamily::Inet6 => Some(from.as_sockaddr_in6()?.ip().into()),
        _ => None,
    }
}

/// Lets only echo replies and errors through, so that a busy pod's other ICMP does not fill the
/// socket. In both filters a set bit blocks its type.
fn filter(socket: &Socket, v4: bool) -> io::Result<()> {
    if v4 {
        let mask = wire::WANTED4.iter().fold(u32::MAX, |mask, kind| mask & !(1 << kind));
        set_option(socket, SOL_RAW, ICMP_FILTER, &[mask])
    } else {
        let mut mask = [u32::MAX; 8];
        for kind in wire::WANTED6 {
            if let Some(word) = mask.get_mut(usize::from(kind / 32)) {
                *word &= !(1 << (kind % 32));
            }
        }
        set_option(socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &mask)
    }
}

/// Sends packets unfragmented, up to the MTU of the pod's own interface: `IP_PMTUDISC_PROBE` sets
/// "don't fragment" and ignores what was learned of the path (include/uapi/linux/in.h, in6.h).
fn whole(socket: &Socket, v4: bool) -> io::Result<()> {
    if v4 {
        let probe = libc::IP_PMTUDISC_PROBE.cast_unsigned();
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &[probe])
    } else {
        let probe = libc::IPV6_PMTUDISC_PROBE.cast_unsigned();
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &[probe])
    }
}

fn set_option(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
    value: &[u32],
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and `value` is readable for `length` bytes during the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
