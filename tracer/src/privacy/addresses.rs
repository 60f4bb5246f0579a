//! Addresses: the prefix of a stand-in hangs on the prefix of the address alone, so that subnets
//! stay subnets (the idea of Crypto-PAn, Xu et al. 2002).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Mask;
use crate::facts::firewall::AddressRange;
use crate::model::Mac;

impl Mask {
    /// Turns over bits behind the first `kept` of `width`, each by what stands before it.
    fn bits(&self, value: u128, width: u32, kept: u32) -> u128 {
        let mut out = value;
        for at in kept..width {
            let shift = width - 1 - at;
            // The bits before this one; shifting by the whole width would be too much.
            let prefix = if at == 0 { 0 } else { value >> (shift + 1) };
            out ^= u128::from(self.random(("bit", width, at, prefix)) & 1) << shift;
        }
        out
    }

    pub(super) fn v4(&self, ip: Ipv4Addr) -> Ipv4Addr {
        let [a, b, ..] = ip.octets();
        // What is special about an address stays: what it is for is no secret, and code asks.
        let kept = match (a, b) {
            (0 | 127 | 224..=255, _) => return ip,
            (10, _) => 8,
            (172, 16..=31) => 12,
            (192, 168) | (169, 254) => 16,
            (100, 64..=127) => 10,
            // Public: into the two nets for benchmarks (RFC 2544), where nothing else is.
            _ => {
                let low = self.bits(u128::from(u32::from(ip)), 32, 0) as u32;
                let [_, b, c, d] = low.to_be_bytes();
                return Ipv4Addr::new(198, 18 | (b & 1), c, d);
            }
        };
        Ipv4Addr::from(self.bits(u128::from(u32::from(ip)), 32, kept) as u32)
    }

    pub(super) fn v6(&self, ip: Ipv6Addr) -> Ipv6Addr {
        let value = u128::from(ip);
        let first = ip.segments()[0];
        if let Some(v4) = ip.to_ipv4_mapped() {
            return self.v4(v4).to_ipv6_mapped();
        }
        // Solicited-node addresses hold the end of an address (RFC 4291 section 2.7.1).
        if value >> 24 == 0x00ff_0200_0000_0000_0000_0000_01ff {
            return Ipv6Addr::from(value >> 24 << 24 | u128::from(self.low24(value as u32)));
        }
        let kept = match first {
            0 | 0xff00.. => return ip,
            0xfe80..=0xfebf => 64,
            0xfc00..=0xfdff => 8,
            // Public: all below the prefix for documentation (RFC 3849).
            _ => {
                let low = self.bits(value, 128, 0) & (u128::MAX >> 32);
                return Ipv6Addr::from(0x2001_0db8_u128 << 96 | low);
            }
        };
        Ipv6Addr::from(self.bits(value, 128, kept))
    }

    /// The three last bytes, which a solicited-node address and its hardware address share.
    fn low24(&self, value: u32) -> u32 {
        self.random(("low24", value & 0xff_ffff)) as u32 & 0xff_ffff
    }

    pub(super) fn ip(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(ip) => self.v4(ip).into(),
            IpAddr::V6(ip) => self.v6(ip).into(),
        }
    }

    /// An address with its prefix length: the length stays, and so does a host part of zeros.
    pub(super) fn net(&self, net: IpNet) -> IpNet {
        let network = net.addr() == net.network();
        let masked = match self.ip(net.addr()) {
            IpAddr::V4(ip) => Ipv4Net::new(ip, net.prefix_len()).map(IpNet::V4),
            IpAddr::V6(ip) => Ipv6Net::new(ip, net.prefix_len()).map(IpNet::V6),
        };
        match masked {
            Ok(masked) if network => masked.trunc(),
            Ok(masked) => masked,
            Err(_) => net,
        }
    }

    /// A range that is a subnet becomes one; of others only the ends are known.
    pub(super) fn range(&self, range: AddressRange) -> AddressRange {
        let AddressRange { first, last } = range;
        if first.is_ipv4() != last.is_ipv4() {
            return AddressRange { first: self.ip(first), last: self.ip(last) };
        }
        let width = if first.is_ipv4() { 32 } else { 128 };
        let subnet = (0..=width)
            .filter_map(|len| IpNet::new(first, len).ok())
            .find(|net| net.network() == first && net.broadcast() == last);
        match subnet {
            Some(net) => self.net(net).into(),
            None => {
                let (a, b) = (self.ip(first), self.ip(last));
                AddressRange { first: a.min(b), last: a.max(b) }
            }
        }
    }

    pub(super) fn mac(&self, mac: Mac) -> Mac {
        let Mac([a, b, c, d, e, f]) = mac;
        match mac.0 {
            [0, 0, 0, 0, 0, 0] => mac,
            // Solicited-node multicast (RFC 2464 section 7).
            [0x33, 0x33, 0xff, ..] => {
                let [_, d, e, f] = self.low24(u32::from_be_bytes([0, d, e, f])).to_be_bytes();
                Mac([a, b, c, d, e, f])
            }
            [first, ..] if first & 1 != 0 => mac,
            bytes => {
                let [_, _, _, b, c, d, e, f] = self.random(("mac", bytes)).to_be_bytes();
                Mac([2, b, c, d, e, f])
            }
        }
    }
}
