//! Kernel parameters of the network namespace that the calling thread is in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{Context, Result};

/// Where network parameters are; each thread sees those of its own namespace.
pub(super) const ROOT: &str = "/proc/sys/net";

/// Writes parameter `path`, given with slashes (`ipv4/ip_forward`): interface names contain dots.
pub(super) fn set(path: &str, value: &str) -> Result<()> {
    fs::write(file(path), value).context(|| format!("set sysctl net/{path} to {value}"))
}

/// As [`set`], for a parameter that not every kernel has: says whether it was there.
pub(super) fn set_if_present(path: &str, value: &str) -> Result<bool> {
    match fs::write(file(path), value) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context(|| format!("set sysctl net/{path} to {value}")),
    }
}

/// Whether this kernel speaks IPv6.
pub(super) fn has_ipv6() -> bool {
    Path::new(ROOT).join("ipv6/conf/all").exists()
}

/// Whether bridged packets can be handed to iptables (`br_netfilter`).
pub(super) fn has_bridge_netfilter() -> bool {
    Path::new(ROOT).join("bridge/bridge-nf-call-iptables").exists()
}

/// IPv6 of every namespace in the lab: usable at once and silent. Must run before interfaces are
/// made: they copy `default`.
pub(super) fn prepare_ipv6(enabled: bool) -> Result<()> {
    if !has_ipv6() {
        return Ok(());
    }
    for scope in ["all", "default"] {
        set(&format!("ipv6/conf/{scope}/disable_ipv6"), if enabled { "0" } else { "1" })?;
        // Duplicate address detection would hold addresses back for a second. Both scopes: the
        // kernel takes the larger.
        set(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
        set(&format!("ipv6/conf/{scope}/accept_ra"), "0")?;
        set(&format!("ipv6/conf/{scope}/router_solicitations"), "0")?;
    }
    Ok(())
}

/// A node routes, and hands what its bridge forwards to iptables, as kubeadm's checks demand.
pub(super) fn prepare_node(ipv6: bool) -> Result<()> {
    prepare_router(ipv6)?;
    bridge_netfilter(true)
}

/// Forwards packets, wherever they come from.
pub(super) fn prepare_router(ipv6: bool) -> Result<()> {
    set("ipv4/ip_forward", "1")?;
    // Debian leaves the kernel's default.
    set("ipv4/conf/all/rp_filter", "0")?;
    set("ipv4/conf/default/rp_filter", "0")?;
    if ipv6 {
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Whether bridges of this namespace hand packets to iptables and ip6tables; nothing happens where
/// `br_netfilter` is absent.
pub(super) fn bridge_netfilter(enabled: bool) -> Result<()> {
    let value = if enabled { "1" } else { "0" };
    set_if_present("bridge/bridge-nf-call-iptables", value)?;
    set_if_present("bridge/bridge-nf-call-ip6tables", value)?;
    Ok(())
}

/// What the bridge CNI plugin and its helpers set on a pod's interface once it is configured
/// (containernetworking/plugins, pkg/ipam and plugins/main/bridge).
pub(super) fn finish_pod(interface: &str, ipv6: bool) -> Result<()> {
    set(&format!("ipv4/conf/{interface}/arp_notify"), "1")?;
    if ipv6 {
        set(&format!("ipv6/conf/{interface}/ndisc_notify"), "1")?;
        set(&format!("ipv6/conf/{interface}/keep_addr_on_down"), "1")?;
    }
    Ok(())
}

fn file(path: &str) -> PathBuf {
    Path::new(ROOT).join(path)
}
