//! IPVS: the kernel's load balancer, with which kube-proxy serves in its mode `ipvs`. Virtual services
//! and their real servers, over generic netlink (include/uapi/linux/ip_vs.h; Linux 6.12).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rtnetlink::sys::protocols::NETLINK_GENERIC;
use serde::{Deserialize, Serialize};

use super::dump::{attributes, bytes, dump, number16, number32, string};
use super::types::{Gap, NetnsFacts};

/// Virtual services kept of a namespace, at most.
const MAX_SERVICES: usize = 10_000;
/// Real servers kept of a namespace, at most.
const MAX_SERVERS: usize = 50_000;

/// What IPVS of a namespace is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ipvs {
    /// Virtual services.
    pub services: Vec<VirtualService>,
    /// There are more than were kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Which packets a virtual service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Virtual {
    /// Those to an address.
    Address {
        /// IP protocol (IANA).
        proto: u8,
        /// Address.
        ip: IpAddr,
        /// Port; 0: any.
        port: u16,
    },
    /// Those with a firewall mark.
    Mark {
        /// The mark.
        mark: u32,
        /// Of IPv6.
        v6: bool,
    },
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualService {
    /// Packets that it is for.
    pub of: Virtual,
    /// How a real server is chosen: `rr`, `lc`, `sh`, …
    pub scheduler: String,
    /// Seconds for which a client stays with its real server (session affinity); `None`: each connection
    /// is scheduled by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<u32>,
    /// Every packet is scheduled by itself (one-packet scheduling).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_packet: bool,
    /// Real servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<RealServer>,
}

impl fmt::Display for VirtualService {
    /// As `ipvsadm -Ln` prints it: `TCP 10.96.0.10:80 rr persistent 10800`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            Virtual::Address { proto, ip, port } => {
                match proto {
                    6 => f.write_str("TCP"),
                    17 => f.write_str("UDP"),
                    132 => f.write_str("SCTP"),
                    other => write!(f, "{other}"),
                }?;
                write!(f, " {} {}", SocketAddr::new(ip, port), self.scheduler)?;
            }
            Virtual::Mark { mark, v6 } => {
                let family = if v6 { " IPv6" } else { "" };
                write!(f, "FWM {mark}{family} {}", self.scheduler)?;
            }
        }
        if let Some(seconds) = self.persistent {
            write!(f, " persistent {seconds}")?;
        }
        if self.one_packet { f.write_str(" ops") } else { Ok(()) }
    }
}

/// How packets get to a real server (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// With the destination translated.
    Masq,
    /// It is this host.
    Local,
    /// Within another IP packet.
    Tunnel,
    /// Unchanged, to the server's hardware address.
    Route,
    /// To where they are addressed.
    Bypass,
}

impl Forwarding {
    fn new(flags: u32) -> Option<Self> {
        /// IP_VS_CONN_F_FWD_MASK.
        const MASK: u32 = 7;
        match flags & MASK {
            0 => Some(Self::Masq),
            1 => Some(Self::Local),
            2 => Some(Self::Tunnel),
            3 => Some(Self::Route),
            4 => Some(Self::Bypass),
            _ => None,
        }
    }

    /// As `ipvsadm` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Masq => "Masq",
            Self::Local => "Local",
            Self::Tunnel => "Tunnel",
            Self::Route => "Route",
            Self::Bypass => "Bypass",
        }
    }
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServer {
    /// Address.
    pub ip: IpAddr,
    /// Port; 0: that of the packet.
    pub port: u16,
    /// How packets get there.
    pub forwarding: Forwarding,
    /// Share of new connections; 0: none.
    pub weight: u32,
    /// Connections that are established.
    #[serde(default)]
    pub active: u32,
    /// Connections in other states.
    #[serde(default)]
    pub inactive: u32,
}

impl fmt::Display for RealServer {
    /// As `ipvsadm -Ln` prints it: `10.10.1.2:8080 Masq weight 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, how) = (SocketAddr::new(self.ip, self.port), self.forwarding.as_str());
        write!(f, "{at} {how} weight {}", self.weight)
    }
}

/// Reads what IPVS has in the calling thread's namespace. Nothing is loaded by asking.
pub(super) fn read(facts: &mut NetnsFacts) {
    match ipvs() {
        Ok(ipvs) => facts.ipvs = ipvs.filter(|i| !i.services.is_empty()),
        Err(error) => {
            let (source, reason) = ("services of IPVS".to_owned(), error.to_string());
            facts.gaps.push(Gap { source, reason });
        }
    }
}

