//! The probe: test traffic sent from inside the source pod's namespace.
//!
//! Enters: what to send, to whom, how often. Leaves: how many were sent and answered, round-trip
//! times, and every error the kernel or the network reported. An error of a single packet never
//! ends the probe: that it fails is what the user wants to see explained.

mod engine;
mod icmp;
mod tally;
mod tcp;
mod udp;
mod wire;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{SockAddr, Socket};

use crate::model::ProbeResult;
use crate::netns::{Guard, Netns};
use tally::{Counters, Tally};

/// Sockets that may be open at once: half of the usual limit of open files (1024). Beyond it the oldest
/// attempt counts as unanswered.
const MAX_OPEN: usize = 512;

/// What kind of traffic to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// ICMP or ICMPv6 echo requests.
    Icmp,
    /// TCP connection attempts, each on a socket of its own.
    Tcp,
    /// UDP datagrams, each from a socket of its own.
    Udp,
}

impl Proto {
    /// `icmp`, `tcp`, `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Proto::Icmp => "icmp",
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        }
    }

    /// IP protocol number (IANA); ICMP stands for ICMPv6 too.
    pub fn number(self) -> u8 {
        match self {
            Proto::Icmp => 1,
            Proto::Tcp => 6,
            Proto::Udp => 17,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Proto {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Proto::Icmp, Proto::Tcp, Proto::Udp]
            .into_iter()
            .find(|p| p.as_str() == s)
            .ok_or_else(|| format!("{s:?} is not a protocol the probe speaks: icmp, tcp or udp"))
    }
}

/// Test traffic to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Kind of traffic.
    pub proto: Proto,
    /// Address to send from; must exist in the namespace.
    pub src: IpAddr,
    /// Address to send to; of the same IP version as `src`.
    pub dst: IpAddr,
    /// Destination port (TCP, UDP).
    pub port: u16,
    /// Packets (TCP: connection attempts) to send; `u64::MAX`: until stopped.
    pub count: u64,
    /// Time from one packet to the next; packet `n` is due at `n` × `interval` after the first, so
    /// that delays do not add up.
    pub interval: Duration,
    /// Payload bytes as `ping -s` counts them: behind the ICMP or UDP header. TCP attempts carry
    /// none.
    pub size: usize,
    /// Forbid fragmentation, whatever the kernel has learned of the path's MTU (ICMP).
    pub dont_fragment: bool,
    /// How long to wait for outstanding answers after the last packet; for TCP also the longest
    /// that one attempt may take.
    pub timeout: Duration,
}

/// How far a probe has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Packets sent.
    pub sent: u64,
    /// Answers received.
    pub answered: u64,
}

/// A running probe. Dropped without [`ProbeHandle::join`], the probe goes on until its end or the
/// stop flag.
#[derive(Debug)]
pub struct ProbeHandle {
    counters: Arc<Counters>,
    thread: io::Result<JoinHandle<io::Result<ProbeResult>>>,
}

impl Probe {
    /// Starts sending from inside `netns`, on a thread of its own, until `count` is reached and the
    /// answers are in (or late), or until `stop` is set (noticed within 20 ms).
    ///
    /// What prevents the start (no such source address, no privilege) is told by
    /// [`ProbeHandle::join`].
    pub fn start(self, netns: &Netns, stop: Arc<AtomicBool>) -> ProbeHandle {
        let counters = Arc::<Counters>::default();
        let (netns, shared) = (netns.clone(), Arc::clone(&counters));
        let thread = std::thread::Builder::new().name("probe".into()).spawn(move || {
            let _inside = Guard::enter(&netns)?;
            self.run(shared, &stop)
        });
        ProbeHandle { counters, thread }
    }

    /// Sends from the namespace that the calling thread is in.
    fn run(&self, counters: Arc<Counters>, stop: &AtomicBool) -> io::Result<ProbeResult> {
        if self.src.is_ipv4() != self.dst.is_ipv4() {
            return Err(io::Error::other(format!(
                "cannot send from {} to {}: one is IPv4, the other IPv6; choose addresses of one \
                 version",
                self.src, self.dst
            )));
        }
        let mut tally = Tally::new(self.proto.as_str(), counters);
        match self.proto {
            Proto::Icmp => engine::run(self, &mut icmp::Icmp::open(self)?, &mut tally, stop)?,
            Proto::Tcp => engine::run(self, &mut tcp::Tcp::open(self)?, &mut tally, stop)?,
            Proto::Udp => engine::run(self, &mut udp::Udp::open(self)?, &mut tally, stop)?,
        }
        Ok(tally.finish())
    }

    /// Socket address of the source, port chosen by the kernel.
    fn local(&self) -> SockAddr {
        SocketAddr::new(self.src, 0).into()
    }

    /// Socket address of the destination.
    fn remote(&self, port: u16) -> SockAddr {
        SocketAddr::new(self.dst, port).into()
    }

    /// Says what could not be done, keeping the kind of the error.
    fn context(&self, what: &str, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot {what}: {error}"))
    }

    /// Binds `socket` to the source address.
    fn bind(&self, socket: &Socket) -> io::Result<()> {
        socket.bind(&self.local()).map_err(|e| {
            self.context(&format!("send from {} (is it an address of the pod?)", self.src), &e)
        })
    }
}

/// Port that `socket` is bound to; 0 where the kernel does not say.
fn local_port(socket: &Socket) -> u16 {
    socket.local_addr().ok().and_then(|addr| addr.as_socket()).map_or(0, |addr| addr.port())
}

impl ProbeHandle {
    /// What has been sent and answered so far.
    pub fn progress(&self) -> Progress {
        Progress {
            sent: self.counters.sent.load(Ordering::Relaxed),
            answered: self.counters.answered.load(Ordering::Relaxed),
        }
    }

    /// Whether the probe has ended, so that [`ProbeHandle::join`] returns at once.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Waits for the end of the probe.
    ///
    /// # Errors
    /// When it could not start: no thread, namespace cannot be entered, no privilege for a raw
    /// socket, or the source address is not there.
    pub fn join(self) -> io::Result<ProbeResult> {
        self.thread?.join().unwrap_or_else(|_| Err(io::Error::other("the probe's thread panicked")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_parsed_by_name() {
        for proto in [Proto::Icmp, Proto::Tcp, Proto::Udp] {
            assert_eq!(proto.to_string().parse(), Ok(proto));
        }
        assert!("sctp".parse::<Proto>().unwrap_err().contains("icmp, tcp or udp"));
    }

    #[test]
    fn mixed_ip_versions_are_refused() {
        let probe = Probe {
            proto: Proto::Udp,
            src: "127.0.0.1".parse().unwrap(),
            dst: "::1".parse().unwrap(),
            port: 9,
            count: 1,
            interval: Duration::ZERO,
            size: 0,
            dont_fragment: false,
            timeout: Duration::ZERO,
        };
        let error = probe.run(Arc::default(), &AtomicBool::new(false)).unwrap_err();
        assert!(error.to_string().contains("one is IPv4, the other IPv6"), "{error}");
    }
}
