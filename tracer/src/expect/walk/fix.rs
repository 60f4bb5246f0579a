//! Commands that mend a problem. Pure.
//!
//! They are typed on the node of the problem's [`Spot`], or inside the pod where the spot is in
//! one; what has to be typed elsewhere says so behind `#`, which a shell ignores. flanneld writes
//! routes, neighbours and forwarding entries of the tunnel itself, so restarting it comes next.

use std::net::IpAddr;

use super::{Neighborhood, ProblemKind, RefusalKind, Spot, masquerade};
use crate::model::Mac;

/// Best first; see [`super::Problem::fix`].
pub(super) fn commands(kind: &ProblemKind, spot: &Spot) -> Vec<String> {
    let device = spot.interface.as_deref().unwrap_or("DEVICE");
    let Spot { node, pod, .. } = spot;
    let recreate = || {
        let pod = pod.as_deref().unwrap_or("POD");
        format!("kubectl delete pod {pod}   # its controller makes it anew, with all of this")
    };
    let restart = || {
        format!(
            "kubectl -n kube-flannel delete pod -l app=flannel --field-selector spec.nodeName={node}   # flanneld writes it anew"
        )
    };
    match kind {
        ProblemKind::PodInterfaceMissing
        | ProblemKind::PodAddressMissing { .. } => vec![recreate()],
        ProblemKind::PodInterfaceDown => {
            vec![format!("ip link set {device} up   # in the pod; its routes went with it"), recreate()]
        }
        ProblemKind::PodRouteMissing { gateway, .. } => gateway
            .map(|gateway| format!("{} route add default via {gateway} dev {device}   # in the pod", ip(&gateway)))
            .into_iter()
            .chain([recreate()])
            .collect(),
        ProblemKind::IcmpIgnored { sysctl } => vec![format!("sysctl -w {sysctl}=0   # in the pod")],
        ProblemKind::DuplicateAddress { other, address } => vec![
            format!("kubectl get pods -A -o wide | grep -w {address}   # who else has it: {other}"),
            recreate(),
        ],
        ProblemKind::DuplicateMac { .. } => vec![recreate()],
        ProblemKind::NoListener { proto, port, elsewhere } => {
            let flag = if *proto == 17 { "u" } else { "t" };
            let mut steps =
                vec![format!("ss -ln{flag}p 'sport = :{port}'   # in the pod: what listens, and where")];
            steps.extend(elsewhere.map(|at| {
                format!("# let the program listen on 0.0.0.0 or [::] instead of {at}")
            }));
            steps
        }
        ProblemKind::VethDown | ProblemKind::BridgeDown | ProblemKind::LinkDown { carrier: false } => {
            vec![format!("ip link set {device} up")]
        }
        ProblemKind::LinkDown { carrier: true } => {
            vec![format!("ethtool {device}   # up, but without carrier: cable, or the other end")]
        }
        ProblemKind::BridgeMissing => vec![recreate()],
        ProblemKind::GatewayAddressMissing { gateway, prefix, has } => {
            let mut steps = vec![format!("{} addr add {gateway}/{prefix} dev {device}", ip(gateway))];
            steps.extend(has.iter().filter(|net| net.addr().is_ipv4() == gateway.is_ipv4()).map(
                |net| format!("{} addr del {net} dev {device}", ip(&net.addr())),
            ));
            steps
        }
        ProblemKind::GatewayIgnoresArp { sysctl, .. } => vec![format!("sysctl -w {sysctl}=0")],
        ProblemKind::PortDetached { bridge } => vec![
            format!("ip link set {device} master {bridge}"),
            format!("bridge link set dev {device} hairpin on   # as it was, for services"),
        ],
        ProblemKind::PortBlocking { .. } => {
            vec![format!("bridge link set dev {device} state 3   # forwarding")]
        }
        ProblemKind::PortIsolated { .. } => vec![format!("bridge link set dev {device} isolated off")],
        ProblemKind::HairpinOff => vec![format!("bridge link set dev {device} hairpin on")],
        ProblemKind::BridgeEntryWrong { mac, has, expected } => vec![
            format!("bridge fdb del {mac} dev {has} master"),
            format!("bridge fdb replace {mac} dev {expected} master dynamic"),
        ],
        ProblemKind::ForwardingOff { sysctl } => vec![
            format!("sysctl -w {sysctl}=1"),
            format!("echo '{sysctl} = 1' > /etc/sysctl.d/99-forwarding.conf   # to keep it"),
        ],
        ProblemKind::RouteMissing { dst, expected } => expected
            .as_ref()
            .map(|route| format!("{} route add {route}", ip(dst)))
            .into_iter()
            .chain([restart()])
            .collect(),
        ProblemKind::RouteRefuses { dst, refusal, route, rule } => {
            refusal_removed(*dst, *refusal, route.as_deref(), rule.as_deref())
        }
        ProblemKind::RouteWrongDevice { dst, route, replace, .. } => {
            let ip = ip(dst);
            match (route, replace) {
                (Some(route), Some(replace)) => {
                    vec![format!("{ip} route del {route}"), format!("{ip} route replace {replace}")]
                }
                (Some(route), None) => vec![format!("{ip} route del {route}"), restart()],
                (None, Some(replace)) => vec![format!("{ip} route replace {replace}")],
                (None, None) => vec![format!("{ip} route get {dst}"), restart()],
            }
        }
        ProblemKind::RuleHijack { dst, rule, .. } => vec![
            format!("{} rule add to {dst} lookup main priority 10   # better: the whole pod network", ip(dst)),
            format!("{} rule del {rule}", ip(dst)),
        ],
        ProblemKind::GatewayDead { dst, gateway, device, expected } => expected
            .map(|expected| {
                format!("{} route replace {dst} via {expected} dev {device}", ip(dst))
            })
            .into_iter()
            .chain([format!("ping -c1 -I {device} {gateway}   # who should answer?"), restart()])
            .collect(),
        ProblemKind::RouteLoop { dst, .. } => {
            vec![format!("{} route get {dst}   # this route sends it back", ip(dst)), restart()]
        }
        ProblemKind::RpFilter { src, iif, .. } => vec![
            format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", sysctl_name(iif)),
            format!("{} route get {src}   # and make the way back lead through {iif}", ip(src)),
        ],
        ProblemKind::MartianSource { src, holder } => {
            vec![format!("{} addr del {src} dev {holder}", ip(src))]
        }
        ProblemKind::TtlExceeded { .. } => {
            vec!["# the sender has to set a larger TTL; traceroute does this on purpose".to_owned()]
        }
        ProblemKind::Firewall { meaning: Some(meaning), .. }
        | ProblemKind::Untranslated { meaning } => meaning.fix.clone(),
        ProblemKind::Firewall { remedy, .. } => remedy.clone(),
        ProblemKind::Masquerade { table, chain, .. } => masquerade::unexpected(table, chain),
        ProblemKind::UnderlayAddressTaken { address, device, owner } => vec![
            format!("ip addr del {address} dev {device}   # it is node {owner}'s"),
            "# find out what added it (keepalived, a network configuration), or it comes again".to_owned(),
        ],
        ProblemKind::MasqueradeMissing { src, device } => masquerade::missing(*src, device),
        ProblemKind::ConntrackFull { max, .. } => vec![
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.saturating_mul(4)),
            "conntrack -S   # and what fills it: conntrack -L".to_owned(),
        ],
        ProblemKind::NeighborMissing { ip: address, device, whose, mac }
        | ProblemKind::NeighborFailed { ip: address, device, whose, mac } => {
            neighbor(*address, device, *whose, *mac, &restart)
        }
        ProblemKind::NeighborWrongMac { ip: address, device, whose, real, .. } => {
            neighbor(*address, device, *whose, Some(*real), &restart)
        }
        ProblemKind::VxlanMissing | ProblemKind::VxlanAddressMissing { expected: None } => {
            vec![restart()]
        }
        ProblemKind::VxlanAddressMissing { expected: Some(net) } => {
            vec![format!("{} addr add {net} dev {device}", ip(&net.addr())), restart()]
        }
        ProblemKind::VxlanDown => {
            vec![format!("ip link set {device} up   # its routes went with it"), restart()]
        }
        ProblemKind::VxlanLocalAddress { .. } => vec![
            format!("ip link del {device}   # then restart flanneld, with --iface=INTERFACE of the node network"),
            restart(),
        ],
        ProblemKind::FdbMissing { mac, expected }
        | ProblemKind::FdbWrong { mac, expected, .. }
        | ProblemKind::FdbSelf { mac, expected, .. } => {
            let mut steps = Vec::new();
            if let ProblemKind::FdbWrong { dst, .. } | ProblemKind::FdbSelf { dst, .. } = kind {
                steps.push(format!("bridge fdb del {mac} dev {device} dst {dst}"));
            }
            steps.extend(
                expected.map(|dst| format!("bridge fdb append {mac} dev {device} dst {dst} self permanent")),
            );
            steps.push(restart());
            steps
        }
        ProblemKind::VtepMacDuplicate { .. } => vec![
            format!("ip link del {device}   # flanneld makes it anew, with another address"),
            format!("kubectl annotate node {node} flannel.alpha.coreos.com/backend-data-"),
            restart(),
        ],
        ProblemKind::VniMismatch { .. } | ProblemKind::PortMismatch { .. } => vec![
            "kubectl -n kube-flannel get configmap kube-flannel-cfg -o yaml   # VNI and Port must be the same everywhere".to_owned(),
            format!("ip link del {device}   # flanneld makes it anew"),
            restart(),
        ],
        ProblemKind::VxlanLearning => {
            vec![format!("ip link set {device} type vxlan nolearning")]
        }
        ProblemKind::UnderlayMtu { device: lower, needed, tunnel_mtu, .. } => vec![
            format!("ip link set {lower} mtu {needed}   # where the network carries that much"),
            format!("ip link set {device} mtu {tunnel_mtu}   # else; and the pods with it (\"MTU\" in net-conf.json)"),
        ],
        ProblemKind::PodMtu { mtu, .. } => vec![
            format!("ip link set {device} mtu {mtu}   # in the pod"),
            format!("# set \"MTU\": {mtu} in the CNI configuration and recreate the pods"),
        ],
        ProblemKind::PacketTooBig { mtu, .. } => {
            vec![format!("# send packets of at most {mtu} bytes, or let ICMP \"too big\" reach the sender")]
        }
        ProblemKind::Qdisc { .. } => vec![format!("tc qdisc del dev {device} root")],
        ProblemKind::ForeignProgram { hook, .. } => vec![match hook.as_str() {
            "xdp" => format!("ip link show {device}; ip link set {device} xdp off"),
            hook => format!("tc filter show dev {device} {}", hook.trim_start_matches("tc ")),
        }],
        ProblemKind::XfrmPolicy { .. } => vec!["ip xfrm policy; ip -s xfrm state".to_owned()],
    }
}

