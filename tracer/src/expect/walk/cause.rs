//! The cause code of every kind of problem; [`crate::causes`] lists them all.

use super::{Neighborhood, ProblemKind, RefusalKind};

impl ProblemKind {
    /// Stable code, `area.cause`.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::PodInterfaceMissing | Self::PodAddressMissing { .. } => "pod.gone",
            Self::PodInterfaceDown => "pod.interface-down",
            Self::PodRouteMissing { .. } => "pod.no-default-route",
            Self::IcmpIgnored { .. } => "pod.icmp-ignored",
            Self::DuplicateAddress { .. } => "pod.duplicate-address",
            Self::DuplicateMac { .. } => "bridge.duplicate-mac",
            Self::NoListener { .. } => "socket.no-listener",
            Self::VethDown => "bridge.veth-down",
            Self::BridgeMissing => "bridge.missing",
            Self::BridgeDown => "bridge.down",
            Self::GatewayAddressMissing { .. } => "bridge.wrong-address",
            Self::GatewayIgnoresArp { .. } => "neighbor.arp-ignored",
            Self::PortDetached { .. } => "bridge.port-detached",
            Self::PortBlocking { .. } => "bridge.port-blocking",
            Self::PortIsolated { .. } => "bridge.port-isolated",
            Self::HairpinOff => "bridge.hairpin-off",
            Self::BridgeEntryWrong { .. } => "bridge.fdb-wrong",
            Self::ForwardingOff { .. } => "forwarding.disabled",
            Self::RouteMissing { .. } => "route.missing",
            Self::RouteRefuses { refusal, .. } => match refusal {
                RefusalKind::Blackhole => "route.blackhole",
                RefusalKind::Unreachable => "route.unreachable",
                RefusalKind::Prohibit => "route.prohibit",
            },
            Self::RouteWrongDevice { .. } => "route.wrong-device",
            Self::RuleHijack { .. } => "route.rule-hijack",
            Self::GatewayDead { .. } => "route.gateway-dead",
            Self::RouteLoop { .. } => "route.loop",
            Self::RpFilter { .. } => "route.rp-filter",
            Self::MartianSource { .. } => "route.martian-source",
            Self::TtlExceeded { .. } => "route.ttl-expired",
            Self::Firewall { meaning: Some(meaning), .. } | Self::Untranslated { meaning } => {
                meaning.cause
            }
            Self::Firewall { redirect: Some(_), .. } => "netfilter.redirected",
            Self::Firewall { reject: Some(_), .. } => "netfilter.reject",
            Self::Firewall { rule: Some(_), .. } => "netfilter.drop",
            Self::Firewall { .. } => "netfilter.policy",
            Self::Masquerade { .. } => "netfilter.masquerade-unexpected",
            Self::UnderlayAddressTaken { .. } => "underlay.duplicate-address",
            Self::MasqueradeMissing { .. } => "netfilter.masquerade-missing",
            Self::ConntrackFull { .. } => "netfilter.conntrack-full",
            // What flanneld wrote is gone, and the kernel has asked since.
            Self::NeighborMissing { .. }
            | Self::NeighborFailed { whose: Neighborhood::Vtep, .. } => "neighbor.missing",
            Self::NeighborFailed { .. } => "neighbor.failed",
            Self::NeighborWrongMac { whose: Neighborhood::Vtep, .. } => "vxlan.mac-stale",
            Self::NeighborWrongMac { .. } => "neighbor.wrong-mac",
            Self::VxlanMissing => "vxlan.device-missing",
            Self::VxlanDown => "vxlan.device-down",
            Self::VxlanLocalAddress { .. } => "vxlan.local-address",
            Self::VxlanAddressMissing { .. } => "vxlan.address-missing",
            Self::FdbMissing { .. } => "vxlan.fdb-missing",
            Self::FdbWrong { .. } => "vxlan.fdb-wrong",
            Self::FdbSelf { .. } => "vxlan.fdb-self",
            Self::VtepMacDuplicate { .. } => "vxlan.mac-duplicate",
            Self::VniMismatch { .. } => "vxlan.vni-mismatch",
            Self::PortMismatch { .. } => "vxlan.port-mismatch",
            Self::VxlanLearning => "vxlan.learning",
            Self::UnderlayMtu { .. } => "mtu.underlay-too-small",
            Self::PodMtu { .. } | Self::PacketTooBig { .. } => "mtu.pod-too-large",
            Self::LinkDown { .. } => "underlay.link-down",
            Self::Qdisc { .. } => "tc.rate-limited",
            Self::ForeignProgram { .. } => "tc.foreign-program",
            Self::XfrmPolicy { .. } => "route.xfrm-policy",
        }
    }
}