/// `None`: this kernel has no IPVS, or has not loaded it.
fn ipvs() -> io::Result<Option<Ipvs>> {
    let Some(family) = family()? else { return Ok(None) };
    let mut found = Ipvs::default();
    dump(NETLINK_GENERIC, family, &header(GET_SERVICE, IPVS_VERSION), |body| {
        found.truncated = found.services.len() >= MAX_SERVICES;
        if !found.truncated {
            found.services.extend(body.get(GENL..).and_then(service));
        }
        !found.truncated
    })?;
    let mut left = MAX_SERVERS;
    for service in &mut found.services {
        let mut request = header(GET_DEST, IPVS_VERSION);
        request.extend(attribute(CMD_SERVICE | NESTED, &of_service(service.of)));
        let v6 = match service.of {
            Virtual::Address { ip, .. } => ip.is_ipv6(),
            Virtual::Mark { v6, .. } => v6,
        };
        dump(NETLINK_GENERIC, family, &request, |body| {
            if left == 0 {
                found.truncated = true;
                return false;
            }
            if let Some(server) = body.get(GENL..).and_then(|body| server(body, v6)) {
                service.servers.push(server);
                left -= 1;
            }
            true
        })?;
    }
    Ok(Some(found))
}

/// Size of `struct genlmsghdr` (include/uapi/linux/genetlink.h), bytes.
const GENL: usize = 4;
/// IPVS_GENL_VERSION.
const IPVS_VERSION: u8 = 1;
/// IPVS_CMD_GET_SERVICE.
const GET_SERVICE: u8 = 4;
/// IPVS_CMD_GET_DEST.
const GET_DEST: u8 = 8;
/// IPVS_CMD_ATTR_SERVICE.
const CMD_SERVICE: u16 = 1;
/// IPVS_CMD_ATTR_DEST.
const CMD_DEST: u16 = 2;
/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;

/// Attributes of a service (`IPVS_SVC_ATTR_*`).
mod svc {
    pub(super) const AF: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDR: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const FWMARK: u16 = 5;
    pub(super) const SCHED_NAME: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    pub(super) const TIMEOUT: u16 = 8;
}

/// AF_INET and AF_INET6.
const AF: [u16; 2] = [2, 10];

/// The number of the family "IPVS". All families are listed: asking for one by its name would load a
/// module.
fn family() -> io::Result<Option<u16>> {
    /// GENL_ID_CTRL.
    const CTRL: u16 = 0x10;
    /// CTRL_CMD_GETFAMILY.
    const GET_FAMILY: u8 = 3;
    /// CTRL_ATTR_FAMILY_ID.
    const ID: u16 = 1;
    /// CTRL_ATTR_FAMILY_NAME.
    const NAME: u16 = 2;
    let mut found = None;
    dump(NETLINK_GENERIC, CTRL, &header(GET_FAMILY, 1), |body| {
        let (mut id, mut name) = (None, String::new());
        for (kind, value) in attributes(body.get(GENL..).unwrap_or_default()) {
            match kind {
                ID => id = number16(value, 0),
                NAME => name = string(value),
                _ => {}
            }
        }
        found = id.filter(|_| name == "IPVS");
        found.is_none()
    })?;
    Ok(found)
}

/// `struct genlmsghdr`.
fn header(command: u8, version: u8) -> Vec<u8> {
    vec![command, version, 0, 0]
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    const HEADER: usize = 4;
    let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes by which the kernel finds a service again.
fn of_service(of: Virtual) -> Vec<u8> {
    let family = |v6: bool| attribute(svc::AF, &AF[usize::from(v6)].to_ne_bytes());
    match of {
        Virtual::Address { proto, ip, port } => [
            family(ip.is_ipv6()),
            attribute(svc::PROTOCOL, &u16::from(proto).to_ne_bytes()),
            attribute(svc::ADDR, &union(ip)),
            attribute(svc::PORT, &port.to_be_bytes()),
        ]
        .concat(),
        Virtual::Mark { mark, v6 } => {
            [family(v6), attribute(svc::FWMARK, &mark.to_ne_bytes())].concat()
        }
    }
}

/// `union nf_inet_addr`: 16 bytes.
fn union(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut all = [0; 16];
            all[..4].copy_from_slice(&ip.octets());
            all
        }
    }
}

fn address(value: &[u8], v6: bool) -> Option<IpAddr> {
    if v6 {
        bytes::<16>(value, 0).map(|b| Ipv6Addr::from(b).into())
    } else {
        bytes::<4>(value, 0).map(|b| Ipv4Addr::from(b).into())
    }
}

