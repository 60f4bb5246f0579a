//! Packets that arrive, and what is said of time.

use tracer::export::json;
use tracer::model::{Direction, Outcome};
use tracer::record::{Reader, replay};
use tracer::report::{ClockMethod, Report, Status};

use crate::common::trace::{hops, journeys};
use crate::server::Server;
use crate::{AGENTS, COLLECTOR_IS_A, Pair, pair, parsed};

/// From pod to pod. Between two machines nobody sees the wire.
const WAY: [&str; 10] = [
    "A.a.eth0 egress",
    "A.veth ingress",
    "A.cni0 ingress",
    "A.flannel.1 egress",
    "A.ens33 egress",
    "B.ens33 ingress",
    "B.flannel.1 ingress",
    "B.cni0 egress",
    "B.veth egress",
    "B.b.eth0 ingress",
];

/// The way back.
fn back() -> Vec<String> {
    let turned = |hop: &&str| match hop.strip_suffix("ingress") {
        Some(hop) => format!("{hop}egress"),
        None => hop.replace("egress", "ingress"),
    };
    WAY.iter().rev().map(turned).collect()
}

/// Least and most that has to be added to B's clock to get A's, ns.
fn truth(pair: &Pair) -> [i128; 2] {
    let (a, [a_before, a_after]) = pair.a.clock();
    let (b, [b_before, b_after]) = pair.b.clock();
    // B was asked after A: by so much A's clock has gone on.
    let later = [b_before - a_after, b_after - a_before];
    later.map(|later| i128::from(a) - i128::from(b) + later.as_nanos().cast_signed())
}

#[track_caller]
fn assert_delivered(report: &Report) {
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.loss.events_lost, 0, "{:#?}", report.loss);
    assert!(report.journeys.iter().all(|j| j.outcome == Outcome::Delivered));
}

#[test]
fn a_ping_is_followed_from_machine_to_machine_on_one_clock() {
    let Some(pair) = pair() else { return };
    for inventory in [AGENTS, COLLECTOR_IS_A] {
        let before = truth(&pair);
        let report = pair.probe(inventory, "");
        let after = truth(&pair);
        assert_delivered(&report);
        assert_eq!((report.packets.sent, report.packets.replied), (5, 5));
        for journey in journeys(&report, Direction::Forward) {
            assert_eq!(hops(journey), WAY);
        }
        for journey in journeys(&report, Direction::Reply) {
            assert_eq!(hops(journey), back());
        }
        let clock = report.clock.iter().find(|clock| clock.node == "B").expect("B's clock");
        assert_ne!(clock.method, ClockMethod::SameClock);
        assert_eq!(clock.steps, 0, "{clock:#?}");
        let error = clock.error_ns.expect("an error bound");
        let told = [-1, 1].map(|sign| i128::from(clock.offset_ns) + sign * i128::from(error));
        // The clocks drift apart from one to the other.
        let true_at_some_time = [before[0].min(after[0]), before[1].max(after[1])];
        assert!(
            told[0] <= true_at_some_time[1] && true_at_some_time[0] <= told[1],
            "{clock:#?}, truth {before:?} … {after:?}"
        );
        assert!(error < 100_000_000, "{clock:#?}");
        for pair in report.journeys.iter().flat_map(|journey| journey.hops.windows(2)) {
            let crosses = pair[0].point.node != pair[1].point.node;
            let error = pair[1].delta_error_ns.expect("a bound");
            assert_eq!(error > 0, crosses, "{:#?}", pair[1]);
        }
    }
}

#[test]
fn text_says_how_exact_times_between_machines_are() {
    let Some(pair) = pair() else { return };
    let answer = pair.podtrace(AGENTS, "--probe -c 1");
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let crossing = answer.stdout.lines().filter(|line| line.contains('±'));
    assert!(crossing.count() >= 2, "{}", answer.stdout);
}

#[test]
fn ipv6_and_every_kind_of_probe_arrive() {
    let Some(pair) = pair() else { return };
    let report = pair.probe(AGENTS, "-6");
    assert_delivered(&report);
    assert!(report.journeys[0].hops[0].inner.src_ip.contains(':'));
    let server = "import socket, threading
def serve(kind, answer):
    s = socket.socket(socket.AF_INET, kind)
    s.bind(('10.10.1.2', 9000))
    answer(s)
def tcp(s):
    s.listen()
    while True: s.accept()[0].close()
def udp(s):
    while True: s.sendto(*s.recvfrom(65535))
for kind, answer in [(socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)]:
    threading.Thread(target=serve, args=(kind, answer)).start()";
    let started = pair.b.ok(&format!(
        "ip netns exec podtrace-B-b python3 -c \"{server}\" >/run/server.log 2>&1 & echo $!
         until ip netns exec podtrace-B-b ss -Hlnut | grep -c :9000 | grep -q 2; do
             kill -0 $! || {{ cat /run/server.log >&2; exit 1; }}
         done"
    ));
    for (kind, port) in [("tcp", "--port 9000"), ("udp", "--port 9000")] {
        let answer = pair.podtrace(AGENTS, &format!("--probe={kind} {port} --format json"));
        let report = parsed(&answer);
        assert_delivered(&report);
        assert!(report.probe.as_ref().is_some_and(|p| p.answered == p.sent), "{:#?}", report.probe);
    }
    pair.b.ok(&format!("kill {}", started.trim()));
}

#[test]
fn a_service_is_followed_to_its_pod_on_the_other_machine() {
    let Some(pair) = pair() else { return };
    let _server = Server::start(&pair, 1);
    let args = "--probe=tcp --port 80 --format json";
    let report = parsed(&pair.podtrace_to("10.96.0.10", AGENTS, args));
    assert_delivered(&report);
    assert_eq!(report.dst.name, "B.b");
    assert_eq!(report.dst.service.as_deref(), Some("10.96.0.10:80"));
    let first = &journeys(&report, Direction::Forward)[0].hops;
    let ends = [first.first(), first.last()].map(|hop| hop.expect("a hop").inner.dst_ip.clone());
    assert_eq!(ends, ["10.96.0.10", "10.10.1.2"]);
}

#[test]
fn a_recording_made_there_says_the_same_here() {
    let Some(pair) = pair() else { return };
    let answer = pair.podtrace(AGENTS, "--probe --format json -w /run/x.podtrace");
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let base64 = pair.a.ok("python3 -c 'import binascii
print(binascii.hexlify(open(\"/run/x.podtrace\", \"rb\").read()).decode())'");
    let hexadecimal = base64.trim().as_bytes().chunks_exact(2);
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).expect("UTF-8"), 16);
    let bytes: Vec<u8> = hexadecimal.map(|two| byte(two).expect("a byte")).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("write the file");
    let replayed = replay(&mut Reader::open(file.path()).expect("a recording")).expect("a replay");
    assert_eq!(json::render(&replayed.report), answer.stdout);
    let kernels: Vec<_> = replayed.header.machines.iter().map(|m| m.kernel.as_str()).collect();
    assert!(kernels.iter().any(|k| k.starts_with("6.1.")), "{kernels:?}");
    assert!(kernels.iter().any(|k| k.starts_with("6.12.")), "{kernels:?}");
}
