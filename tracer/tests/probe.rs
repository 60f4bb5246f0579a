//! The probe against real namespaces: two joined by a veth pair.
//!
//! Needs root; runs only with `PODTRACE_PRIVILEGED=1`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{privileged, unique_name};
use tracer::model::{AttemptOutcome, ProbeResult};
use tracer::netns::Netns;
use tracer::probe::{Probe, ProbeHandle, Proto};

const NEAR4: &str = "10.99.7.1";
const FAR4: &str = "10.99.7.2";
const NEAR6: &str = "fd00:99:7::1";
const FAR6: &str = "fd00:99:7::2";

/// Two namespaces joined by a veth pair; removed when dropped.
struct Pair {
    near: String,
    far: String,
}

impl Pair {
    /// `None`, and a word why, when the privileged tests were not asked for.
    fn new() -> Option<Self> {
        if !privileged() {
            return None;
        }
        let name = unique_name();
        let pair =
            Self { near: format!("podtrace-{name}-near"), far: format!("podtrace-{name}-far") };
        let Self { near, far } = &pair;
        run(&format!("ip netns add {near}"));
        run(&format!("ip netns add {far}"));
        run(&format!("ip -n {near} link add v0 type veth peer name v0 netns {far}"));
        for ns in [near, far] {
            run(&format!("ip -n {ns} link set lo up"));
            run(&format!("ip -n {ns} link set v0 up"));
        }
        for (ns, v4, v6) in [(near, NEAR4, NEAR6), (far, FAR4, FAR6)] {
            // IPv6 addresses are not usable before the kernel has noticed the carrier.
            run(&format!("until ip -n {ns} link show v0 | grep -q 'state UP'; do :; done"));
            run(&format!("ip -n {ns} addr add {v4}/24 dev v0"));
            run(&format!("ip -n {ns} addr add {v6}/64 dev v0 nodad"));
        }
        Some(pair)
    }

    fn start(&self, probe: Probe) -> (ProbeHandle, Arc<AtomicBool>) {
        let stop = Arc::<AtomicBool>::default();
        (probe.start(&Netns::open(&self.near).unwrap(), Arc::clone(&stop)), stop)
    }

    fn run(&self, probe: Probe) -> ProbeResult {
        self.start(probe).0.join().unwrap()
    }

    /// Runs `f` in the far namespace: sockets opened there stay there.
    fn far<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        Netns::open(&self.far).unwrap().run(f).unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for ns in [&self.near, &self.far] {
            let _ = Command::new("ip").args(["netns", "del", ns]).status();
        }
    }
}

