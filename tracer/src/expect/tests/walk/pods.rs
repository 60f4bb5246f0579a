//! Faults of pods and bridges.

use super::*;

#[test]
fn pod_interfaces_down_and_gone() {
    let mut facts = healthy();
    link(&mut facts, POD[0], ETH).up = false;
    only(&facts, "pod.interface-down", "A.a.eth0", "");
    let mut facts = healthy();
    link(&mut facts, POD[1], ETH).up = false;
    only(&facts, "pod.interface-down", "B.b.eth0", "B.cni0>");
    let mut facts = healthy();
    space(&mut facts, POD[1]).addresses.retain(|a| a.net.addr() != ip("10.10.1.2"));
    only(&facts, "pod.gone", "B.b", "B.flannel.1<");
}

#[test]
fn a_pod_without_way_back_breaks_the_reply_only() {
    let mut facts = healthy();
    answer(&mut facts, POD[1], "10.10.0.2", no_route());
    let (_, forward) = run(&facts, &icmp(Family::V4), Direction::Forward);
    assert_eq!(forward.problems, []);
    let problem = only_in(
        &facts,
        &icmp(Family::V4),
        Direction::Reply,
        "pod.no-default-route",
        "B.b.eth0",
        "",
    );
    assert!(problem.fix()[0].starts_with("ip route add default via 10.10.1.1 dev eth0"));
}

#[test]
fn pods_that_do_not_answer() {
    let mut facts = healthy();
    set(&mut facts, POD[1], "net.ipv4.icmp_echo_ignore_all", "1");
    only(&facts, "pod.icmp-ignored", "B.b.eth0", "B.b.eth0<");
    let tcp = FlowSpec { dport: Some(80), ..FlowSpec::small(Family::V4, TCP) };
    let (_, walked) = run(&facts, &tcp, Direction::Reply);
    assert_eq!(walked.problems, [], "the answer goes to a socket that is there");
    let problem =
        only_in(&facts, &tcp, Direction::Forward, "socket.no-listener", "B.b.eth0", "B.b.eth0<");
    assert!(problem.deadly());
    let listener = |at: &str| Socket {
        proto: SocketProto::Tcp,
        local: at.parse().unwrap(),
        remote: None,
        rx_queue: 0,
        drops: None,
        inode: 1,
    };
    space(&mut facts, POD[1]).sockets = vec![listener("127.0.0.1:80")];
    let problem =
        only_in(&facts, &tcp, Direction::Forward, "socket.no-listener", "B.b.eth0", "B.b.eth0<");
    assert!(problem.text.contains("only on 127.0.0.1"), "{}", problem.text);
    space(&mut facts, POD[1]).sockets = vec![listener("0.0.0.0:80")];
    assert_eq!(run(&facts, &tcp, Direction::Forward).1.problems, []);
}

#[test]
fn addresses_that_exist_twice() {
    let mut facts = healthy();
    facts.pods[0].ips = vec![ip("10.10.1.2")];
    only(&facts, "pod.duplicate-address", "B.b.eth0", "B.b.eth0<");
    let mut facts = healthy();
    space(&mut facts, POD[0]).addresses.push(address(ETH, "10.10.1.2/32"));
    only(&facts, "pod.duplicate-address", "A.a.eth0", "");
    let mut facts = healthy();
    space(&mut facts, NODE[1]).addresses.push(address(BRIDGE, "10.10.0.2/32"));
    only(&facts, "route.martian-source", "B.flannel.1", "B.flannel.1<");
    set(&mut facts, NODE[1], "net.ipv4.conf.all.accept_local", "1");
    assert_eq!(run(&facts, &icmp(Family::V4), Direction::Forward).1.problems, []);
}

#[test]
fn bridges_and_ports() {
    let mut facts = healthy();
    link(&mut facts, NODE[0], BRIDGE).up = false;
    only(&facts, "bridge.down", "A.cni0", "A.vethabc<");
    let mut facts = healthy();
    link(&mut facts, NODE[0], VETH).up = false;
    only(&facts, "bridge.veth-down", "A.vethabc", "");
    let mut facts = healthy();
    let state = Some("learning".to_owned());
    link(&mut facts, NODE[0], VETH).bridge_port = Some(BridgePort { state, ..Default::default() });
    only(&facts, "bridge.port-blocking", "A.vethabc", "A.vethabc<");
    let mut facts = healthy();
    link(&mut facts, NODE[1], VETH).master = None;
    let problem = only(&facts, "bridge.port-detached", "B.vethabc", "B.cni0>");
    assert_eq!(problem.fix()[0], "ip link set vethabc master cni0");
}

