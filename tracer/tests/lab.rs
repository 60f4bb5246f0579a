//! The lab on the real kernel: needs root and `PODTRACE_PRIVILEGED=1`.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::trace::wait_for;
use common::{TestLab, privileged, unique_name, up};
use tracer::lab::{Backend, Built, Firewall, Lab, LabConfig, LabError};

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a command in the lab wrote; it must succeed.
fn run(lab: &Lab, target: &str, argv: &[&str]) -> String {
    let output = lab.exec(target, argv).expect("start a command");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{argv:?} in {target}: {text}{errors}");
    text
}

/// One ping, answered; returns the answer's TTL.
fn ping(lab: &Lab, from: &str, to: &str) -> u8 {
    let text = run(lab, from, &["ping", "-c1", "-W5", "-n", to]);
    let ttl = text.split("ttl=").nth(1).and_then(|rest| rest.split(' ').next());
    ttl.and_then(|ttl| ttl.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// Connects to the service from `from`; returns the address that the server in B.b sees.
fn connect_to_service(lab: &Lab, from: &str, version: usize) -> IpAddr {
    let service = SocketAddr::new(lab.plan().service[version], lab.config().service_port);
    let endpoint = SocketAddr::new(lab.plan().endpoints()[version], lab.config().target_port);
    let server = lab.netns("B.b").expect("server's namespace");
    // A process that another test is just starting may still hold the last listener.
    let mut listener = None;
    wait_for("the port is free", || {
        listener = server.run(|| TcpListener::bind(endpoint)).expect("enter").ok();
        listener.is_some()
    });
    let listener = listener.expect("listens");
    let netns = lab.netns(from).expect("client's namespace");
    let client = netns.run(|| TcpStream::connect_timeout(&service, PATIENCE)).expect("enter");
    let _client = client.unwrap_or_else(|error| panic!("{service} from {from}: {error}"));
    listener.accept().expect("accept").1.ip()
}

fn namespaces_of(name: &str) -> Vec<String> {
    let prefix = format!("podtrace-{name}-");
    let entries = fs::read_dir("/run/netns").expect("/run/netns");
    let names = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
    names.filter(|n| n.starts_with(&prefix)).collect()
}

#[test]
fn pods_reach_each_other_through_vxlan() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    // Nothing has failed to resolve before the first packet, which must not get lost.
    for (target, _) in lab.plan().targets() {
        let neighbors = run(&lab, &target, &["ip", "neigh", "show"]);
        assert!(!neighbors.contains("FAILED") && !neighbors.contains("INCOMPLETE"), "{neighbors}");
    }
    // Two routers on the way to the other node, none on the same.
    assert_eq!(ping(&lab, "A.a", "10.10.1.2"), 62);
    assert_eq!(ping(&lab, "A.a2", "10.10.1.3"), 62);
    assert_eq!(ping(&lab, "A.a", "10.10.0.3"), 64);
    assert_eq!(ping(&lab, "B.b", "fd00:10:10::2"), 62);
    assert_eq!(ping(&lab, "B.b", "fd00:10:10:1::3"), 64);
    // A full-sized packet fits without fragmentation: 1450 - 20 (IPv4) - 8 (ICMP).
    run(&lab, "A.a", &["ping", "-c1", "-W5", "-Mdo", "-s1422", "10.10.1.2"]);
    assert!(lab.defects().expect("state").is_empty());
}

#[test]
fn the_service_leads_to_its_pod() {
    if !privileged() {
        return;
    }
    for firewall in [Firewall::Nft, Firewall::Legacy] {
        let lab = TestLab::up(|config| config.firewall = firewall);
        for (version, (a, gateway)) in
            [("10.10.0.2", "10.10.1.1"), ("fd00:10:10::2", "fd00:10:10:1::1")].iter().enumerate()
        {
            let ip = |text: &str| text.parse::<IpAddr>().expect("address");
            assert_eq!(connect_to_service(&lab, "A.a", version), ip(a), "{firewall}");
            // A pod that reaches itself through the service is masqueraded by its node.
            assert_eq!(connect_to_service(&lab, "B.b", version), ip(gateway), "{firewall}");
        }
    }
}

#[test]
fn host_gw_routes_without_encapsulation() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|config| config.backend = Backend::HostGw);
    assert_eq!(ping(&lab, "A.a", "10.10.1.2"), 62);
    assert_eq!(ping(&lab, "A.a", "fd00:10:10:1::2"), 62);
    run(&lab, "A.a", &["ping", "-c1", "-W5", "-Mdo", "-s1472", "10.10.1.2"]);
    let links = run(&lab, "A", &["ip", "-d", "link"]);
    assert!(!links.contains("vxlan"), "{links}");
}

