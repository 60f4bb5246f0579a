//! Services of kube-proxy's mode `ipvs` on the real kernel, with what kube-proxy sets up for it.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use std::process::{Command, Stdio};

use common::trace::{Live, Run, Server, http_server, podtrace, run};
use common::{TestLab, privileged};
use tempfile::TempDir;
use tracer::lab::Lab;
use tracer::report::{Report, Status};

/// A service with one backend, B.b.
const ONE: &str = "10.96.0.10";
/// With three: A.a2, B.b, B.b2.
const THREE: &str = "10.96.0.20";
/// With two, of which B.b2 has no server: [`DEAD`].
const HALF: &str = "10.96.0.30";
/// With none.
const EMPTY: &str = "10.96.0.99";
/// Where nothing listens.
const DEAD: &str = "10.10.1.3:8081";

/// What kube-proxy does on a node, for the services above (pkg/proxy/ipvs: `NewProxier`,
/// `syncProxyRules`, `writeIptablesRules`; Kubernetes 1.31).
const KUBE_PROXY: &str = r#"
set -e
sysctl -qw net.ipv4.vs.conntrack=1 net.ipv4.vs.conn_reuse_mode=0 \
    net.ipv4.vs.expire_nodest_conn=1 net.ipv4.vs.expire_quiescent_template=1
iptables-nft -F; iptables-nft -X; iptables-nft -t nat -F; iptables-nft -t nat -X
ip link add kube-ipvs0 type dummy
for ip in 10.96.0.10 10.96.0.20 10.96.0.30 10.96.0.99; do ip addr add $ip/32 dev kube-ipvs0; done
service() { local at=$1; shift; ipvsadm -A -t $at -s rr; for to; do ipvsadm -a -t $at -r $to -m -w 1; done; }
service 10.96.0.10:80 10.10.1.2:8080
service 10.96.0.20:80 10.10.0.3:8080 10.10.1.2:8080 10.10.1.3:8080
service 10.96.0.30:80 10.10.1.2:8080 10.10.1.3:8081
service 10.96.0.99:80
service $NODE:30080 10.10.1.2:8080
ipset create KUBE-CLUSTER-IP hash:ip,port
ipset create KUBE-LOOP-BACK hash:ip,port,ip
ipset create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
ipset create KUBE-IPVS-IPS hash:ip
for ip in 10.96.0.10 10.96.0.20 10.96.0.30 10.96.0.99; do
    ipset add KUBE-CLUSTER-IP $ip,tcp:80
    ipset add KUBE-IPVS-IPS $ip
