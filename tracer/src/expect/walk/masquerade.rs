//! What to do about masquerading that is there without need, or not there. Pure.

use std::net::IpAddr;

/// What chains of controllers are called: they write their rules anew, so that who deletes one has
/// mended nothing, and everything that needs it is cut off meanwhile.
const CONTROLLED: [(&str, &str); 6] = [
    ("FLANNEL-", "flannel"),
    ("KUBE-ROUTER", "kube-router"),
    ("KUBE-", "kube-proxy"),
    ("CNI-", "the CNI plugin"),
    ("cali", "Calico"),
    ("CILIUM_", "Cilium"),
];

/// For traffic between pods that is masqueraded.
pub(super) fn unexpected(table: &str, chain: &str) -> Vec<String> {
    let of = CONTROLLED.iter().find(|(prefix, _)| chain.starts_with(prefix));
    let networks = "kubectl -n kube-flannel get cm kube-flannel-cfg -o yaml   # its Network has to \
                    cover every node's pod network: kubectl get nodes -o custom-columns=NAME:.metadata.name,POD:.spec.podCIDR";
    match of {
        Some((_, who)) => vec![
            format!(
                "# the rule in table {table}, chain {chain} is written by {who}: leave it, and mend what {who} is told"
            ),
            networks.to_owned(),
        ],
        None => vec![
            format!(
                "iptables-save -t {table} | grep -e '-A {chain} '   # whose rule it is, and since when it is not needed"
            ),
            networks.to_owned(),
        ],
    }
}

/// For a pod's address that leaves the node as it is.
pub(super) fn missing(src: IpAddr, device: &str) -> Vec<String> {
    let save = if src.is_ipv6() { "ip6tables-save" } else { "iptables-save" };
    vec![
        format!("{save} -t nat | grep -iE 'masq|snat'   # what should translate {src} at {device}, and why it does not match"),
        "kubectl -n kube-flannel get ds kube-flannel-ds -o yaml | grep ip-masq   # flanneld writes its \
         rules with --ip-masq; a bridge plugin with \"ipMasq\": true"
            .to_owned(),
    ]
}
