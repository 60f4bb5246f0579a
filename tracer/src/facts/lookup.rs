//! The look-ups in one namespace's state that the kernel itself would do. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::types::{
    FdbEntry, Link, NeighborEntry, NetnsFacts, RouteAnswer, RouteHit, RouteKind, RouteQuery,
};
use crate::model::Mac;

impl NetnsFacts {
    /// The interface with this index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|l| l.index == index)
    }

    /// Addresses of an interface.
    pub fn addresses_of(&self, ifindex: u32) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses.iter().filter(move |a| a.ifindex == ifindex).map(|a| a.net)
    }

    /// The interface that has this address.
    pub fn holder(&self, ip: IpAddr) -> Option<&Link> {
        let address = self.addresses.iter().find(|a| a.net.addr() == ip)?;
        self.link(address.ifindex)
    }

    /// The bridge whose network an address is of.
    pub fn bridge_of(&self, ip: IpAddr) -> Option<&Link> {
        let around = self.addresses.iter().filter(|a| a.net.contains(&ip));
        around.filter_map(|a| self.link(a.ifindex)).find(|l| l.is("bridge"))
    }

    /// Whether a default route goes by an interface: it leads to other machines, whatever it is.
    pub fn leads_out(&self, link: &Link) -> bool {
        self.routes.iter().any(|r| r.dst.prefix_len() == 0 && r.oif == Some(link.index))
    }

    /// The other end of a pair: namespace inode and interface index.
    pub fn peer(&self, link: &Link) -> Option<(u32, u32)> {
        let index = link.linked.filter(|_| link.is_pair())?;
        let inum = match link.linked_nsid {
            Some(id) => *self.nsids.get(&id)?,
            None => self.inum,
        };
        Some((inum, index))
    }

    /// A kernel parameter, under the name that sysctl(8) uses.
    pub fn sysctl(&self, name: &str) -> Option<&str> {
        self.sysctls.get(name).map(String::as_str)
    }

    /// A kernel parameter that is a number.
    pub fn sysctl_number(&self, name: &str) -> Option<i64> {
        self.sysctl(name)?.parse().ok()
    }

    /// A parameter of an interface: `interface_sysctl("ipv4", "flannel.1", "rp_filter")`.
    /// `all` and `default` are interfaces here.
    pub fn interface_sysctl(&self, family: &str, interface: &str, name: &str) -> Option<&str> {
        self.sysctl(&format!("net.{family}.conf.{}.{name}", interface.replace('.', "/")))
    }

    /// A protocol counter: `counter("Ip.InAddrErrors")`.
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.counters.get(name).copied()
    }

    /// Whether a source could not be read, by how its name begins: `firewall`.
    pub fn has_gap(&self, source: &str) -> bool {
        self.gaps.iter().any(|g| g.source.starts_with(source))
    }

    /// The hardware address that packets to a neighbour are sent to.
    pub fn neighbor(&self, ifindex: u32, ip: IpAddr) -> Option<&NeighborEntry> {
        self.neighbors.iter().find(|n| n.ifindex == ifindex && n.ip == ip)
    }

    /// Where a VXLAN device sends a hardware address: its entry, else the default one (all zero).
    pub fn tunnel_entry(&self, ifindex: u32, mac: Mac) -> Option<&FdbEntry> {
        let find = |mac: Mac| {
            self.fdb.iter().find(|e| e.ifindex == ifindex && e.mac == mac && e.dst.is_some())
        };
        find(mac).or_else(|| find(Mac::default()))
    }

    /// The question that a VXLAN device asks when it sends a packet to `next_hop`: the chain
    /// next hop → neighbour → hardware address → forwarding entry → tunnel endpoint.
    pub fn tunnel_query(&self, device: &Link, next_hop: IpAddr) -> Option<RouteQuery> {
        let vxlan = device.vxlan.as_ref()?;
        let mac = self.neighbor(device.index, next_hop)?.mac?;
        let entry = self.tunnel_entry(device.index, mac)?;
        let dst = entry.dst?;
        let src = vxlan.local.filter(|l| l.is_ipv4() == dst.is_ipv4());
        Some(RouteQuery { dst, src, iif: None, oif: entry.via })
    }

    /// The answer to exactly this question.
    pub fn answer(&self, query: &RouteQuery) -> Option<&RouteAnswer> {
        self.answers.iter().find(|a| a.query == *query)
    }

    /// Answers for a destination: as if forwarded first, then as if sent by the host.
    pub fn answers_to(&self, dst: IpAddr) -> impl Iterator<Item = &RouteAnswer> {
        let of = move |forwarded: bool| {
            self.answers
                .iter()
                .filter(move |a| a.query.dst == dst && a.query.iif.is_some() == forwarded)
        };
        of(true).chain(of(false))
    }

    /// Where a packet to `dst` would leave; `None` when no route forwards it.
    pub fn way_to(&self, dst: IpAddr) -> Option<(&Link, &RouteHit)> {
        self.answers_to(dst).find_map(|a| {
            let hit = a.hit().filter(|h| h.kind == RouteKind::Unicast)?;
            Some((self.link(hit.oif?)?, hit))
        })
    }
}
