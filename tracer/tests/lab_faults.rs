//! Every fault of the lab on the real kernel: it breaks what it says, and nothing of it is left when
//! it is mended. Needs root and `PODTRACE_PRIVILEGED=1`.
//!
//! `PODTRACE_FAULTS=NAME,NAME` restricts the test to some.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::time::Duration;

use common::trace::PODTRACE;
use common::{TestLab, privileged};
use tracer::lab::fault::{Fault, Injected, Options, all};
use tracer::lab::{Backend, Firewall, Image, Lab, LabConfig};
use tracer::probe::Proto;
use tracer::report::Status;

/// How long an answer that does not come is waited for.
const SHORT: Duration = Duration::from_millis(400);
/// How long an answer that must come may take.
const LONG: Duration = Duration::from_secs(5);

fn options(mirror: bool, ipv6: bool) -> Options {
    Options { mirror, ipv6, program: Some(PODTRACE.into()) }
}

/// Address of an endpoint of a probe.
fn address(lab: &Lab, endpoint: &str, ipv6: bool) -> IpAddr {
    for node in &lab.plan().nodes {
        for pod in &node.pods {
            if format!("{}.{}", node.name, pod.name) == endpoint {
                return pod.addresses[usize::from(ipv6)].addr();
            }
        }
    }
    endpoint.parse().unwrap_or_else(|_| panic!("{endpoint}"))
}

/// Whether one packet of the kind is answered.
fn answered(
    lab: &Lab,
    src: &str,
    dst: IpAddr,
    fault: &Fault,
    args: &[String],
    wait: Duration,
) -> bool {
    let value = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        args.get(at + 1).cloned()
    };
    let port = value("--port").map_or(9, |port| port.parse().expect("a port"));
    let to = SocketAddr::new(dst, port);
    let netns = lab.netns(src).expect("namespace");
    match fault.probe.proto {
        Proto::Icmp => {
            let wait = format!("{:.1}", wait.as_secs_f64());
            let size = value("--size").unwrap_or_else(|| "56".to_owned());
            let to = dst.to_string();
            let ping = ["ping", "-n", "-c1", "-W", &wait, "-s", &size, &to];
            lab.exec(src, &ping).expect("start ping").status.success()
        }
        Proto::Tcp => netns.run(|| TcpStream::connect_timeout(&to, wait).is_ok()).expect("enter"),
        Proto::Udp => netns
            .run(|| {
                let any: SocketAddr =
                    if dst.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().expect("any");
                let socket = UdpSocket::bind(any).expect("bind");
                socket.set_read_timeout(Some(wait)).expect("set timeout");
                socket.send_to(b"test", to).is_ok() && socket.recv_from(&mut [0; 16]).is_ok()
            })
            .expect("enter"),
    }
}

/// What is wrong with the fault itself.
fn try_fault(lab: &Lab, pristine: &Image, fault: &Fault, options: &Options) -> Result<(), String> {
    let injected = lab.inject(fault, options);
    let result = match &injected {
        Ok(injected) => check_broken(lab, fault, injected, options),
        Err(error) => Err(format!("{error}: {:?}", std::error::Error::source(error))),
    };
    let mended = lab
        .mend()
        .map_err(|error| format!("mend: {error}: {:?}", std::error::Error::source(&error)))?;
    result?;
    if !fault.inject.is_empty() && mended.rebuilt && !fault.mend.is_empty() {
        return Err("its own mend steps do not suffice".to_owned());
    }
    let differences = pristine.differences(&lab.image().expect("image"));
    if !differences.is_empty() {
        return Err(format!("left behind: {differences:#?}"));
    }
    let defects = lab.defects().expect("state");
    if !defects.is_empty() {
        return Err(format!("not mended: {defects:?}"));
    }
    for (src, dst) in [("A.a", "B.b"), ("B.b", "A.a"), ("A.a", "A.a2")] {
        let to = address(lab, dst, options.ipv6).to_string();
        let ping = lab.exec(src, &["ping", "-n", "-c1", "-W5", &to]).expect("start ping");
        if !ping.status.success() {
            return Err(format!("{src} does not reach {dst} afterwards"));
        }
    }
    Ok(())
}

