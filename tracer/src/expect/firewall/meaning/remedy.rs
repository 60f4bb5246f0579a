//! Commands that let a packet pass which a rule or policy ends. Pure.
//!
//! The rule of a program is the program's to change. A rule or policy that ends whatever nobody has
//! accepted gets an exception rather than being taken away, and an address in a set leaves the set.

use std::net::IpAddr;

use super::{Owner, rule};
use crate::expect::firewall::matching::{Holds, holds};
use crate::expect::firewall::{Decision, PacketView, sets};
use crate::facts::NetnsFacts;
use crate::facts::firewall::{Backend, Condition, FirewallRule, Match, NfHook, TableFamily};

const UDP: u8 = 17;

pub(super) fn commands(
    decision: &Decision,
    packet: &PacketView,
    facts: &NetnsFacts,
    outer: bool,
) -> Vec<String> {
    let own = rule(decision, facts);
    let banned = own.and_then(|rule| banned(decision, rule, packet, facts));
    if let Some(owner) = Owner::of(decision) {
        return of_owner(owner, packet, outer, banned);
    }
    if let Some((_, command)) = banned {
        return vec![command];
    }
    let exception = |place| accept(decision, packet, place);
    match (&decision.rule, own) {
        (None, _) if outer || decision.hook == NfHook::Input => vec![exception(Place::End)],
        (None, _) => open(decision),
        (Some(rule), Some(own))
            if catches_all(own) && (outer || decision.hook == NfHook::Input) =>
        {
            vec![exception(Place::Before { position: rule.position, handle: rule.handle })]
        }
        (Some(_), _) => delete(decision),
    }
}

/// Whether a rule says nothing of its own about addresses and ports: it ends what no other took.
fn catches_all(rule: &FirewallRule) -> bool {
    !rule.conditions.iter().any(|c| {
        matches!(
            c.what,
            Match::Src(_)
                | Match::Dst(_)
                | Match::Sport(_)
                | Match::Dport(_)
                | Match::Port(_)
                | Match::IpSet { .. }
                | Match::Recent(_)
                | Match::AnyOf(_)
                | Match::CtState(_)
                | Match::Mark { .. }
                | Match::EtherSrc(_)
                | Match::Unknown(_)
                | Match::Sometimes(_)
        )
    })
}

/// Where an exception goes.
enum Place {
    /// Behind the last rule: before the policy.
    End,
    /// Before a rule.
    Before { position: u32, handle: Option<u64> },
}

/// Lets what the packet is pass: of its sender, to its port.
fn accept(decision: &Decision, packet: &PacketView, place: Place) -> String {
    let (table, chain) = (&decision.table, &decision.chain);
    let port = packet.dport.filter(|_| matches!(packet.proto, 6 | UDP | 132));
    let proto = sets::protocol(packet.proto).replace("icmpv6", "ipv6-icmp");
    if let Some(iptables) = iptables(decision) {
        let port = port.map_or_else(String::new, |port| format!(" --dport {port}"));
        let to = format!("-s {} -p {proto}{port} -j ACCEPT", packet.src);
        return match place {
            Place::End => format!("{iptables} -A {chain} {to}"),
            Place::Before { position, .. } => format!("{iptables} -I {chain} {position} {to}"),
        };
    }
    let six = if packet.src.is_ipv6() { "ip6" } else { "ip" };
    let port = match port {
        Some(port) => format!("{proto} dport {port}"),
        None => format!("meta l4proto {proto}"),
    };
    let family = decision.family.name();
    let rule = format!("{six} saddr {} {port} accept", packet.src);
    match place {
        Place::Before { handle: Some(handle), .. } => {
            format!("nft insert rule {family} {table} {chain} position {handle} {rule}")
        }
        Place::Before { handle: None, .. } => {
            format!("nft insert rule {family} {table} {chain} {rule}")
        }
        Place::End => format!("nft add rule {family} {table} {chain} {rule}"),
    }
}

/// `iptables-nft -t filter`; `None`: the table is nft's.
fn iptables(decision: &Decision) -> Option<String> {
    let six = if decision.family == TableFamily::Ip6 { "6" } else { "" };
    let variant = match decision.backend {
        Backend::IptablesLegacy => "legacy",
        Backend::IptablesNft => "nft",
        Backend::Nft => return None,
    };
    Some(format!("ip{six}tables-{variant} -t {}", decision.table))
}

/// Changes a policy that drops what is forwarded: a node forwards for its pods.
fn open(decision: &Decision) -> Vec<String> {
    let (family, table, chain) = (decision.family.name(), &decision.table, &decision.chain);
    match iptables(decision) {
        Some(iptables) => vec![format!("{iptables} -P {chain} ACCEPT")],
        None => vec![
            format!(
                "nft add rule {family} {table} {chain} accept   # or what of it should pass {}",
                decision.hook.name().to_uppercase()
            ),
            format!("nft chain {family} {table} {chain} '{{ policy accept; }}'"),
        ],
    }
}

