//! What a lab looks like: every name, network and number that the tracer must not assume.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::error::{LabError, Result};
use super::plan::{OUTSIDE_V4, OUTSIDE_V6};
use super::services;

/// Name of the lab whose namespaces and files carry no name of their own.
pub const DEFAULT_NAME: &str = "default";
/// Longest interface name, bytes (`IFNAMSIZ` - 1, include/uapi/linux/if.h).
const MAX_INTERFACE_NAME: usize = 15;
/// Longest lab name, bytes: short enough that `podtrace-NAME-A-a2` stays readable.
const MAX_LAB_NAME: usize = 32;
/// VNIs have 24 bits (RFC 7348 section 5).
const MAX_VNI: u32 = (1 << 24) - 1;
/// Bytes that VXLAN over IPv4 adds to a frame: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20. flannel
/// subtracts the same 50 for IPv6 too (pkg/backend/vxlan), where the kernel needs 70.
pub const VXLAN_OVERHEAD: u32 = 50;
/// As [`VXLAN_OVERHEAD`] over IPv6: what the kernel subtracts from the lower device's MTU.
pub const VXLAN_OVERHEAD_V6: u32 = 70;
/// Below this the kernel turns IPv6 off on an interface (RFC 8200 section 5).
const MIN_MTU_V6: u32 = 1280;
/// Below this the kernel turns IPv4 off on an interface (RFC 791).
const MIN_MTU_V4: u32 = 68;
/// Largest MTU of a veth device.
const MAX_MTU: u32 = 65535;
/// Prefix length of a node's IPv4 pod network: flannel's default `SubnetLen`.
pub const NODE_PREFIX_V4: u8 = 24;
/// Prefix length of a node's IPv6 pod network: flannel's default `IPv6SubnetLen`.
pub const NODE_PREFIX_V6: u8 = 64;

/// What messages call the network of all ClusterIPs.
const SERVICES: &str = "the network of all services around --service-ip";

/// How packets get from node to node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// flannel's `vxlan` backend: encapsulated.
    #[default]
    Vxlan,
    /// flannel's `host-gw` backend: routed, unchanged.
    HostGw,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Backend::Vxlan => "vxlan",
            Backend::HostGw => "host-gw",
        })
    }
}

/// Which iptables installs flannel's and kube-proxy's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// `iptables-nft`: rules live in nf_tables (what Debian's `iptables` is).
    #[default]
    Nft,
    /// `iptables-legacy`: rules live in ip_tables.
    Legacy,
    /// No rules at all, and so no ClusterIP.
    None,
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Firewall::Nft => "nft",
            Firewall::Legacy => "legacy",
            Firewall::None => "none",
        })
    }
}

/// In which mode kube-proxy runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KubeProxy {
    /// `iptables`: chains of rules, loaded by what [`Firewall`] says.
    #[default]
    Iptables,
    /// `nftables`: a table of its own with maps.
    Nftables,
}

impl fmt::Display for KubeProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            KubeProxy::Iptables => "iptables",
            KubeProxy::Nftables => "nftables",
        })
    }
}

/// Parameters of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabConfig {
    /// Name; [`DEFAULT_NAME`] stands for the lab without one.
    pub name: String,
    /// How packets get from node to node.
    pub backend: Backend,
    /// Which iptables installs the rules.
    pub firewall: Firewall,
    /// How services are translated.
    pub kube_proxy: KubeProxy,
    /// IPv6 beside IPv4.
    pub ipv6: bool,
    /// Bridge of the pods on each node.
    pub bridge_name: String,
    /// VXLAN device that carries IPv4; that of IPv6 is derived, see [`LabConfig::vxlan_name_v6`].
    pub vxlan_name: String,
    /// Interface of each node to the wire.
    pub physical_name: String,
    /// UDP port of the VXLAN devices.
    pub vxlan_port: u16,
    /// VXLAN network identifier.
    pub vni: u32,
    /// IPv4 network of all pods; node A gets its first /24 and node B its second.
    pub pod_cidr: Ipv4Net,
    /// IPv6 network of all pods; node A gets its first /64 and node B its second.
    pub pod_cidr_v6: Ipv6Net,
    /// IPv4 network between the nodes; A is .11 and B is .12.
    pub wire_cidr: Ipv4Net,
    /// IPv6 network between the nodes; A is ::11 and B is ::12.
    pub wire_cidr_v6: Ipv6Net,
    /// MTU of the wire and of the nodes' physical interfaces, bytes.
    pub wire_mtu: u32,
    /// ClusterIP of the service in front of pod b; those of the other services are around it.
    pub service_ip: Ipv4Addr,
    /// IPv6 ClusterIP of the same service.
    pub service_ip_v6: Ipv6Addr,
    /// TCP port of the service.
    pub service_port: u16,
    /// TCP port of pod b behind the service.
    pub target_port: u16,
}

