//! `podtrace interfaces|pods|nodes` on a real lab.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use common::trace::{IpSays, podtrace, run};
use common::{TestLab, privileged};
use serde_json::Value;

fn json(lab: &tracer::lab::Lab, args: &[&str]) -> Value {
    let run = podtrace(lab, &[args, &["--format", "json"]].concat());
    assert_eq!(run.status, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn the_interfaces_between_two_pods_have_their_roles() {
    if !privileged() {
        return;
    }
    // Nothing about an interface follows from its name.
    let lab = TestLab::up(|c| {
        c.bridge_name = "flannel.1".into();
        c.vxlan_name = "ens33".into();
        c.physical_name = "cni0".into();
        c.ipv6 = false;
    });
    let shown = json(&lab, &["interfaces", "--src", "A.a", "--dst", "B.b"]);
    let rows = shown["interfaces"].as_array().expect("rows");
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            let role = text(&row["role"]);
            let name = if role == "veth" { "veth" } else { text(&row["name"]) };
            format!("{} {name} {role}", text(&row["node"]))
        })
        .collect();
    let expected = [
        "A eth0 pod",
        "A veth veth",
        "A flannel.1 bridge",
        "A ens33 vxlan",
        "A cni0 physical",
        "wire u1 wire",
        "wire u2 wire",
        "B cni0 physical",
        "B ens33 vxlan",
        "B flannel.1 bridge",
        "B veth veth",
        "B eth0 pod",
    ];
    assert_eq!(found, expected);
    assert_eq!(shown["gaps"], Value::Array(Vec::new()));
    let [a, pod_b] = ["A", "B.b"].map(|target| IpSays::ask(&lab, target));
    assert_eq!(text(&rows[3]["mac"]), a.mac("ens33"));
    assert_eq!(text(&rows[11]["mac"]), pod_b.mac("eth0"));
    // The peer of the pod's interface, by the kernel's own numbers.
    let index = run(&lab, "A.a", &["cat", "/sys/class/net/eth0/iflink"]);
    assert_eq!(rows[1]["ifindex"].to_string(), index.trim());
    assert_eq!(text(&rows[0]["peer"]), format!("A.{}", text(&rows[1]["name"])));
}

#[test]
fn pods_and_nodes_are_listed() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let pods = json(&lab, &["pods"]);
    let name = |row: &Value| format!("{}.{}", text(&row["node"]), text(&row["name"]));
    let names: Vec<_> = pods.as_array().expect("pods").iter().map(name).collect();
    assert_eq!(names, ["A.a", "A.a2", "A.agent-a", "B.b", "B.b2", "B.agent-b"]);
    for pod in pods.as_array().expect("pods") {
        // The agents are in their nodes' own network.
        let (target, interface) = match text(&pod["name"]).starts_with("agent-") {
            true => (text(&pod["node"]).to_owned(), "ens33"),
            false => (name(pod), "eth0"),
        };
        let says = IpSays::ask(&lab, &target);
        let ips: Vec<_> = pod["ips"].as_array().expect("addresses").iter().map(text).collect();
        assert_eq!(ips, [says.ip(interface, "inet"), says.ip(interface, "inet6")]);
        assert_eq!(pod["problem"], Value::Null);
    }
    let nodes = json(&lab, &["nodes"]);
    let names: Vec<_> =
        nodes.as_array().expect("nodes").iter().map(|row| text(&row["name"])).collect();
    assert_eq!(names, ["A", "B", "wire"]);
}