/// `ip` or `ip -6`.
fn ip(address: &IpAddr) -> &'static str {
    if address.is_ipv6() { "ip -6" } else { "ip" }
}

/// An interface in a parameter's name: dots would separate.
fn sysctl_name(interface: &str) -> String {
    interface.replace('.', "/")
}

fn refusal_removed(
    dst: IpAddr,
    refusal: RefusalKind,
    route: Option<&str>,
    rule: Option<&str>,
) -> Vec<String> {
    let ip = ip(&dst);
    match (route, rule) {
        (_, Some(rule)) => vec![format!("{ip} rule del {rule}")],
        (Some(route), None) => vec![format!("{ip} route del {route}")],
        (None, None) => {
            vec![
                format!("{ip} route show table all | grep {}", refusal.as_str()),
                format!("{ip} rule show"),
            ]
        }
    }
}

fn neighbor(
    address: IpAddr,
    device: &str,
    whose: Neighborhood,
    mac: Option<Mac>,
    restart: &dyn Fn() -> String,
) -> Vec<String> {
    let ip = ip(&address);
    match (whose, mac) {
        (Neighborhood::Vtep, Some(mac)) => vec![
            format!("{ip} neigh replace {address} lladdr {mac} dev {device} nud permanent"),
            restart(),
        ],
        (Neighborhood::Vtep, None) => vec![restart()],
        // A dynamic entry is learned anew by itself.
        _ => vec![
            format!("{ip} neigh del {address} dev {device}"),
            format!("{ip} neigh show dev {device}"),
        ],
    }
}
