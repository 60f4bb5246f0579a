//! The wire between the two machines' network cards: frames pass through here, and some do not.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// UDP port of the VXLAN devices.
const VXLAN: u16 = 8472;
/// Where the pods' IP header is, bytes: behind Ethernet, IPv4 without options, UDP, VXLAN (RFC 7348) and
/// Ethernet.
const INNER: usize = 14 + 20 + 8 + 8 + 14;

/// From which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    A,
    B,
}

type Loses = Box<dyn FnMut(From, &[u8]) -> bool + Send>;

/// The wire.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<Loses>>);

/// A wire that has a fault until this is dropped.
pub struct Fault<'w>(&'w Wire);

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        self.0.set(Box::new(|_, _| false));
    }
}

impl Wire {
    /// Lays it.
    pub fn between(directory: &Path) -> Self {
        let wire = Self(Arc::new(Mutex::new(Box::new(|_, _| false))));
        let end = |name: &str| UnixDatagram::bind(directory.join(name)).expect("an end");
        let (a, b) = (end("A.wire"), end("B.wire"));
        let copy = |end: &UnixDatagram| end.try_clone().expect("a descriptor");
        for (from, near, far, nic) in
            [(From::A, copy(&a), copy(&b), "B.nic"), (From::B, b, a, "A.nic")]
        {
            let (wire, nic) = (wire.clone(), directory.join(nic));
            thread::spawn(move || wire.carry(from, &near, &far, &nic));
        }
        wire
    }

    fn carry(&self, from: From, near: &UnixDatagram, far: &UnixDatagram, nic: &Path) {
        let mut frame = vec![0; 1 << 17];
        loop {
            let length = near.recv(&mut frame).expect("receive a frame");
            let frame = &frame[..length];
            if (self.0.lock().expect("no panic"))(from, frame) {
                continue;
            }
            match far.send_to(frame, nic) {
                // Nobody is there yet, or any more.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::ConnectionRefused
                    ) => {}
                sent => {
                    sent.expect("send a frame");
                }
            }
        }
    }

    fn set(&self, loses: Loses) {
        *self.0.lock().expect("no panic") = loses;
    }

    /// Loses the frames that `loses` says.
    #[must_use]
    pub fn broken(&self, loses: impl FnMut(From, &[u8]) -> bool + Send + 'static) -> Fault<'_> {
        self.set(Box::new(loses));
        Fault(self)
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Whether a frame is a packet of the tunnel.
pub fn is_vxlan(frame: &[u8]) -> bool {
    be16(frame, 12) == Some(0x0800) && frame.get(23) == Some(&17) && be16(frame, 36) == Some(VXLAN)
}

/// Whether a frame carries TCP of pods, with this many bytes of IP packet or more.
pub fn is_large_tcp(frame: &[u8], bytes: u16) -> bool {
    is_vxlan(frame)
        && frame.get(INNER + 9) == Some(&6)
        && be16(frame, INNER + 2).is_some_and(|length| length >= bytes)
}
