//! UDP datagrams from one connected socket; ICMP errors come back through its error queue.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, setsockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::Probe;
use super::engine::{Sent, Transport};
use super::icmp::RECEIVE_BUFFER;
use super::tally::{Tally, error_text};
use super::wire;

/// Largest datagram.
const MAX_DATAGRAM: usize = 1 << 16;
/// `SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6` (include/uapi/linux/errqueue.h).
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// A UDP probe.
pub(super) struct Udp {
    socket: Socket,
    size: usize,
    buffer: Vec<u8>,
}

/// An entry of the error queue.
struct Report {
    error: libc::sock_extended_err,
    from: Option<IpAddr>,
    /// Number in the quoted datagram.
    number: Option<u64>,
}

impl Udp {
    /// Opens the socket, in the namespace of the calling thread.
    pub(super) fn open(probe: &Probe) -> io::Result<Self> {
        let domain = Domain::for_address(std::net::SocketAddr::new(probe.dst, 0));
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        match probe.dst {
            IpAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true)?,
            IpAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true)?,
        }
        probe.bind(&socket)?;
        socket
            .connect(&probe.remote(probe.port))
            .map_err(|e| probe.context(&format!("send from {} to {}", probe.src, probe.dst), &e))?;
        Ok(Self { socket, size: probe.size, buffer: vec![0; MAX_DATAGRAM] })
    }

    /// Takes one report off the error queue.
    fn next_report(&mut self) -> Option<Report> {
        let mut control = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<()>(fd, &mut slices, Some(&mut control), flags).ok()?;
        let length = message.bytes;
        let (error, from) = message.cmsgs().ok()?.find_map(|c| match c {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let from =
                    from.map(|a| IpAddr::from(u32::from_be(a.sin_addr.s_addr).to_be_bytes()));
                Some((error, from))
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                Some((error, from.map(|a| IpAddr::from(a.sin6_addr.s6_addr))))
            }
            _ => None,
        })?;
        let number = wire::udp_number(self.buffer.get(..length).unwrap_or_default());
        Some(Report { error, from, number })
    }

    /// Takes in the reports of ICMP errors, and says how many there were.
    fn receive_reports(&mut self, tally: &mut Tally) -> usize {
        let mut count = 0;
        while let Some(Report { error, from, number }) = self.next_report() {
            // What the kernel refuses locally is told by send(2) as well: count it there.
            if !matches!(error.ee_origin, ORIGIN_ICMP | ORIGIN_ICMP6) {
                continue;
            }
            count += 1;
            let number = number.or_else(|| tally.oldest_waiting());
            if error.ee_errno.cast_signed() == libc::ECONNREFUSED {
                if let Some(number) = number {
                    tally.refuse(number, Instant::now());
                }
                continue;
            }
            let v4 = error.ee_origin == ORIGIN_ICMP;
            let mut text = wire::describe(v4, error.ee_type, error.ee_code);
            if let Some(from) = from {
                text = format!("{text} from {from}");
            }
            match number {
                Some(number) => tally.fail(number, text),
                None => tally.error(text),
            }
        }
        count
    }

    fn receive_answers(&mut self, tally: &mut Tally) {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => {
                    let answer = self.buffer.get(..length).unwrap_or_default();
                    // A server that does not echo answers in turn, most likely.
                    let number = wire::udp_number(answer).or_else(|| tally.oldest_waiting());
                    if let Some(number) = number {
                        tally.answer(number, Instant::now());
                    }
                }
                Err(Errno::EINTR) => {}
                // Nothing more, or an error, told once, whose details are in the error queue.
                Err(_) => return,
            }
        }
    }
}

impl Transport for Udp {
    fn send(&mut self, tally: &mut Tally) -> Sent {
        let number = tally.sent();
        let payload = wire::udp_payload(number, self.size);
        loop {
            tally.send(Instant::now());
            let error = match self.socket.send(&payload) {
                Ok(_) => return Sent::Yes,
                Err(error) => error,
            };
            if error.kind() == io::ErrorKind::WouldBlock {
                tally.unsend();
                return Sent::NotNow;
            }
            // An ICMP error about an earlier datagram that came in just now is returned instead of
            // sending: then its report is in the queue, and this datagram is still to be sent.
            tally.unsend();
            if self.receive_reports(tally) == 0 {
                tally.send(Instant::now());
                tally.fail(number, error_text(&error));
                return Sent::Yes;
            }
        }
    }

    fn receive(&mut self, tally: &mut Tally) {
        self.receive_answers(tally);
        self.receive_reports(tally);
    }

    fn sockets(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        vec![(self.socket.as_fd(), PollFlags::POLLIN)]
    }
}