#[test]
fn a_detached_port_may_carry_what_comes_from_the_pod() {
    let mut facts = healthy();
    link(&mut facts, NODE[0], VETH).master = None;
    let problem = only(&facts, "bridge.port-detached", "A.vethabc", "A.vethabc<");
    assert_eq!(problem.seriousness, Seriousness::Harms);
    let flow = icmp(Family::V4);
    let reply =
        only_in(&facts, &flow, Direction::Reply, "bridge.port-detached", "A.vethabc", "A.cni0>");
    assert!(reply.deadly());
}

#[test]
fn a_bridge_with_another_address() {
    let mut facts = healthy();
    for address in &mut space(&mut facts, NODE[0]).addresses {
        if address.net.addr() == ip("10.10.0.1") {
            address.net = "10.10.9.1/24".parse().unwrap();
        }
    }
    let problem = only(&facts, "bridge.wrong-address", "A.cni0", "");
    assert_eq!(
        problem.fix(),
        ["ip addr add 10.10.0.1/24 dev cni0", "ip addr del 10.10.9.1/24 dev cni0"]
    );
    assert!(problem.certain);
    // As long as the pod remembers, it goes on.
    space(&mut facts, POD[0]).neighbors.push(NeighborEntry {
        ifindex: ETH,
        ip: ip("10.10.0.1"),
        mac: Some(mac("02:4e:00:00:00:00")),
        state: NeighborState::Stale,
    });
    assert!(!only(&facts, "bridge.wrong-address", "A.cni0", "").certain);
}

#[test]
fn gateways_that_do_not_answer_or_are_mistaken() {
    let mut facts = healthy();
    set(&mut facts, NODE[0], "net.ipv4.conf.cni0.arp_ignore", "8");
    only(&facts, "neighbor.arp-ignored", "A.cni0", "");
    let mut facts = healthy();
    let entry =
        |mac: Option<Mac>, state| NeighborEntry { ifindex: ETH, ip: ip("10.10.0.1"), mac, state };
    let wrong = entry(Some(mac("02:00:00:00:00:99")), NeighborState::Permanent);
    space(&mut facts, POD[0]).neighbors = vec![wrong];
    only(&facts, "neighbor.wrong-mac", "A.a.eth0", "");
    // Failed once is not wrong: it will be asked again.
    space(&mut facts, POD[0]).neighbors = vec![entry(None, NeighborState::Failed)];
    let (_, walked) = run(&facts, &icmp(Family::V4), Direction::Forward);
    assert_eq!((walked.problems.len(), walked.gaps().count()), (0, 1));
}

#[test]
fn what_nodes_and_bridges_think_of_a_pod() {
    let mut facts = healthy();
    let entry = |text: &str| NeighborEntry {
        ifindex: BRIDGE,
        ip: ip("10.10.1.2"),
        mac: Some(mac(text)),
        state: NeighborState::Permanent,
    };
    space(&mut facts, NODE[1]).neighbors.push(entry("02:00:00:00:00:99"));
    only(&facts, "neighbor.wrong-mac", "B.cni0", "B.cni0>");
    // What answers from behind another port is a second holder of the address.
    let behind = |text: &str, permanent: bool| FdbEntry {
        ifindex: VETH2,
        mac: mac(text),
        master: Some(BRIDGE),
        dst: None,
        via: None,
        vni: None,
        port: None,
        own: false,
        permanent,
    };
    space(&mut facts, NODE[1]).fdb.push(behind("02:00:00:00:00:99", false));
    only(&facts, "pod.duplicate-address", "B.cni0", "B.cni0>");
    let mut facts = healthy();
    space(&mut facts, NODE[1]).fdb.push(behind("02:aa:00:00:00:01", true));
    only(&facts, "bridge.fdb-wrong", "B.vethabc", "B.cni0>");
    // Learned there: a second holder of the hardware address.
    let mut facts = healthy();
    space(&mut facts, NODE[1]).fdb.push(behind("02:aa:00:00:00:01", false));
    only(&facts, "bridge.duplicate-mac", "B.vethabc", "B.cni0>");
}

#[test]
fn ports_of_one_bridge_that_do_not_talk() {
    let mut facts = one_node(false);
    complete(&mut facts);
    for index in [VETH, VETH2] {
        link(&mut facts, NODE[0], index).bridge_port =
            Some(BridgePort { isolated: Some(true), ..BridgePort::default() });
    }
    only(&facts, "bridge.port-isolated", "A.vethdef", "A.vethabc<");
    let mut facts = one_node(false);
    complete(&mut facts);
    link(&mut facts, NEIGHBOR, ETH).mac = Some(mac("02:aa:00:00:00:00"));
    only(&facts, "bridge.duplicate-mac", "A.a2.eth0", "A.vethabc<");
}