done
for ip in 10.10.0.3 10.10.1.2 10.10.1.3; do ipset add KUBE-LOOP-BACK $ip,tcp:8080,$ip; done
ipset add KUBE-LOOP-BACK 10.10.1.3,tcp:8081,10.10.1.3
ipset add KUBE-NODE-PORT-TCP 30080
iptables-nft-restore <<RULES
*nat
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:FLANNEL-POSTRTG - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-NODE-PORT -p tcp -m comment --comment "Kubernetes nodeport TCP port for masquerade purpose" -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-POSTROUTING -m comment --comment "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose" -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN
-A KUBE-SERVICES ! -s 10.10.0.0/16 -m comment --comment "Kubernetes service cluster ip + port for masquerade purpose" -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.10.0.0/16 -d 10.10.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.10.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.10.0.0/16 -d 10.10.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
:FORWARD DROP [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-NODE-PORT - [0:0]
:FLANNEL-FWD - [0:0]
-A INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER
-A INPUT -m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT --reject-with icmp-port-unreachable
-A FLANNEL-FWD -s 10.10.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.10.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
RULES
"#;

/// Whether this kernel has IPVS; says that the test is skipped where it has none.
fn kernel_has_ipvs() -> bool {
    for module in ["ip_vs", "ip_vs_rr"] {
        let mut command = Command::new("modprobe");
        // Built in, it is no module, and where it cannot be loaded the file below is missing.
        let _ = command.arg(module).stderr(Stdio::null()).status();
    }
    let there = std::path::Path::new("/proc/net/ip_vs").exists();
    if !there {
        eprintln!("SKIP: this kernel has no IPVS");
    }
    there
}

/// A cluster in IPVS mode, with a server in each pod that is one; `None` where that cannot be.
fn cluster() -> Option<(TestLab, [(Server, TempDir); 3])> {
    if !privileged() || !kernel_has_ipvs() {
        return None;
    }
    let lab = TestLab::up(|config| config.ipv6 = false);
    for (node, address) in [("A", "192.168.10.11"), ("B", "192.168.10.12")] {
        run(&lab, node, &["bash", "-c", &format!("NODE={address}\n{KUBE_PROXY}")]);
    }
    let servers = ["A.a2", "B.b", "B.b2"].map(|pod| http_server(&lab, pod, 8080, 1));
    Some((lab, servers))
}

fn probed(lab: &Lab, src: &str, dst: &str, port: &str) -> (Run, Report) {
    let args =
        ["--format", "json", "--src", src, "--dst", dst, "--probe=tcp", "--port", port, "-c", "6"];
    let run = podtrace(lab, &args);
    let report = run.report();
    assert_eq!(run.status, i32::from(report.verdict.status.exit_code()), "{}", run.stderr);
    (run, report)
}

fn assert_healthy(report: &Report) {
    assert_eq!(report.verdict.status, Status::Delivered, "{:#?}", report.verdict);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    if let Some(probe) = &report.probe {
        assert_eq!((probe.answered, probe.refused), (probe.sent, 0), "{probe:?}");
    }
}

fn probes_of(service: &str, sources: &[&str]) {
    let Some((lab, _servers)) = cluster() else { return };
    for src in sources {
        assert_healthy(&probed(&lab, src, service, "80").1);
    }
}

/// While nothing but podtrace watches, others talk to the service.
fn watched(service: &str, sources: &[&str]) {
    let Some((lab, _servers)) = cluster() else { return };
    for &src in sources {
        let args = ["--format", "json", "--src", src, "--dst", service, "--port", "80"];
        let live = Live::start(&lab, &[&args[..], &["--proto", "tcp"]].concat());
        let url = format!("http://{service}/file");
        for _ in 0..6 {
            run(&lab, src, &["curl", "-sf", "-m", "20", "-o", "/dev/null", &url]);
        }
        let run = live.interrupt();
        assert_healthy(&run.report());
        assert_eq!(run.status, 0, "{}", run.stderr);
    }
}

#[test]
fn probes_of_a_service_with_one_backend_are_delivered() {
    probes_of(ONE, &["A.a", "A"]);
}

#[test]
fn probes_of_a_service_with_three_backends_are_delivered() {
    probes_of(THREE, &["A.a"]);
}

#[test]
fn a_service_with_one_backend_is_watched() {
    watched(ONE, &["A.a", "A"]);
}

#[test]
fn a_service_with_three_backends_is_watched() {
    watched(THREE, &["A.a"]);
}

#[test]
fn the_port_of_a_node_is_translated_there() {
    let Some((lab, _servers)) = cluster() else { return };
    assert_healthy(&probed(&lab, "A.a", "192.168.10.11", "30080").1);
    assert_healthy(&probed(&lab, "A.a", "192.168.10.12", "30080").1);
}

#[test]
fn a_backend_without_a_server_is_named() {
    let Some((lab, _servers)) = cluster() else { return };
    let (run, report) = probed(&lab, "A.a", HALF, "80");
    assert_eq!(run.status, 3, "{:#?}", report.verdict);
    let probe = report.probe.as_ref().expect("a probe");
    assert_eq!(probe.refused, probe.sent / 2, "{probe:?}");
    assert!(run.stdout.contains(DEAD), "{:#?}", report.verdict);
    assert_eq!(report.verdict.cause.as_deref(), Some("socket.no-listener"));
}

#[test]
fn a_service_without_real_servers_and_a_port_that_is_none() {
    let Some((lab, _servers)) = cluster() else { return };
    let (_, report) = probed(&lab, "A.a", EMPTY, "80");
    let verdict = &report.verdict;
    assert_eq!(verdict.cause.as_deref(), Some("service.no-endpoints"), "{verdict:#?}");
    let (_, report) = probed(&lab, "A.a", ONE, "8080");
    let verdict = &report.verdict;
    assert_eq!(verdict.cause.as_deref(), Some("service.no-port"), "{verdict:#?}");
    let text = serde_json::to_string(verdict).expect("JSON");
    assert!(text.contains("has port 80, not 8080"), "{verdict:#?}");
    assert!(!text.contains("iptables-nft -D"), "kube-proxy's rules stay: {verdict:#?}");
}

#[test]
fn tables_alone_tell_which_service_is_sound() {
    let Some((lab, _servers)) = cluster() else { return };
    let check = |dst: &str, port: &str| {
        podtrace(&lab, &["check", "--src", "A.a", "--dst", dst, "--proto", "tcp", "--port", port])
    };
    for service in [ONE, THREE] {
        let run = check(service, "80");
        assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
        assert!(run.stdout.contains("ipvs TCP"), "{}", run.stdout);
    }
    for (service, port) in [(HALF, "80"), (EMPTY, "80"), (ONE, "8080")] {
        let run = check(service, port);
        assert_eq!(run.status, 3, "{service}:{port}: {}{}", run.stdout, run.stderr);
    }
}
