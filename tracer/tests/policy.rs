//! What firewalls mean on the real kernel: policies behind ipsets, services without endpoints in both
//! modes of kube-proxy, and what is not known.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

mod common;

use common::trace::{podtrace, run};
use common::{TestLab, privileged};
use tracer::expect::audit::{Audit, Soundness};
use tracer::lab::Lab;
use tracer::report::Status;

fn check(lab: &Lab, args: &[&str]) -> (i32, Audit) {
    let run = podtrace(lab, &[&["check", "--format", "json", "-4"], args].concat());
    (run.status, serde_json::from_str(&run.stdout).expect("an audit"))
}

fn on(lab: &Lab, node: &str, script: &str) {
    run(lab, node, &["sh", "-ec", script]);
}

/// What kube-router writes for a policy that lets the pods of a set reach B.b, and nobody else.
const POLICY: &str = r#"
ipset create KUBE-SRC-T hash:ip
ipset create KUBE-DST-T hash:ip
ipset add KUBE-DST-T 10.10.1.2
iptables-nft-restore -n <<R
*filter
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-POD-FW-T - [0:0]
:KUBE-NWPLCY-T - [0:0]
-I FORWARD 1 -m comment --comment "kube-router netpol" -j KUBE-ROUTER-FORWARD
-A KUBE-ROUTER-FORWARD -d 10.10.1.2/32 -m comment --comment "rule to jump traffic destined to POD name:b namespace: shop to chain KUBE-POD-FW-T" -j KUBE-POD-FW-T
-A KUBE-POD-FW-T -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-T -m comment --comment "run through nw policy allow-web" -j KUBE-NWPLCY-T
-A KUBE-POD-FW-T -m comment --comment "rule to REJECT traffic destined for POD name:b namespace: shop" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-NWPLCY-T -m set --match-set KUBE-SRC-T src -m set --match-set KUBE-DST-T dst -m comment --comment "rule to ACCEPT traffic from source pods to dest pods selected by policy name allow-web namespace shop" -j MARK --set-xmark 0x10000/0x10000
COMMIT
R
"#;

#[test]
fn a_policy_is_named_and_who_is_in_none_of_its_sets() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    on(&lab, "B", POLICY);
    let pods = ["--src", "A.a", "--dst", "B.b"];
    let said = "NetworkPolicy shop/allow-web lets only pods in KUBE-SRC-T reach shop/b; 10.10.0.2 is not among them";

    let (status, audit) = check(&lab, &pods);
    let first = audit.first_break.expect("a break");
    assert_eq!((status, audit.verdict), (3, Soundness::Broken));
    assert_eq!(first.cause, "policy.denied");
    assert!(first.summary.starts_with(said), "{}", first.summary);
    assert!(first.evidence.iter().any(|e| e == "10.10.0.2 is not in ipset KUBE-SRC-T"));

    let trace = podtrace(&lab, &[&pods[..], &["--probe", "-c", "2", "--format", "json"]].concat());
    let report = trace.report();
    assert_eq!(report.verdict.cause.as_deref(), Some("policy.denied"), "{:#?}", report.verdict);
    assert!(report.verdict.summary.starts_with(said), "{}", report.verdict.summary);
    assert!(report.verdict.fix.iter().all(|f| !f.contains(" -D ") && !f.contains("delete")));

    on(&lab, "B", "ipset add KUBE-SRC-T 10.10.0.2");
    let (status, audit) = check(&lab, &pods);
    assert_eq!((status, audit.verdict), (0, Soundness::Sound), "{:?}", audit.unknown);
    let trace = podtrace(&lab, &[&pods[..], &["--probe", "-c", "2", "--format", "json"]].concat());
    assert_eq!(trace.report().verdict.status, Status::Delivered);

    // A program may do anything with what it is handed.
    on(&lab, "B", "iptables-nft -I FORWARD -d 10.10.1.2 -j NFQUEUE --queue-num 7 --queue-bypass");
    let (status, audit) = check(&lab, &pods);
    assert_eq!((status, audit.verdict), (4, Soundness::Unclear));
    assert!(audit.unknown.iter().any(|u| u.contains("NFQUEUE")), "{:?}", audit.unknown);
}

/// The same service without endpoints as both modes of kube-proxy have it.
const IPTABLES: &str = r#"iptables-nft -I FORWARD -d 10.96.0.99/32 -p tcp -m comment --comment "shop/empty:http has no endpoints" -m tcp --dport 80 -j REJECT"#;
const NFTABLES: &str = r#"
iptables-nft -D FORWARD -d 10.96.0.99/32 -p tcp -m comment --comment "shop/empty:http has no endpoints" -m tcp --dport 80 -j REJECT
nft -f - <<R
table ip kube-proxy {
 set cluster-ips { type ipv4_addr; elements = { 10.96.0.99 } }
 chain reject-chain {
  reject
 }
 map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.99 . tcp . 80 comment "shop/empty:http" : goto reject-chain } }
 chain service-endpoints-check {
  ip daddr . meta l4proto . th dport vmap @no-endpoint-services
 }
 chain cluster-ips-check {
  ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
 }
 chain filter-forward {
  type filter hook forward priority -110; policy accept;
  ct state new jump service-endpoints-check
  ct state new jump cluster-ips-check
 }
}
R
"#;

#[test]
fn a_service_without_endpoints_is_named_in_both_modes() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    for (mode, wrong_port) in [(IPTABLES, false), (NFTABLES, true)] {
        on(&lab, "A", mode);
        let to = |port: &'static str| {
            ["--src", "A.a", "--dst", "10.96.0.99", "--proto", "tcp", "--port", port]
        };
        let (status, audit) = check(&lab, &to("80"));
        let first = audit.first_break.expect("a break");
        assert_eq!((status, first.cause.as_str()), (3, "service.no-endpoints"), "{first:#?}");
        assert!(first.summary.starts_with("Service shop/empty has no pod"), "{}", first.summary);
        let probe =
            ["--src", "A.a", "--dst", "10.96.0.99", "--probe=tcp", "--port", "80", "-c", "1"];
        let report = podtrace(&lab, &[&probe[..], &["--format", "json"]].concat()).report();
        assert_eq!(report.verdict.cause.as_deref(), Some("service.no-endpoints"));
        assert!(report.verdict.fix.iter().all(|f| !f.contains(" -D ") && !f.contains("delete")));
        if wrong_port {
            let (status, audit) = check(&lab, &to("8080"));
            let first = audit.first_break.expect("a break");
            assert_eq!((status, first.cause.as_str()), (3, "service.no-port"), "{first:#?}");
            let said = "Service shop/empty has port 80, not 8080";
            assert!(first.summary.starts_with(said), "{}", first.summary);
        }
    }
}
