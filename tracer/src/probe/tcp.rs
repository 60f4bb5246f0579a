//! TCP connection attempts: is there a listener, and does the handshake get through?

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::engine::{Sent, Transport};
use super::tally::{Tally, error_text};
use super::{MAX_OPEN, Probe, local_port};

/// A TCP probe.
pub(super) struct Tcp {
    probe: Probe,
    to: SockAddr,
    open: VecDeque<Attempt>,
}

/// A connection that is being made.
struct Attempt {
    number: u64,
    since: Instant,
    socket: Socket,
}

impl Tcp {
    /// Prepares attempts; a first socket shows whether the source address can be used.
    pub(super) fn open(probe: &Probe) -> io::Result<Self> {
        let tcp =
            Self { probe: probe.clone(), to: probe.remote(probe.port), open: VecDeque::new() };
        tcp.socket()?;
        Ok(tcp)
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = Domain::for_address(std::net::SocketAddr::new(self.probe.dst, 0));
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        self.probe.bind(&socket)?;
        Ok(socket)
    }

    fn connect(&self, number: u64, tally: &mut Tally) -> io::Result<Socket> {
        let socket = self.socket().inspect_err(|_| tally.attempt(number, 0))?;
        tally.attempt(number, local_port(&socket));
        match socket.connect(&self.to) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    }

    fn expire(&mut self, now: Instant, timeout: Duration, tally: &mut Tally) {
        while let Some(attempt) = self.open.front()
            && (now.saturating_duration_since(attempt.since) >= timeout
                || self.open.len() > MAX_OPEN)
        {
            // Closing ends the kernel's own retransmissions of the SYN.
            tally.give_up(attempt.number);
            self.open.pop_front();
        }
    }
}

impl Transport for Tcp {
    fn send(&mut self, tally: &mut Tally) -> Sent {
        let (number, since) = (tally.sent(), Instant::now());
        tally.send(since);
        match self.connect(number, tally) {
            Ok(socket) => self.open.push_back(Attempt { number, since, socket }),
            Err(error) => settle(tally, number, &error, since),
        }
        Sent::Yes
    }

    fn receive(&mut self, tally: &mut Tally) {
        let mut fds: Vec<PollFd<'_>> =
            self.open.iter().map(|a| PollFd::new(a.socket.as_fd(), PollFlags::POLLOUT)).collect();
        // What poll(2) does not tell now it tells at the next call.
        let ready: Vec<bool> = match poll(&mut fds, PollTimeout::ZERO) {
            Ok(1..) => fds.iter().map(|fd| fd.any().unwrap_or(true)).collect(),
            _ => Vec::new(),
        };
        let now = Instant::now();
        let mut ready = ready.into_iter();
        self.open.retain(|attempt| {
            if ready.next() != Some(true) {
                return true;
            }
            match attempt.socket.take_error() {
                // Dropping the socket closes an established connection with FIN.
                Ok(None) => {
                    tally.answer(attempt.number, now);
                }
                Ok(Some(error)) | Err(error) => settle(tally, attempt.number, &error, now),
            }
            false
        });
        self.expire(now, self.probe.timeout, tally);
    }

    fn sockets(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        self.open.iter().map(|a| (a.socket.as_fd(), PollFlags::POLLOUT)).collect()
    }
}

/// Enters the error that ended an attempt: a reset is an answer.
fn settle(tally: &mut Tally, number: u64, error: &io::Error, now: Instant) {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        tally.refuse(number, now);
    } else {
        tally.fail(number, error_text(error));
    }
}