fn service(body: &[u8]) -> Option<VirtualService> {
    /// IP_VS_SVC_F_PERSISTENT.
    const PERSISTENT: u32 = 1;
    /// IP_VS_SVC_F_ONEPACKET.
    const ONE_PACKET: u32 = 4;
    let (_, value) = attributes(body).find(|(kind, _)| *kind == CMD_SERVICE)?;
    let (mut family, mut proto, mut ip, mut port, mut mark) = (None, None, None, None, None);
    let (mut scheduler, mut flags, mut timeout) = (String::new(), 0, None);
    for (kind, value) in attributes(value) {
        match kind {
            svc::AF => family = number16(value, 0),
            svc::PROTOCOL => proto = number16(value, 0).and_then(|p| u8::try_from(p).ok()),
            svc::ADDR => ip = Some(value),
            svc::PORT => port = bytes(value, 0).map(u16::from_be_bytes),
            svc::FWMARK => mark = number32(value, 0),
            svc::SCHED_NAME => scheduler = string(value),
            // `struct ip_vs_flags`: flags, then a mask.
            svc::FLAGS => flags = number32(value, 0)?,
            svc::TIMEOUT => timeout = number32(value, 0),
            _ => {}
        }
    }
    let v6 = family? == AF[1];
    let of = match mark {
        Some(mark) => Virtual::Mark { mark, v6 },
        None => Virtual::Address { proto: proto?, ip: address(ip?, v6)?, port: port? },
    };
    Some(VirtualService {
        of,
        scheduler,
        persistent: timeout.filter(|_| flags & PERSISTENT != 0),
        one_packet: flags & ONE_PACKET != 0,
        servers: Vec::new(),
    })
}

/// A real server (`IPVS_DEST_ATTR_*`); without a family of its own it is of the service's.
fn server(body: &[u8], v6: bool) -> Option<RealServer> {
    let (_, value) = attributes(body).find(|(kind, _)| *kind == CMD_DEST)?;
    let (mut ip, mut family, mut port, mut forwarding) = (None, None, 0, None);
    let (mut weight, mut active, mut inactive) = (0, 0, 0);
    for (kind, value) in attributes(value) {
        match kind {
            1 => ip = Some(value),
            2 => port = bytes(value, 0).map(u16::from_be_bytes)?,
            3 => forwarding = number32(value, 0).and_then(Forwarding::new),
            4 => weight = number32(value, 0)?,
            7 => active = number32(value, 0)?,
            8 => inactive = number32(value, 0)?,
            11 => family = number16(value, 0),
            _ => {}
        }
    }
    let ip = address(ip?, family.map_or(v6, |f| f == AF[1]))?;
    Some(RealServer { ip, port, forwarding: forwarding?, weight, active, inactive })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_asked_for_is_what_is_understood() {
        for of in [
            Virtual::Address { proto: 6, ip: ip("10.96.0.10"), port: 80 },
            Virtual::Address { proto: 17, ip: ip("fd00:10:96::a"), port: 53 },
            Virtual::Mark { mark: 7, v6: true },
        ] {
            let body = attribute(CMD_SERVICE | NESTED, &of_service(of));
            assert_eq!(service(&body).map(|s| s.of), Some(of));
        }
    }

    #[test]
    fn a_service_with_affinity_as_ipvsadm_prints_it() {
        let mut value = of_service(Virtual::Address { proto: 6, ip: ip("10.96.0.10"), port: 80 });
        value.extend(attribute(svc::SCHED_NAME, b"rr\0"));
        value.extend(attribute(svc::FLAGS, &[3_u32.to_ne_bytes(), [0xff; 4]].concat()));
        value.extend(attribute(svc::TIMEOUT, &10800_u32.to_ne_bytes()));
        let service = service(&attribute(CMD_SERVICE, &value)).unwrap();
        assert_eq!(service.to_string(), "TCP 10.96.0.10:80 rr persistent 10800");
    }

    #[test]
    fn a_real_server_as_ipvsadm_prints_it() {
        let value = [
            attribute(1, &union(ip("10.10.1.2"))),
            attribute(2, &8080_u16.to_be_bytes()),
            // The forwarding method is the lowest three bits.
            attribute(3, &0x100_u32.to_ne_bytes()),
            attribute(4, &1_u32.to_ne_bytes()),
            attribute(7, &5_u32.to_ne_bytes()),
        ]
        .concat();
        let server = server(&attribute(CMD_DEST, &value), false).unwrap();
        assert_eq!(server.to_string(), "10.10.1.2:8080 Masq weight 1");
        assert_eq!((server.active, server.inactive), (5, 0));
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            service(&message);
            server(&message, false);
            let nested = attribute(CMD_SERVICE, &message);
            service(&nested);
        }
    }
}