/// Takes the rule away.
fn delete(decision: &Decision) -> Vec<String> {
    let Some(rule) = &decision.rule else { return Vec::new() };
    let (family, table, chain) = (decision.family.name(), &decision.table, &decision.chain);
    if let Some(iptables) = iptables(decision) {
        let rule = rule
            .text
            .strip_prefix("-A ")
            .map_or_else(|| format!("{chain} {}", rule.text), |rule| rule.trim().to_owned());
        return vec![format!("{iptables} -D {rule}")];
    }
    vec![match rule.handle {
        Some(handle) => format!("nft delete rule {family} {table} {chain} handle {handle}"),
        None => format!("nft -a list chain {family} {table} {chain}"),
    }]
}

/// The set that the rule bans by, and the command that takes the packet's address out of it.
fn banned(
    decision: &Decision,
    rule: &FirewallRule,
    packet: &PacketView,
    facts: &NetnsFacts,
) -> Option<(String, String)> {
    let fits = |c: &&Condition| !c.invert && holds(c, packet, facts) == Holds::Always;
    let of_set = |condition: &Condition| -> Option<(String, String)> {
        match &condition.what {
            Match::IpSet { name, from_src } if from_src.as_slice() == [true] => {
                let set = facts.firewall.ipset(name)?;
                let hash = set.kind == "hash:ip" || set.kind == "bitmap:ip";
                let command = if hash {
                    format!("ipset del {name} {}", packet.src)
                } else {
                    format!(
                        "ipset list {name}   # and take out what has {}: ipset del {name} …",
                        packet.src
                    )
                };
                Some((name.clone(), command))
            }
            Match::Src(ranges) => {
                let (_, after) = rule.text.split_once("saddr @")?;
                let name = after.split_whitespace().next()?;
                let range = ranges.iter().find(|r| r.contains(packet.src))?;
                let (family, table) = (decision.family.name(), &decision.table);
                let element = element(range.first, range.last);
                let command =
                    format!("nft delete element {family} {table} {name} '{{ {element} }}'");
                Some((name.to_owned(), command))
            }
            _ => None,
        }
    };
    rule.conditions.iter().filter(fits).find_map(of_set)
}

fn element(first: IpAddr, last: IpAddr) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// In terms of the program whose rule it is.
fn of_owner(
    owner: Owner,
    packet: &PacketView,
    outer: bool,
    banned: Option<(String, String)>,
) -> Vec<String> {
    let port = packet.dport.map_or_else(String::new, |port| format!(" port {port}"));
    let proto = sets::protocol(packet.proto);
    match owner {
        Owner::KubeProxy => vec![
            "kubectl get service,endpointslices -A   # kube-proxy writes this rule from them; change those"
                .to_owned(),
        ],
        Owner::KubeRouter | Owner::Calico | Owner::Cilium => vec![
            "kubectl get networkpolicy -A   # the rule is made from these; change them".to_owned(),
        ],
        Owner::Flannel => vec![
            "kubectl -n kube-flannel get configmap kube-flannel-cfg -o yaml   # flanneld writes the rule from it"
                .to_owned(),
        ],
        Owner::Cni => vec![
            "ls /etc/cni/net.d   # the CNI plugins write this rule; recreate the pod, or change their configuration"
                .to_owned(),
        ],
        Owner::Docker => vec![format!(
            "iptables -I DOCKER-USER -s {} -d {} -j ACCEPT   # the chain that Docker leaves to you",
            packet.src, packet.dst
        )],
        Owner::Fail2ban => {
            let jail = banned.map_or_else(|| "JAIL".to_owned(), |(set, _)| jail(&set));
            vec![
                format!("fail2ban-client set {jail} unbanip {}", packet.src),
                format!("fail2ban-client set {jail} addignoreip {}   # so that it stays so", packet.src),
            ]
        }
        Owner::Ufw if outer || packet.dport.is_some() => {
            vec![format!("ufw allow proto {proto} from {} to any{port}", packet.src)]
        }
        Owner::Ufw => vec![format!("ufw allow from {}", packet.src)],
        Owner::Firewalld => vec![format!(
            "firewall-cmd --permanent --zone=trusted --add-source={} && firewall-cmd --reload",
            packet.src
        )],
        Owner::Libvirt => vec![
            "virsh net-list; virsh net-edit NETWORK   # libvirt writes this rule from its networks"
                .to_owned(),
        ],
    }
}

/// `f2b-sshd`, `addr-set-sshd` → `sshd`.
fn jail(set: &str) -> String {
    let name = set.strip_prefix("f2b-").or_else(|| set.strip_prefix("addr-set-"));
    name.unwrap_or("JAIL").to_owned()
}
