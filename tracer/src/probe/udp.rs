//! UDP datagrams, each from a socket (and so from a port) of its own: what chooses by the source port,
//! such as a service with several backends, sees as many clients. ICMP errors come back through the
//! error queue of the socket they are about.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, setsockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::engine::{Sent, Transport};
use super::tally::{Tally, error_text};
use super::{MAX_OPEN, Probe, local_port, wire};

/// Largest datagram.
const MAX_DATAGRAM: usize = 1 << 16;
/// `SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6` (include/uapi/linux/errqueue.h).
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// A UDP probe.
pub(super) struct Udp {
    probe: Probe,
    to: SockAddr,
    open: VecDeque<Attempt>,
    buffer: Vec<u8>,
}

/// A datagram that was sent. Its socket stays open also when it was answered: a second answer to a
/// closed port would make the pod send an ICMP error.
struct Attempt {
    number: u64,
    socket: Socket,
    settled: bool,
}

/// An entry of a socket's error queue.
struct Report {
    error: libc::sock_extended_err,
    from: Option<IpAddr>,
}

impl Udp {
    /// Prepares datagrams; a first socket shows whether the source address can be used.
    pub(super) fn open(probe: &Probe) -> io::Result<Self> {
        let (to, buffer) = (probe.remote(probe.port), vec![0; MAX_DATAGRAM]);
        let udp = Self { probe: probe.clone(), to, open: VecDeque::new(), buffer };
        udp.socket()?;
        Ok(udp)
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = Domain::for_address(std::net::SocketAddr::new(self.probe.dst, 0));
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        match self.probe.dst {
            IpAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true)?,
            IpAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true)?,
        }
        self.probe.bind(&socket)?;
        Ok(socket)
    }

    /// Makes room for one more socket: those that nothing is expected of go first, then the oldest.
    fn make_room(&mut self, tally: &mut Tally) {
        if self.open.len() < MAX_OPEN {
            return;
        }
        let settled = self.open.iter().position(|attempt| attempt.settled).unwrap_or(0);
        if let Some(attempt) = self.open.remove(settled) {
            tally.give_up(attempt.number);
        }
    }
}

impl Attempt {
    /// Takes in what has arrived.
    fn receive(&mut self, buffer: &mut [u8], tally: &mut Tally) {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(_) => {
                    tally.answer(self.number, Instant::now());
                    self.settled = true;
                }
                Err(Errno::EINTR) => {}
                // Nothing more, or an error, told once, whose details are in the error queue.
                Err(_) => break,
            }
        }
        while let Some(Report { error, from }) = self.next_report(buffer) {
            // What the kernel refuses locally is told by send(2) as well: count it there.
            if !matches!(error.ee_origin, ORIGIN_ICMP | ORIGIN_ICMP6) {
                continue;
            }
            self.settled = true;
            if error.ee_errno.cast_signed() == libc::ECONNREFUSED {
                tally.refuse(self.number, Instant::now());
                continue;
            }
            let v4 = error.ee_origin == ORIGIN_ICMP;
            let mut text = wire::describe(v4, error.ee_type, error.ee_code);
            if let Some(from) = from {
                text = format!("{text} from {from}");
            }
            tally.fail(self.number, text);
        }
    }

    /// Takes one report off the error queue.
    fn next_report(&self, buffer: &mut [u8]) -> Option<Report> {
        let mut control = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<()>(fd, &mut slices, Some(&mut control), flags).ok()?;
        message.cmsgs().ok()?.find_map(|c| match c {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let from =
                    from.map(|a| IpAddr::from(u32::from_be(a.sin_addr.s_addr).to_be_bytes()));
                Some(Report { error, from })
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                let from = from.map(|a| IpAddr::from(a.sin6_addr.s6_addr));
                Some(Report { error, from })
            }
            _ => None,
        })
    }
}

impl Transport for Udp {
    fn send(&mut self, tally: &mut Tally) -> Sent {
        self.make_room(tally);
        let number = tally.sent();
        tally.send(Instant::now());
        let socket = match self.socket() {
            Ok(socket) => socket,
            Err(error) => {
                tally.attempt(number, 0);
                tally.fail(number, error_text(&error));
                return Sent::Yes;
            }
        };
        tally.attempt(number, local_port(&socket));
        let payload = wire::udp_payload(number, self.probe.size);
        match socket.connect(&self.to).and_then(|()| socket.send(&payload)) {
            Ok(_) => self.open.push_back(Attempt { number, socket, settled: false }),
            Err(error) => tally.fail(number, error_text(&error)),
        }
        Sent::Yes
    }

    fn receive(&mut self, tally: &mut Tally) {
        let mut fds: Vec<PollFd<'_>> =
            self.open.iter().map(|a| PollFd::new(a.socket.as_fd(), PollFlags::POLLIN)).collect();
        // What poll(2) does not tell now it tells at the next call.
        let ready: Vec<bool> = match poll(&mut fds, PollTimeout::ZERO) {
            Ok(1..) => fds.iter().map(|fd| fd.any().unwrap_or(true)).collect(),
            _ => return,
        };
        for (attempt, _) in self.open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            attempt.receive(&mut self.buffer, tally);
        }
    }

    fn sockets(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        self.open.iter().map(|a| (a.socket.as_fd(), PollFlags::POLLIN)).collect()
    }
}