fn check_broken(
    lab: &Lab,
    fault: &Fault,
    injected: &Injected,
    options: &Options,
) -> Result<(), String> {
    for (target, command) in &injected.proof {
        let output = lab.exec(target, &["bash", "-ec", command]).expect("start a proof");
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            return Err(format!("no proof: {command}: {}", String::from_utf8_lossy(&text)));
        }
    }
    if !injected.proof.is_empty() {
        return Ok(());
    }
    for case in &injected.cases {
        let kills = case
            .expected
            .status
            .iter()
            .all(|status| matches!(status, Status::Dropped | Status::Rejected | Status::Lost));
        let dst = address(lab, &case.dst, options.ipv6);
        if kills && answered(lab, &case.src, dst, fault, &case.args, SHORT) {
            return Err(format!("{}: {} still reaches {}", case.label, case.src, case.dst));
        }
    }
    Ok(())
}

/// Runs faults in labs of their own, several at once.
fn run(
    labs: usize,
    change: impl Fn(&mut LabConfig) + Sync,
    wanted: impl Fn(&Lab, &Fault) -> Vec<(bool, bool)> + Sync,
) {
    let only = std::env::var("PODTRACE_FAULTS").ok();
    let chosen = |fault: &&Fault| {
        only.as_deref().is_none_or(|only| only.split(',').any(|name| name == fault.name))
    };
    let tasks: Mutex<Vec<&'static Fault>> = Mutex::new(all().iter().filter(chosen).rev().collect());
    let failures = Mutex::new(Vec::new());
    let work = || {
        let lab = TestLab::up(&change);
        let pristine = lab.image().expect("image");
        loop {
            let next = tasks.lock().expect("no panic").pop();
            let Some(fault) = next else { return };
            for (mirror, ipv6) in wanted(&lab, fault) {
                let options = options(mirror, ipv6);
                if let Some(reason) = lab.unavailable(fault, &options) {
                    eprintln!("{}: {reason}", fault.name);
                    continue;
                }
                if let Err(problem) = try_fault(&lab, &pristine, fault, &options) {
                    let what = format!("{} mirror={mirror} ipv6={ipv6}: {problem}", fault.name);
                    eprintln!("FAILED {what}");
                    failures.lock().expect("no panic").push(what);
                    let _ = lab.resync();
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..labs {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

fn both_families(fault: &Fault) -> Vec<(bool, bool)> {
    fault.families.iter().map(|family| (false, *family == 6)).collect()
}

#[test]
fn every_fault_breaks_and_mends() {
    if !privileged() {
        return;
    }
    run(3, |_| {}, |_, fault| both_families(fault));
}

#[test]
fn mirrored_faults_with_other_names_and_the_legacy_firewall() {
    if !privileged() {
        return;
    }
    let change = |config: &mut LabConfig| {
        config.firewall = Firewall::Legacy;
        config.bridge_name = "br-pods".to_owned();
        config.vxlan_name = "overlay".to_owned();
        config.physical_name = "enp1s0".to_owned();
        config.vxlan_port = 4789;
        config.vni = 4096;
        config.pod_cidr = "10.244.0.0/16".parse().expect("network");
        config.wire_cidr = "172.31.0.0/24".parse().expect("network");
    };
    run(2, change, |_, fault| vec![(true, !fault.families.contains(&4))]);
}

#[test]
fn faults_without_encapsulation() {
    if !privileged() {
        return;
    }
    run(
        2,
        |config| config.backend = Backend::HostGw,
        |_, fault| vec![(false, !fault.families.contains(&4))],
    );
}

#[test]
fn a_lab_without_record_is_repaired_and_keeps_its_addresses() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let pristine = lab.image().expect("image");
    let run = |target: &str, command: &str| {
        assert!(
            lab.exec(target, &["sh", "-c", command]).expect("run").status.success(),
            "{command}"
        );
    };
    run("A", "ip link del cni0; ip rule add pref 5 lookup 7; ip route add blackhole 10.9.0.0/16");
    run("A", "iptables-legacy -P FORWARD DROP; ip addr add 10.8.0.1/32 dev lo");
    run("B", "nft flush ruleset; sysctl -qw net/ipv4/conf/all/rp_filter=1");
    run("wire", "ip link set u2 down");
    assert!(lab.mend().expect("mend").rebuilt);
    let left = pristine.differences(&lab.image().expect("image"));
    // The bridge that was deleted has a new address; everything else is as it was.
    let left: Vec<_> = left.into_iter().filter(|line| !line.contains(" cni0")).collect();
    assert_eq!(left, Vec::<String>::new());
    let ping = lab.exec("A.a", &["ping", "-c1", "-W5", "-n", "10.10.1.2"]).expect("ping");
    assert!(ping.status.success());
    assert!(!lab.mend().expect("mend").rebuilt);
    let to = SocketAddr::new(lab.plan().endpoints()[0], 9);
    let refused = lab.netns("A.a").expect("netns").run(|| TcpStream::connect_timeout(&to, LONG));
    assert!(refused.expect("enter").is_err());
}
