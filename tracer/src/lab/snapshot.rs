//! What the kernel says is in a namespace: as much as is needed to check and to draw the lab.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::RouteMessageBuilder;

use super::error::{Context, Result};
use super::space::Space;
use crate::model::Mac;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    /// Set up by the administrator.
    pub(super) admin_up: bool,
    /// Able to carry packets.
    pub(super) running: bool,
    /// ifindex of the bridge that it is a port of.
    pub(super) master: Option<u32>,
    /// ifindex of the other end (in that end's namespace) or of the lower device.
    pub(super) peer: Option<u32>,
    /// Hairpin mode of a bridge port.
    pub(super) hairpin: bool,
    /// VNI and UDP port of a VXLAN device.
    pub(super) vxlan: Option<(u32, u16)>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) net: IpNet,
    /// Not tentative, not a duplicate.
    pub(super) usable: bool,
}

/// A route through a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: IpNet,
    pub(super) via: IpAddr,
    pub(super) index: u32,
}

/// A permanent neighbour, or a forwarding entry with a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbor {
    pub(super) index: u32,
    pub(super) ip: IpAddr,
    pub(super) mac: Mac,
}

/// A namespace's network state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
    pub(super) neighbors: Vec<Neighbor>,
    pub(super) forwarding: Vec<Neighbor>,
}

impl Snapshot {
    /// Reads it.
    pub(super) async fn read(space: &Space) -> Result<Self> {
        let name = space.netns().name();
        let handle = space.handle();
        let links: Vec<_> = handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .context(|| format!("list interfaces in {name}"))?;
        let addresses: Vec<_> = handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .context(|| format!("list addresses in {name}"))?;
        let mut routes = Vec::new();
        for query in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let found: Vec<_> = handle
                .route()
                .get(query)
                .execute()
                .try_collect()
                .await
                .context(|| format!("list routes in {name}"))?;
            routes.extend(found.iter().filter_map(route));
        }
        let mut neighbors = Vec::new();
        for family in [AddressFamily::Unspec, AddressFamily::Bridge] {
            let found: Vec<_> = handle
                .neighbours()
                .get()
                .set_address_family(family)
                .execute()
                .try_collect()
                .await
                .context(|| format!("list neighbours in {name}"))?;
            neighbors.push(found.iter().filter_map(neighbor).collect());
        }
        let forwarding = neighbors.pop().unwrap_or_default();
        let neighbors = neighbors.pop().unwrap_or_default();
        Ok(Self {
            links: links.iter().map(link).collect(),
            addresses: addresses.iter().filter_map(address).collect(),
            routes,
            neighbors,
            forwarding,
        })
    }

    /// The interface of this name.
    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Addresses of an interface.
    pub(super) fn addresses_of(&self, index: u32) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |address| address.index == index)
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        admin_up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    // Devices without carrier detection (VXLAN, lo) say "unknown"; the flag tells then.
    let lower_up = message.header.flags.contains(LinkFlags::LowerUp);
    link.running = link.admin_up && lower_up;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::OperState(state) => {
                link.running &= matches!(state, State::Up | State::Unknown);
            }
            LinkAttribute::LinkInfo(infos) => link_info(&mut link, infos),
            _ => {}
        }
    }
    link
}

fn link_info(link: &mut Link, infos: &[LinkInfo]) {
    for info in infos {
        match info {
            LinkInfo::Data(InfoData::Vxlan(data)) => {
                let vni = data.iter().find_map(|d| match d {
                    InfoVxlan::Id(vni) => Some(*vni),
                    _ => None,
                });
                let port = data.iter().find_map(|d| match d {
                    InfoVxlan::Port(port) => Some(*port),
                    _ => None,
                });
                link.vxlan = vni.zip(port);
            }
            LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                link.hairpin = data.contains(&InfoBridgePort::HairpinMode(true));
            }
            _ => {}
        }
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut ip = None;
    let mut usable = true;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the other end's.
            AddressAttribute::Local(local) => ip = Some(*local),
            AddressAttribute::Address(address) => {
                ip.get_or_insert(*address);
            }
            AddressAttribute::Flags(flags) => {
                usable = !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
            }
            _ => {}
        }
    }
    let net = IpNet::new(ip?, message.header.prefix_len).ok()?;
    Some(Address { index: message.header.index, net, usable })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let (mut to, mut via, mut index) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::Oif(oif) => index = Some(*oif),
            _ => {}
        }
    }
    let via = via?;
    // The default route has no destination attribute.
    let to = to.unwrap_or(match via {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    });
    let to = IpNet::new(to, message.header.destination_prefix_length).ok()?;
    Some(Route { to, via, index: index? })
}

fn neighbor(message: &NeighbourMessage) -> Option<Neighbor> {
    // bridge(8) sets NOARP beside it.
    let state = u16::from(message.header.state);
    if state & u16::from(NeighbourState::Permanent) == 0 {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                ip = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                ip = Some(IpAddr::V6(*v6));
            }
            // A forwarding entry does not say which IP version its destination is of.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                ip = <[u8; 4]>::try_from(bytes.as_slice())
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
                    .ok();
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            _ => {}
        }
    }
    Some(Neighbor { index: message.header.ifindex, ip: ip?, mac: mac? })
}