impl Default for LabConfig {
    fn default() -> Self {
        let v4 = |a, b, c, d, len| Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len);
        let v6 = |a: [u16; 4], len| {
            Ipv6Net::new_assert(Ipv6Addr::new(a[0], a[1], a[2], a[3], 0, 0, 0, 0), len)
        };
        Self {
            name: DEFAULT_NAME.to_owned(),
            backend: Backend::default(),
            firewall: Firewall::default(),
            kube_proxy: KubeProxy::default(),
            ipv6: true,
            bridge_name: "cni0".to_owned(),
            vxlan_name: "flannel.1".to_owned(),
            physical_name: "ens33".to_owned(),
            // flannel leaves the port to the kernel, whose default for VXLAN is 8472
            // (drivers/net/vxlan/vxlan_core.c, `vxlan_port`).
            vxlan_port: 8472,
            vni: 1,
            pod_cidr: v4(10, 10, 0, 0, 16),
            pod_cidr_v6: v6([0xfd00, 0x10, 0x10, 0], 48),
            wire_cidr: v4(192, 168, 10, 0, 24),
            wire_cidr_v6: v6([0xfd00, 0x10, 0x168, 0], 64),
            wire_mtu: 1500,
            service_ip: Ipv4Addr::new(10, 96, 0, 10),
            service_ip_v6: Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10),
            service_port: 80,
            target_port: 8080,
        }
    }
}

impl LabConfig {
    /// MTU of pods, bridge and IPv4 VXLAN device, bytes.
    pub fn pod_mtu(&self) -> u32 {
        match self.backend {
            Backend::Vxlan => self.wire_mtu.saturating_sub(VXLAN_OVERHEAD),
            Backend::HostGw => self.wire_mtu,
        }
    }

    /// MTU of the IPv6 VXLAN device, bytes: flannel asks for the pods' MTU, the kernel grants what
    /// fits the lower device.
    pub fn vxlan_mtu_v6(&self) -> u32 {
        self.pod_mtu().min(self.wire_mtu.saturating_sub(VXLAN_OVERHEAD_V6))
    }

    /// Name of the VXLAN device that carries IPv6: `flannel.1` → `flannel-v6.1`, as flannel names
    /// it; a name without a dot gets `-v6` appended.
    pub fn vxlan_name_v6(&self) -> String {
        match self.vxlan_name.rsplit_once('.') {
            Some((stem, suffix)) => format!("{stem}-v6.{suffix}"),
            None => format!("{}-v6", self.vxlan_name),
        }
    }

    /// Checks that a lab can be built from it.
    ///
    /// # Errors
    /// One line that names the parameter and says what it may be.
    pub fn validate(&self) -> Result<()> {
        check_name(&self.name)?;
        let mut interfaces = vec![
            ("--bridge-name", self.bridge_name.clone()),
            ("--physical-name", self.physical_name.clone()),
        ];
        if self.backend == Backend::Vxlan {
            interfaces.push(("--vxlan-name", self.vxlan_name.clone()));
            if self.ipv6 {
                interfaces.push(("--vxlan-name (its IPv6 device)", self.vxlan_name_v6()));
            }
        }
        for (i, (flag, name)) in interfaces.iter().enumerate() {
            check_interface(flag, name)?;
            if let Some((other, _)) = interfaces[..i].iter().find(|(_, n)| n == name) {
                return Err(config(format!("{flag} and {other} are both {name:?}")));
            }
        }
        if self.vxlan_port == 0 || self.service_port == 0 || self.target_port == 0 {
            return Err(config("a port must be between 1 and 65535".to_owned()));
        }
        if !(1..=MAX_VNI).contains(&self.vni) {
            return Err(config(format!("--vni must be between 1 and {MAX_VNI}")));
        }
        self.check_mtu()?;
        self.check_networks()
    }

    fn check_mtu(&self) -> Result<()> {
        let narrowest = match (self.backend, self.ipv6) {
            (Backend::Vxlan, true) => MIN_MTU_V6 + VXLAN_OVERHEAD_V6,
            (Backend::HostGw, true) => MIN_MTU_V6,
            (Backend::Vxlan, false) => MIN_MTU_V4 + VXLAN_OVERHEAD,
            (Backend::HostGw, false) => MIN_MTU_V4,
        };
        if (narrowest..=MAX_MTU).contains(&self.wire_mtu) {
            return Ok(());
        }
        let hint = if self.ipv6 { " (less with --no-ipv6)" } else { "" };
        Err(config(format!("--wire-mtu must be between {narrowest} and {MAX_MTU}{hint}")))
    }