#[test]
fn two_labs_with_other_names_and_numbers_at_once() {
    if !privileged() {
        return;
    }
    let one = TestLab::up(|config| {
        config.bridge_name = "br-pods".to_owned();
        config.vxlan_name = "overlay".to_owned();
        config.physical_name = "bond0".to_owned();
        config.vxlan_port = 4789;
        config.vni = 4096;
        config.pod_cidr = "10.244.0.0/16".parse().expect("network");
        config.wire_cidr = "172.31.0.0/24".parse().expect("network");
    });
    let two = TestLab::up(|config| {
        config.ipv6 = false;
        config.firewall = Firewall::None;
        config.wire_mtu = 9000;
    });
    assert_eq!(ping(&one, "A.a", "10.244.1.2"), 62);
    assert_eq!(ping(&one, "A.a", "fd00:10:10:1::2"), 62);
    assert_eq!(ping(&two, "A.a", "10.10.1.2"), 62);
    run(&two, "A.a", &["ping", "-c1", "-W5", "-Mdo", "-s8922", "10.10.1.2"]);
    let device = run(&one, "B", &["ip", "-d", "link", "show", "overlay"]);
    assert!(device.contains("vxlan id 4096") && device.contains("dstport 4789"), "{device}");
    let six = run(&two, "A.a", &["ip", "-6", "address"]);
    assert!(six.is_empty(), "{six}");
    let names: Vec<String> =
        Lab::list().expect("list").into_iter().map(|listed| listed.name).collect();
    assert!(names.contains(&one.config().name) && names.contains(&two.config().name));
}

#[test]
fn up_does_only_what_is_needed() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let config = lab.config();
    let device = run(&lab, "A", &["cat", "/sys/class/net/flannel.1/address"]);
    let again = Lab::up_with(config, &up(false)).expect("up again").1;
    assert_eq!(again, Built::Already);
    assert_eq!(run(&lab, "A", &["cat", "/sys/class/net/flannel.1/address"]), device);

    let other = LabConfig { vxlan_port: 4789, ..config.clone() };
    let error = Lab::up_with(&other, &up(false)).expect_err("other parameters");
    assert!(matches!(error, LabError::Differs { .. }), "{error}");
    assert!(error.to_string().contains("vxlan_port 8472 → 4789"), "{error}");
    let (replaced, built) = Lab::up_with(&other, &up(true)).expect("forced");
    assert_eq!(built, Built::Replaced);
    assert_eq!(ping(&replaced, "A.a", "10.10.1.2"), 62);
}

