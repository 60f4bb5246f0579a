//! Traffic of an application's kind, made from inside a lab while podtrace watches.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracer::lab::Lab;
use tracer::probe::Proto;

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(50);
/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(1);
/// A DNS query for `web.default.svc.cluster.local`, type A (RFC 1035 section 4.1).
const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
    \x03web\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01";

/// A client that asks again and again until it is dropped, each time over a connection of its own.
pub struct Client {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts it in a part of the lab.
    pub fn start(lab: &Lab, target: &str, proto: Proto, to: SocketAddr) -> Self {
        let netns = lab.netns(target).expect("namespace");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let ask = || {
                while !stopped.load(Ordering::Relaxed) {
                    // Whether it is answered is for podtrace to tell.
                    let _ = ask(proto, to);
                    thread::sleep(PAUSE);
                }
            };
            netns.run(ask).expect("enter the namespace");
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request over a connection of its own; says how long the answer is.
pub fn ask(proto: Proto, to: SocketAddr) -> std::io::Result<usize> {
    let mut answer = [0; 512];
    match proto {
        Proto::Tcp => {
            let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
            stream.set_read_timeout(Some(WAIT))?;
            let length = u16::try_from(QUERY.len()).unwrap_or_default().to_be_bytes();
            stream.write_all(&[&length, QUERY].concat())?;
            stream.read(&mut answer)
        }
        Proto::Udp => {
            let any = match to {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(WAIT))?;
            socket.connect(to)?;
            socket.send(QUERY)?;
            socket.recv(&mut answer)
        }
        Proto::Icmp => Err(std::io::Error::other("an application does not ping")),
    }
}
