//! The traffic: bulk TCP, small UDP packets as fast as they go, and a flood ping; each for a short
//! time, from pod to pod.
//!
//! Sender and receiver are threads of this process on the first and the last CPU, so that how the
//! scheduler places them is no part of the result. Whatever observes goes where it likes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use super::lab::{Lab, SOURCE, TARGET, in_pod};
use crate::process::output_of;

/// Payload of a small packet, bytes.
pub const SMALL: usize = 64;
/// Receive buffer of the UDP receiver, bytes: its own pauses shall lose nothing.
const UDP_BUFFER: usize = 32 << 20;
/// A port that nothing else in the lab uses.
const PORT: u16 = 9000;
/// Without traffic for this long, the receiver looks whether it is over.
const LULL: Duration = Duration::from_millis(50);

/// What UDP packets became.
#[derive(Clone, Copy, Debug)]
pub struct Udp {
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Packets received per second of sending.
    pub rate: f64,
}

fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

fn last_cpu() -> usize {
    thread::available_parallelism().map_or(0, |n| n.get() - 1)
}

fn address(ip: [u8; 4]) -> SocketAddr {
    (ip, PORT).into()
}

fn is_lull(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Small UDP packets as fast as one sender can; with `ttl` they need not arrive.
pub fn udp(time: Duration, ttl: Option<u32>) -> Result<Udp> {
    let receiver = in_pod(TARGET, || {
        let socket = UdpSocket::bind(address([0; 4]))?;
        socket.set_read_timeout(Some(LULL))?;
        setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &UDP_BUFFER)?;
        Ok(socket)
    })?;
    let sender = in_pod(SOURCE, move || {
        let socket = UdpSocket::bind(SocketAddr::from((SOURCE.ip, 0)))?;
        if let Some(ttl) = ttl {
            socket.set_ttl(ttl)?;
        }
        socket.connect(address(TARGET.ip))?;
        // The first packet resolves addresses on the way.
        socket.send(&[0; SMALL])?;
        Ok(socket)
    })?;
    if ttl.is_none() {
        let mut first = [0; SMALL];
        receiver.recv(&mut first).context("the first UDP packet did not arrive")?;
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| -> Result<u64> {
            pin(last_cpu())?;
            let mut buffer = [0; SMALL];
            let mut received = 0;
            loop {
                match receiver.recv(&mut buffer) {
                    Ok(_) => received += 1,
                    Err(e) if is_lull(e.kind()) && over.load(Relaxed) => return Ok(received),
                    Err(e) if is_lull(e.kind()) => {}
                    Err(e) => return Err(e).context("receive UDP"),
                }
            }
        });
        let sending = scope.spawn(|| -> Result<(u64, Duration)> {
            pin(0)?;
            let began = Instant::now();
            let mut sent = 0;
            while sent % 64 != 0 || began.elapsed() < time {
                match sender.send(&[0; SMALL]) {
                    Ok(_) => sent += 1,
                    // An ICMP error about an earlier packet: this one was not sent.
                    Err(e) if ttl.is_some() && e.kind() == ErrorKind::HostUnreachable => {}
                    Err(e) => return Err(e).context("send UDP"),
                }
            }
            Ok((sent, began.elapsed()))
        });
        let sent = joined(sending.join());
        over.store(true, Relaxed);
        let received = joined(receiving.join())?;
        let (sent, took) = sent?;
        Ok(Udp { sent, received, rate: received as f64 / took.as_secs_f64() })
    })
}

fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    result.unwrap_or_else(|_| bail!("a traffic thread panicked"))
}

/// One TCP connection that sends as fast as it can; bits per second that arrived.
pub fn tcp(time: Duration) -> Result<f64> {
    let listener = in_pod(TARGET, || TcpListener::bind(address(TARGET.ip)))?;
    let mut sender = in_pod(SOURCE, || TcpStream::connect(address(TARGET.ip)))?;
    let (mut receiver, _) = listener.accept().context("accept a TCP connection")?;
    sender.set_write_timeout(Some(Duration::from_secs(10)))?;
    receiver.set_read_timeout(Some(Duration::from_secs(10)))?;
    thread::scope(|scope| {
        let receiving = scope.spawn(move || -> Result<f64> {
            pin(last_cpu())?;
            let mut buffer = vec![0; 256 << 10];
            let began = Instant::now();
            let mut bytes = 0_u64;
            loop {
                match receiver.read(&mut buffer).context("receive TCP")? {
                    0 => break,
                    n => bytes += n as u64,
                }
            }
            Ok(bytes as f64 * 8.0 / began.elapsed().as_secs_f64())
        });
        let sending = scope.spawn(move || -> Result<()> {
            pin(0)?;
            let buffer = vec![0; 128 << 10];
            let began = Instant::now();
            while began.elapsed() < time {
                sender.write_all(&buffer).context("send TCP")?;
            }
            // Dropping it closes the connection, which ends the receiver.
            Ok(())
        });
        joined(sending.join())?;
        joined(receiving.join())
    })
}

/// A flood ping: each request goes out when the answer to the one before has come. Mean round trip,
/// ns.
pub fn ping(lab: &Lab, count: u32) -> Result<f64> {
    let ip = TARGET.ip.map(|byte| byte.to_string()).join(".");
    let count = count.to_string();
    let argv = ["ping", "-f", "-q", "-n", "-c", &count, "-w", "20", &ip];
    let text = output_of(&mut c_locale(lab.inside(SOURCE.name, argv)))?;
    let text = String::from_utf8_lossy(&text);
    mean_round_trip(&text).with_context(|| format!("no round trip in what ping says: {text}"))
}

fn c_locale(mut command: Command) -> Command {
    command.env("LC_ALL", "C");
    command
}

/// From `rtt min/avg/max/mdev = 0.066/0.074/0.310/0.011 ms, …` (iputils), ns.
fn mean_round_trip(text: &str) -> Option<f64> {
    let values = text.lines().find(|l| l.starts_with("rtt "))?.split_once(" = ")?.1;
    let mean: f64 = values.split('/').nth(1)?.parse().ok()?;
    Some(mean * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mean_that_ping_states() {
        let text = "--- 10.10.1.2 ping statistics ---\n\
            3000 packets transmitted, 3000 received, 0% packet loss, time 242ms\n\
            rtt min/avg/max/mdev = 0.066/0.074/0.310/0.011 ms, ipg/ewma 0.080/0.073 ms\n";
        assert_eq!(mean_round_trip(text), Some(74_000.0));
        assert_eq!(mean_round_trip("3000 packets transmitted, 0 received"), None);
    }
}