#[test]
fn two_at_once_build_it_once() {
    if !privileged() {
        return;
    }
    let config = LabConfig { name: unique_name(), ..LabConfig::default() };
    let results: Vec<_> = std::thread::scope(|s| {
        let threads: Vec<_> =
            (0..2).map(|_| s.spawn(|| Lab::up_with(&config, &up(false)).map(|(_, b)| b))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    Lab::down(&config.name).expect("down");
    let mut built: Vec<_> = results.into_iter().map(|r| r.expect("up")).collect();
    built.sort_by_key(|built| *built == Built::Already);
    assert_eq!(built, [Built::New, Built::Already]);
}

#[test]
fn damage_is_named_and_repaired() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let entry = run(&lab, "A", &["bridge", "fdb", "show", "dev", "flannel.1"]);
    let mac = entry.split(' ').next().expect("a MAC");
    run(&lab, "A", &["bridge", "fdb", "del", mac, "dev", "flannel.1", "dst", "192.168.10.12"]);
    run(&lab, "B.b", &["ip", "route", "del", "default"]);
    run(&lab, "B", &["ip", "link", "set", "cni0", "mtu", "1400"]);
    let defects = lab.defects().expect("state");
    let name = &lab.config().name;
    assert_eq!(
        defects,
        [
            format!("podtrace-{name}-A: flannel.1 does not forward {mac} to 192.168.10.12"),
            format!("podtrace-{name}-B: cni0 has MTU 1400 instead of 1450"),
            format!("podtrace-{name}-B-b: no route to 0.0.0.0/0 via 10.10.1.1 dev eth0"),
        ]
    );
    assert!(!lab.picture().expect("picture").healthy);
    let (lab, built) = Lab::up_with(lab.config(), &up(false)).expect("repaired");
    assert_eq!(built, Built::Repaired);
    assert_eq!(ping(&lab, "A.a", "10.10.1.2"), 62);
}

#[test]
fn half_built_labs_are_replaced() {
    if !privileged() {
        return;
    }
    let name = unique_name();
    // As a process leaves it that is killed before the mount, and one killed after it.
    let made = Command::new("ip")
        .args(["netns", "add", &format!("podtrace-{name}-A-a")])
        .status()
        .expect("ip");
    assert!(made.success());
    fs::write(format!("/run/netns/podtrace-{name}-B"), "").expect("a file without mount");
    let lab = TestLab::up(|config| config.name.clone_from(&name));
    assert_eq!(ping(&lab, "A.a", "10.10.1.2"), 62);
}

#[test]
fn a_failed_up_leaves_nothing() {
    if !privileged() {
        return;
    }
    let name = unique_name();
    let directory = Path::new("/run/podtrace").join(&name);
    // In the way of the inventory, which is written when everything is built.
    let obstacle = directory.join("inventory.toml.new");
    fs::create_dir_all(&obstacle).expect("create");
    let result =
        Lab::up_with(&LabConfig { name: name.clone(), ..LabConfig::default() }, &up(false));
    let left = namespaces_of(&name);
    fs::remove_dir_all(&directory).expect("remove");
    assert!(result.expect_err("must fail").to_string().contains("inventory.toml"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn down_ends_what_runs_in_it_and_leaves_nothing() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let name = lab.config().name.clone();
    let mut sleeper = lab
        .spawn("B.b", Command::new("sleep").arg("1000").stdin(Stdio::null()))
        .expect("start sleep");
    let removed = Lab::down(&name).expect("down");
    assert!(!sleeper.wait().expect("wait").success());
    assert_eq!((removed.existed, removed.processes), (true, 1));
    assert_eq!(namespaces_of(&name), Vec::<String>::new());
    assert!(!Path::new("/run/podtrace").join(&name).exists());
    assert!(!Path::new("/run/podtrace").join(format!("{name}.lock")).exists());
    let again = Lab::down(&name).expect("down again");
    assert!(!again.existed);
    assert!(matches!(Lab::open(&name), Err(LabError::NotUp { .. })));
}

#[test]
fn the_inventory_names_what_there_is() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    let text = fs::read_to_string(lab.inventory_path()).expect("inventory");
    let inventory: toml::Table = text.parse().expect("TOML");
    let nodes = inventory["node"].as_array().expect("nodes");
    let names: Vec<_> = nodes.iter().filter_map(|node| node["name"].as_str()).collect();
    assert_eq!(names, ["A", "B", "wire"]);
    for node in nodes {
        let pods = node.get("pod").and_then(|pods| pods.as_array());
        let (own, name) = (&node["netns"], node["name"].as_str().expect("name"));
        for pod in pods.into_iter().flatten() {
            if pod["netns"] == *own {
                // A pod in the node's own network: at one of the node's addresses.
                let shown = run(&lab, name, &["ip", "-br", "address", "show", "dev", "ens33"]);
                for ip in pod["ip"].as_array().expect("ips") {
                    assert!(shown.contains(ip.as_str().expect("text")), "{ip} in {shown}");
                }
                continue;
            }
            let target = format!("{name}.{}", pod["name"].as_str().expect("name"));
            let listed: BTreeSet<&str> =
                pod["ip"].as_array().expect("ips").iter().filter_map(|ip| ip.as_str()).collect();
            let shown = run(&lab, &target, &["ip", "-br", "address", "show", "scope", "global"]);
            let there: BTreeSet<&str> =
                shown.split_whitespace().filter_map(|word| Some(word.split_once('/')?.0)).collect();
            assert_eq!(listed, there, "{target}");
            let netns = pod["netns"].as_str().expect("netns");
            assert_eq!(lab.netns(&target).expect("open").name(), netns);
        }
    }
}

#[test]
fn exec_shows_the_namespaces_own_interfaces_in_sys() {
    if !privileged() {
        return;
    }
    let lab = TestLab::up(|_| {});
    assert_eq!(run(&lab, "A.a", &["ls", "/sys/class/net"]), "eth0\nlo\n");
    let status = lab.exec("wire", &["sh", "-c", "exit 7"]).expect("run").status;
    assert_eq!(status.code(), Some(7));
    let error = lab.exec("C.c", &["true"]).expect_err("no such part").to_string();
    assert!(error.contains("A, A.a, A.a2, B, B.b, B.b2, wire, outside"), "{error}");
}