    fn check_services(&self) -> Result<()> {
        let own = [IpAddr::V4(self.service_ip), IpAddr::V6(self.service_ip_v6)];
        for (flag, ip) in ["--service-ip", "--service-ip-v6"].into_iter().zip(own) {
            if let Some(name) = services::holder(self, ip) {
                return Err(config(format!("{flag} {ip} is the address of service {name}")));
            }
        }
        Ok(())
    }

    fn check_networks(&self) -> Result<()> {
        if self.pod_cidr.prefix_len() >= NODE_PREFIX_V4 {
            return Err(config(format!(
                "--pod-cidr must hold two /{NODE_PREFIX_V4} networks, {} does not",
                self.pod_cidr
            )));
        }
        self.check_services()?;
        // .12 of the wire must be neither outside nor the broadcast address.
        if self.wire_cidr.prefix_len() > 27 {
            return Err(config(format!(
                "--wire-cidr must be /27 or wider, not {}",
                self.wire_cidr
            )));
        }
        let v4 = [
            ("--pod-cidr", self.pod_cidr),
            ("--wire-cidr", self.wire_cidr),
            ("--service-ip", Ipv4Net::from(self.service_ip)),
            ("the outside host", Ipv4Net::from(OUTSIDE_V4)),
            (SERVICES, services::service_net_v4(self)),
        ];
        for (i, (flag, net)) in v4.iter().enumerate() {
            if net.addr() != net.network() {
                return Err(config(format!("{flag} {net} has host bits: use {}", net.trunc())));
            }
            if net.network().is_loopback() || net.network().is_multicast() {
                return Err(config(format!("{flag} {net} is not a unicast network")));
            }
            if let Some((other, _)) =
                v4[..i].iter().find(|(f, n)| apart(flag, f) && (n.contains(net) || net.contains(n)))
            {
                return Err(config(format!("{flag} {net} overlaps {other}")));
            }
        }
        if !self.ipv6 {
            return Ok(());
        }
        if self.pod_cidr_v6.prefix_len() >= NODE_PREFIX_V6 {
            return Err(config(format!(
                "--pod-cidr-v6 must hold two /{NODE_PREFIX_V6} networks, {} does not",
                self.pod_cidr_v6
            )));
        }
        if self.wire_cidr_v6.prefix_len() > 120 {
            return Err(config(format!(
                "--wire-cidr-v6 must be /120 or wider, not {}",
                self.wire_cidr_v6
            )));
        }
        let v6 = [
            ("--pod-cidr-v6", self.pod_cidr_v6),
            ("--wire-cidr-v6", self.wire_cidr_v6),
            ("--service-ip-v6", Ipv6Net::from(self.service_ip_v6)),
            ("the outside host", Ipv6Net::from(OUTSIDE_V6)),
            (SERVICES, services::service_net_v6(self)),
        ];
        for (i, (flag, net)) in v6.iter().enumerate() {
            if net.addr() != net.network() {
                return Err(config(format!("{flag} {net} has host bits: use {}", net.trunc())));
            }
            if net.network().is_multicast() || net.network().is_unicast_link_local() {
                return Err(config(format!("{flag} {net} is not a routable unicast network")));
            }
            if let Some((other, _)) =
                v6[..i].iter().find(|(f, n)| apart(flag, f) && (n.contains(net) || net.contains(n)))
            {
                return Err(config(format!("{flag} {net} overlaps {other}")));
            }
        }
        Ok(())
    }
}

/// Whether networks of these names must be apart: a service's address is in the services' network.
fn apart(flag: &str, other: &str) -> bool {
    !(flag == SERVICES && other.starts_with("--service-ip"))
}

fn config(message: String) -> LabError {
    LabError::Config(message)
}

/// A lab's name becomes part of file and namespace names; lower case keeps it apart from the
/// nodes' names `A` and `B`.
pub(super) fn check_name(name: &str) -> Result<()> {
    let good = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.len() <= MAX_LAB_NAME
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if good {
        return Ok(());
    }
    Err(config(format!(
        "{name:?} cannot name a lab: use up to {MAX_LAB_NAME} lower-case letters, digits and '-'"
    )))
}

