//! How a pod hangs on its node: its interface, the other end of that pair, the bridge above. Pure.

use std::net::IpAddr;

use super::types::{Link, NetnsFacts};
use super::{PathFacts, Space};
use crate::model::End;

/// A pod's way into its node; what is gone is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attachment<'a> {
    /// The pod's own interface.
    pub pod: Option<&'a Link>,
    /// The node's end of the pair.
    pub veth: Option<&'a Link>,
    /// The bridge that `veth` is, or should be, a port of.
    pub bridge: Option<&'a Link>,
    /// The node's interface that the pod's sits on (macvlan, ipvlan): packets go by it without
    /// meeting the node's own network stack.
    pub lower: Option<&'a Link>,
}

impl Attachment<'_> {
    /// Interface index through which the node's routing gets the pod's packets.
    pub fn entry(&self) -> Option<u32> {
        self.bridge.or(self.veth).map(|l| l.index)
    }
}

impl PathFacts {
    /// How an end's pod hangs on its node; `None` for an end in the node's own namespace.
    pub fn attachment(&self, end: &End) -> Option<Attachment<'_>> {
        Some(attachment(self.pod(end)?, self.node(&end.node)?))
    }
}

/// As [`PathFacts::attachment`], for a pod's and its node's namespace.
pub fn attachment<'a>(pod: &'a Space, node: &'a Space) -> Attachment<'a> {
    let link = own_link(pod, node);
    let veth = link.and_then(|link| peer_in(&pod.facts, link, &node.facts));
    let lower = link.and_then(|link| lower_in(&pod.facts, link, &node.facts));
    let bridge = match veth.and_then(|veth| veth.master) {
        Some(master) => node.facts.link(master).filter(|l| l.is("bridge")),
        None if lower.is_some() => None,
        // Detached, or never a port: without a bridge (ptp), no bridge has the pod's network.
        None => bridge_around(&node.facts, &pod.ips),
    };
    Attachment { pod: link, veth, bridge, lower }
}

/// The same for one interface of the pod, whatever addresses it has.
pub fn attachment_of<'a>(pod: &'a Space, link: &'a Link, node: &'a Space) -> Attachment<'a> {
    let veth = peer_in(&pod.facts, link, &node.facts);
    let master = veth.and_then(|veth| veth.master);
    let bridge = master.and_then(|master| node.facts.link(master)).filter(|l| l.is("bridge"));
    Attachment { pod: Some(link), veth, bridge, lower: lower_in(&pod.facts, link, &node.facts) }
}

/// The interface of the node that one of a pod is made of.
fn lower_in<'a>(pod: &NetnsFacts, link: &Link, node: &'a NetnsFacts) -> Option<&'a Link> {
    let made_of = ["macvlan", "ipvlan"].iter().any(|kind| link.is(kind));
    let inum = *pod.nsids.get(&link.linked_nsid.filter(|_| made_of)?)?;
    node.link(link.linked?).filter(|_| inum == node.inum)
}

/// The interface that carries one of the pod's addresses; where none does (they were removed), the
/// one that leads to the node.
fn own_link<'a>(pod: &'a Space, node: &Space) -> Option<&'a Link> {
    let facts = &pod.facts;
    pod.ips.iter().find_map(|ip| facts.holder(*ip).filter(|l| !l.loopback)).or_else(|| {
        facts.links.iter().find(|l| l.is_pair() && peer_in(facts, l, &node.facts).is_some())
    })
}

fn peer_in<'a>(from: &NetnsFacts, link: &Link, to: &'a NetnsFacts) -> Option<&'a Link> {
    match from.peer(link) {
        Some((inum, index)) => to.link(index).filter(|_| inum == to.inum),
        // Only the other side knows the way.
        None => to.links.iter().find(|l| to.peer(l) == Some((from.inum, link.index))),
    }
}

/// The bridge whose network the pod is in.
fn bridge_around<'a>(node: &'a NetnsFacts, ips: &[IpAddr]) -> Option<&'a Link> {
    node.links.iter().filter(|l| l.is("bridge")).find(|bridge| {
        let mut networks = node.addresses_of(bridge.index);
        networks.any(|net| ips.iter().any(|ip| net.contains(ip)))
    })
}