fn run(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn probe(proto: Proto, v4: bool) -> Probe {
    let (src, dst) = if v4 { (NEAR4, FAR4) } else { (NEAR6, FAR6) };
    Probe {
        proto,
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        port: 7777,
        count: 5,
        interval: Duration::from_millis(2),
        size: 56,
        dont_fragment: false,
        timeout: Duration::from_secs(5),
    }
}

fn complete(result: &ProbeResult, count: u64) {
    assert_eq!((result.sent, result.answered), (count, count), "{result:?}");
    assert_eq!(result.rtt_ns.len() as u64, count);
    assert!(result.rtt_ns.iter().all(|rtt| *rtt > 0), "{result:?}");
    assert!(result.errors.is_empty(), "{result:?}");
}

/// Every attempt is told, had this outcome, and left from a port of its own.
fn told(result: &ProbeResult, outcome: AttemptOutcome) {
    if result.proto == "icmp" {
        assert_eq!(result.attempts, []);
        return;
    }
    let ports: HashSet<_> = result.attempts.iter().map(|attempt| attempt.port).collect();
    assert_eq!(ports.len() as u64, result.sent, "{result:?}");
    assert!(result.attempts.iter().all(|a| a.port != 0 && a.outcome == outcome), "{result:?}");
}

#[test]
fn pings_are_answered() {
    let Some(pair) = Pair::new() else { return };
    for v4 in [true, false] {
        for size in [0, 7, 56, 1400, 4000] {
            let result = pair.run(Probe { size, ..probe(Proto::Icmp, v4) });
            complete(&result, 5);
            assert_eq!(result.proto, "icmp");
        }
    }
}

#[test]
fn pings_keep_their_pace() {
    let Some(pair) = Pair::new() else { return };
    let begin = Instant::now();
    let interval = Duration::from_millis(1);
    let result = pair.run(Probe { count: 2000, interval, ..probe(Proto::Icmp, true) });
    let took = begin.elapsed();
    complete(&result, 2000);
    // Never early; how late depends on how busy the machine is.
    assert!(took >= Duration::from_millis(1999), "{took:?}");
}

#[test]
fn probes_at_the_same_time_do_not_take_each_others_answers() {
    let Some(pair) = Pair::new() else { return };
    let handles: Vec<_> =
        (0..4).map(|_| pair.start(Probe { count: 200, ..probe(Proto::Icmp, true) }).0).collect();
    for handle in handles {
        complete(&handle.join().unwrap(), 200);
    }
}

#[test]
fn errors_of_the_network_are_counted() {
    let Some(pair) = Pair::new() else { return };
    run(&format!("ip -n {} route add 10.98.0.0/16 via {FAR4}", pair.near));
    run(&format!("ip -n {} -6 route add fd00:98::/32 via {FAR6}", pair.near));
    // Routing's own errors are limited to a few per second and host; those of a firewall are not.
    // That is only asked where there is a route.
    run(&format!("ip -n {0} link add d0 type veth peer name d1", pair.far));
    run(&format!("ip -n {0} link set d0 up && ip -n {0} link set d1 up", pair.far));
    run(&format!("ip -n {0} route add 10.98.0.0/16 dev d0", pair.far));
    run(&format!("ip -n {0} -6 route add fd00:98::/32 dev d0", pair.far));
    run(&format!(
        "ip netns exec {} sh -c 'sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0 \
         net.ipv6.conf.all.forwarding=1 net.ipv6.icmp.ratelimit=0 && nft \"add table inet t; \
         add chain inet t f {{ type filter hook forward priority 0; }}; \
         add rule inet t f reject with icmpx no-route\"'",
        pair.far
    ));
    for (v4, dst, text) in [
        (true, "10.98.0.1", format!("ICMP 3/0 network unreachable from {FAR4}")),
        (false, "fd00:98::1", format!("ICMPv6 1/0 destination unreachable from {FAR6}")),
    ] {
        for proto in [Proto::Icmp, Proto::Udp] {
            let dst = dst.parse::<IpAddr>().unwrap();
            let result = pair.run(Probe { dst, ..probe(proto, v4) });
            assert_eq!((result.sent, result.answered), (5, 0), "{result:?}");
            assert_eq!(result.errors, [(text.clone(), 5)], "{proto}");
        }
    }
    let dst = "10.98.0.1".parse().unwrap();
    let result = pair.run(Probe { dst, ..probe(Proto::Tcp, true) });
    assert_eq!(result.errors, [("ENETUNREACH: Network is unreachable".to_owned(), 5)]);
}

#[test]
fn errors_of_the_socket_are_counted() {
    let Some(pair) = Pair::new() else { return };
    for proto in [Proto::Icmp, Proto::Tcp, Proto::Udp] {
        let dst = "192.0.2.1".parse().unwrap();
        let result = pair.run(Probe { dst, ..probe(proto, true) });
        let expected = [("ENETUNREACH: Network is unreachable".to_owned(), 5)];
        assert_eq!((result.sent, &result.errors[..]), (5, &expected[..]), "{proto}");
        told(&result, AttemptOutcome::Error);
    }
    run(&format!(
        "ip netns exec {} nft 'add table ip t; add chain ip t o \
         {{ type filter hook output priority 0; policy drop; }}'",
        pair.near
    ));
    for proto in [Proto::Icmp, Proto::Udp] {
        let result = pair.run(probe(proto, true));
        let expected = [("EPERM: Operation not permitted".to_owned(), 5)];
        assert_eq!((result.sent, result.answered), (5, 0));
        assert_eq!(result.errors, expected, "{proto}");
    }
    let timeout = Duration::from_millis(100);
    let result = pair.run(Probe { timeout, ..probe(Proto::Tcp, true) });
    assert_eq!((result.sent, result.answered), (5, 0), "{result:?}");
}

#[test]
fn connections_are_made_refused_or_time_out() {
    let Some(pair) = Pair::new() else { return };
    for v4 in [true, false] {
        let result = pair.run(probe(Proto::Tcp, v4));
        complete(&result, 5);
        assert_eq!(result.refused, 5);
        let any = if v4 { "0.0.0.0:7777" } else { "[::]:7777" };
        let listener = pair.far(|| TcpListener::bind(any).unwrap());
        let result = pair.run(probe(Proto::Tcp, v4));
        complete(&result, 5);
        assert_eq!(result.refused, 0);
        // Closed cleanly: each connection is there and at its end, none was reset.
        for _ in 0..5 {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(io::Read::read(&mut stream, &mut [0; 1]).unwrap(), 0);
        }
    }
    run(&format!(
        "ip netns exec {} nft 'add table ip t; add chain ip t i \
         {{ type filter hook input priority 0; policy drop; }}'",
        pair.far
    ));
    let timeout = Duration::from_millis(150);
    let begin = Instant::now();
    let result = pair.run(Probe { timeout, ..probe(Proto::Tcp, true) });
    assert_eq!((result.sent, result.answered), (5, 0), "{result:?}");
    told(&result, AttemptOutcome::Unanswered);
    assert!(result.errors.is_empty() && begin.elapsed() < Duration::from_secs(60));
}

#[test]
fn datagrams_are_answered_or_refused() {
    let Some(pair) = Pair::new() else { return };
    run(&format!(
        "ip netns exec {} sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0",
        pair.far
    ));
    for v4 in [true, false] {
        for size in [0, 8, 56] {
            let result = pair.run(Probe { size, ..probe(Proto::Udp, v4) });
            complete(&result, 5);
            assert_eq!(result.refused, 5, "size {size}");
            told(&result, AttemptOutcome::Refused);
        }
        let any = if v4 { "0.0.0.0:7777" } else { "[::]:7777" };
        let server = pair.far(|| UdpSocket::bind(any).unwrap());
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let echo = std::thread::spawn(move || {
            let mut seen = HashSet::new();
            for _ in 0..10 {
                let mut buffer = [0; 2048];
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                assert_eq!(length, 1000);
                seen.insert(buffer);
                server.send_to(&buffer[..length], from).unwrap();
            }
            seen.len()
        });
        let result = pair.run(Probe { size: 1000, count: 10, ..probe(Proto::Udp, v4) });
        complete(&result, 10);
        told(&result, AttemptOutcome::Answered);
        assert_eq!(result.refused, 0);
        assert_eq!(echo.join().unwrap(), 10, "payloads must differ");
    }
    let result = pair.run(Probe { size: 65_508, ..probe(Proto::Udp, true) });
    assert_eq!(result.errors, [("EMSGSIZE: Message too long".to_owned(), 5)]);
}

#[test]
fn the_stop_flag_ends_it() {
    let Some(pair) = Pair::new() else { return };
    for proto in [Proto::Icmp, Proto::Tcp, Proto::Udp] {
        let (count, timeout) = (u64::MAX, Duration::from_secs(3600));
        let (handle, stop) = pair.start(Probe { count, timeout, ..probe(proto, true) });
        while handle.progress().sent < 10 {
            std::thread::yield_now();
        }
        let begin = Instant::now();
        stop.store(true, Ordering::Relaxed);
        let result = handle.join().unwrap();
        assert!(result.sent >= 10 && begin.elapsed() < Duration::from_secs(60), "{result:?}");
    }
    // Also while it only waits for answers.
    let (dst, timeout) = ("10.99.7.99".parse().unwrap(), Duration::from_secs(3600));
    let (handle, stop) = pair.start(Probe { dst, timeout, ..probe(Proto::Icmp, true) });
    while handle.progress().sent < 5 {
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(handle.join().unwrap().answered, 0);
}

#[test]
fn what_prevents_the_start_is_said() {
    let Some(pair) = Pair::new() else { return };
    for proto in [Proto::Icmp, Proto::Tcp, Proto::Udp] {
        let src = "10.1.2.3".parse().unwrap();
        let error = pair.start(Probe { src, ..probe(proto, true) }).0.join().unwrap_err();
        assert!(error.to_string().contains("cannot send from 10.1.2.3"), "{error}");
    }
}