fn check_interface(flag: &str, name: &str) -> Result<()> {
    // `all` and `default` are directories beside the interfaces' in /proc/sys/net/*/conf, and
    // `lo` and `eth0` exist already (the latter in pods, where a second one would only confuse).
    let reserved = ["lo", "all", "default", ".", ".."].contains(&name);
    let good = (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%'))
        && !reserved;
    if good {
        return Ok(());
    }
    Err(config(format!(
        "{flag}: {name:?} cannot name an interface: use 1 to {MAX_INTERFACE_NAME} letters, digits, '.', '-', '_'"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut LabConfig)) -> String {
        let mut config = LabConfig::default();
        change(&mut config);
        config.validate().expect_err("must be refused").to_string()
    }

    #[test]
    fn defaults_are_valid_and_survive_the_state_file() {
        let config = LabConfig::default();
        config.validate().expect("defaults");
        let text = toml::to_string(&config).expect("serialise");
        assert_eq!(toml::from_str::<LabConfig>(&text).expect("parse"), config);
        assert_eq!(config.pod_mtu(), 1450);
        assert_eq!(config.vxlan_mtu_v6(), 1430);
        let routed = LabConfig { backend: Backend::HostGw, ..config };
        assert_eq!(routed.pod_mtu(), 1500);
    }

    #[test]
    fn ipv6_device_is_named_as_flannel_names_it() {
        let mut config = LabConfig::default();
        assert_eq!(config.vxlan_name_v6(), "flannel-v6.1");
        config.vxlan_name = "overlay".to_owned();
        assert_eq!(config.vxlan_name_v6(), "overlay-v6");
    }

    #[test]
    fn unusable_names_are_refused() {
        assert!(problem(|c| c.name = "Up".to_owned()).contains("\"Up\""));
        assert!(problem(|c| c.name = "../x".to_owned()).contains("cannot name a lab"));
        assert!(problem(|c| c.name = String::new()).contains("cannot name a lab"));
        assert!(problem(|c| c.name = "-x".to_owned()).contains("cannot name a lab"));
        assert!(problem(|c| c.bridge_name = "a/b".to_owned()).contains("--bridge-name"));
        assert!(problem(|c| c.bridge_name = "all".to_owned()).contains("--bridge-name"));
        assert!(problem(|c| c.physical_name = "x".repeat(16)).contains("--physical-name"));
        // Fits itself, but its IPv6 device's name does not.
        assert!(problem(|c| c.vxlan_name = "abcdefghijkl.1".to_owned()).contains("IPv6 device"));
        assert!(
            problem(|c| c.bridge_name = "ens33".to_owned())
                .contains("--physical-name and --bridge-name")
        );
    }

    #[test]
    fn names_of_devices_that_are_not_made_do_not_matter() {
        let config = LabConfig {
            backend: Backend::HostGw,
            vxlan_name: "cni0".to_owned(),
            ..LabConfig::default()
        };
        config.validate().expect("host-gw has no VXLAN device");
    }

    #[test]
    fn unusable_networks_are_refused() {
        let net = |s: &str| s.parse::<Ipv4Net>().expect("network");
        let net6 = |s: &str| s.parse::<Ipv6Net>().expect("network");
        assert!(problem(|c| c.pod_cidr = net("10.10.0.0/24")).contains("two /24"));
        assert!(problem(|c| c.pod_cidr = net("10.10.3.0/16")).contains("use 10.10.0.0/16"));
        assert!(problem(|c| c.wire_cidr = net("10.10.7.0/24")).contains("overlaps --pod-cidr"));
        assert!(problem(|c| c.wire_cidr = net("10.9.0.0/28")).contains("/27"));
        assert!(
            problem(|c| c.service_ip = Ipv4Addr::new(10, 10, 5, 5))
                .contains("--service-ip 10.10.5.5/32 overlaps --pod-cidr")
        );
        assert!(
            problem(|c| c.service_ip = Ipv4Addr::new(10, 96, 0, 53)).contains("of service dns")
        );
        assert!(
            problem(|c| c.wire_cidr = net("203.0.113.0/24"))
                .contains("the outside host 203.0.113.80/32 overlaps --wire-cidr")
        );
        assert!(
            problem(|c| c.wire_cidr = net("10.96.0.64/27")).contains("network of all services")
        );
        assert!(problem(|c| c.pod_cidr_v6 = net6("fd00::/64")).contains("two /64"));
        assert!(problem(|c| c.wire_cidr_v6 = net6("fe80::/64")).contains("routable"));
        let config = LabConfig {
            ipv6: false,
            wire_cidr_v6: net6("fe80::/64"),
            wire_mtu: 600,
            ..LabConfig::default()
        };
        config.validate().expect("IPv6 parameters do not matter without IPv6");
    }

    #[test]
    fn unusable_numbers_are_refused() {
        assert!(problem(|c| c.vni = 0).contains("--vni"));
        assert!(problem(|c| c.vni = 1 << 24).contains("--vni"));
        assert!(problem(|c| c.vxlan_port = 0).contains("port"));
        assert!(problem(|c| c.wire_mtu = 1349).contains("between 1350 and 65535"));
    }
}
