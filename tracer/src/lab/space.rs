//! A namespace to program: its handle and a netlink socket in it.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourFlags;
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::error::{Context, Result};
use crate::model::Mac;
use crate::netns::{Guard, Netns};

/// A namespace with a netlink socket in it. Requests work from any namespace: a socket belongs to
/// the one it was opened in.
pub(super) struct Space {
    netns: Netns,
    handle: Handle,
}

impl Space {
    /// Opens a netlink socket in `netns`; must be called inside a tokio runtime.
    pub(super) fn open(netns: Netns) -> Result<Self> {
        let name = netns.name().to_owned();
        let opened = {
            let _inside = Guard::enter(&netns).context(|| format!("enter {name}"))?;
            rtnetlink::new_connection()
        };
        let (connection, handle, _) = opened.context(|| format!("open netlink in {name}"))?;
        tokio::spawn(connection);
        Ok(Self { netns, handle })
    }

    /// The namespace.
    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Netlink requests in it.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `f` inside the namespace, on the calling thread.
    pub(super) fn inside<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let _inside = Guard::enter(&self.netns).context(|| self.at("enter it"))?;
        f()
    }

    fn at(&self, action: &str) -> String {
        format!("{action} in {}", self.netns.name())
    }

    /// ifindex of `name`.
    pub(super) async fn index(&self, name: &str) -> Result<u32> {
        let mut links = self.handle.link().get().match_name(name).execute();
        let found = links.try_next().await.context(|| self.at(&format!("find {name}")))?;
        found.map(|link| link.header.index).ok_or_else(|| super::error::LabError::Io {
            action: self.at(&format!("find {name}")),
            source: io::Error::from(io::ErrorKind::NotFound),
        })
    }

    /// Makes an interface; returns its ifindex.
    pub(super) async fn add_link(&self, name: &str, message: LinkMessage) -> Result<u32> {
        self.handle
            .link()
            .add(message)
            .execute()
            .await
            .context(|| self.at(&format!("make interface {name}")))?;
        self.index(name).await
    }

    /// Changes an interface.
    pub(super) async fn change_link(&self, what: &str, message: LinkMessage) -> Result<()> {
        self.handle.link().change(message).execute().await.context(|| self.at(what))
    }

    /// Adds an address.
    pub(super) async fn add_address(&self, index: u32, address: IpNet) -> Result<()> {
        self.handle
            .address()
            .add(index, address.addr(), address.prefix_len())
            .execute()
            .await
            .context(|| self.at(&format!("add address {address}")))
    }

    /// Adds a route; `onlink` as in ip-route(8): take the gateway to be on the link although no
    /// address says so.
    pub(super) async fn add_route(
        &self,
        to: IpNet,
        via: IpAddr,
        index: u32,
        onlink: bool,
    ) -> Result<()> {
        self.handle
            .route()
            .add(route(to, via, index, onlink)?)
            .execute()
            .await
            .context(|| self.at(&format!("add route {to} via {via}")))
    }

    /// Adds a permanent neighbour.
    pub(super) async fn add_neighbor(&self, index: u32, ip: IpAddr, mac: Mac) -> Result<()> {
        self.handle
            .neighbours()
            .add(index, ip)
            .link_layer_address(&mac.0)
            .kind(RouteType::Unicast)
            .execute()
            .await
            .context(|| self.at(&format!("add neighbour {ip}")))
    }

    /// Adds a permanent entry to the forwarding database of a VXLAN device itself.
    pub(super) async fn add_fdb(&self, index: u32, mac: Mac, to: IpAddr) -> Result<()> {
        self.handle
            .neighbours()
            .add_bridge(index, &mac.0)
            .destination(to)
            .flags(NeighbourFlags::Own)
            .execute()
            .await
            .context(|| self.at(&format!("add forwarding entry {mac} → {to}")))
    }
}

fn route(to: IpNet, via: IpAddr, index: u32, onlink: bool) -> Result<RouteMessage> {
    let builder = RouteMessageBuilder::<IpAddr>::new()
        // "boot" is what the netlink library of flannel and the CNI plugins says, as ip-route(8)
        // does.
        .protocol(RouteProtocol::Boot)
        .output_interface(index)
        .destination_prefix(to.network(), to.prefix_len())
        .and_then(|builder| builder.gateway(via))
        .map_err(io::Error::other)
        .context(|| format!("write a route to {to} via {via}"))?;
    Ok(if onlink { builder.onlink() } else { builder }.build())
}

/// A random unicast, locally administered address, as flannel gives its VXLAN devices (pkg/mac).
pub(super) fn random_mac() -> Result<Mac> {
    let mut bytes = random::<6>()?;
    bytes[0] = (bytes[0] & !1) | 2;
    Ok(Mac(bytes))
}

/// A name for the node's end of a pod's veth pair, as the CNI plugins make it
/// (containernetworking/plugins, pkg/ip, `RandomVethName`).
pub(super) fn random_veth_name() -> Result<String> {
    let [a, b, c, d] = random::<4>()?;
    Ok(format!("veth{a:02x}{b:02x}{c:02x}{d:02x}"))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context(|| "read /dev/urandom")?;
    Ok(bytes)
}
