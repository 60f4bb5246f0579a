//! Words that packet-filter tools print → values. Pure.

use super::{AddressRange, CtState, PortRange};

/// Splits as a shell would: by blanks, but not within double quotes, where a backslash protects
/// the next character.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Words one after the other, with a look ahead.
#[derive(Clone)]
pub(super) struct Words<'a> {
    rest: &'a [String],
}

impl<'a> Words<'a> {
    pub(super) fn new(words: &'a [String]) -> Self {
        Self { rest: words }
    }

    /// Whether a word begins something new rather than being an argument.
    pub(super) fn is_option(word: &str) -> bool {
        word == "!" || word.starts_with('-') && word.len() > 1
    }

    /// The words up to the first that `end`s them, which stays.
    pub(super) fn until(&mut self, end: impl Fn(&str) -> bool) -> Vec<&'a str> {
        let length = self.rest.iter().position(|w| end(w)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken.iter().map(String::as_str).collect()
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }
}

pub(super) fn join(first: &str, second: &str, rest: &[&str]) -> String {
    let mut text = format!("{first} {second}");
    for word in rest {
        text.push(' ');
        text.push_str(word);
    }
    text
}

/// Decimal, or hexadecimal behind `0x`.
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `0x4000/0x4000`; without mask: all bits count.
pub(super) fn masked(text: &str) -> Option<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

/// Number of a layer-4 protocol by name (IANA "Protocol Numbers") or number.
pub(super) fn protocol(text: &str) -> Option<u8> {
    Some(match text.to_ascii_lowercase().as_str() {
        "icmp" => 1,
        "igmp" => 2,
        "ipencap" | "ipip" => 4,
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "ipv6" => 41,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "icmpv6" | "ipv6-icmp" => 58,
        "ospf" => 89,
        "pim" => 103,
        "comp" | "ipcomp" => 108,
        "vrrp" => 112,
        "sctp" => 132,
        "udplite" => 136,
        number => number.parse().ok()?,
    })
}

/// One port, or two with `separator` between; an end left out is the first or last there is.
pub(super) fn ports(text: &str, separator: char) -> Option<PortRange> {
    let Some((first, last)) = text.split_once(separator) else {
        let port = text.parse().ok()?;
        return Some(PortRange { first: port, last: port });
    };
    let end = |text: &str, default: u16| {
        if text.is_empty() { Some(default) } else { text.parse().ok() }
    };
    Some(PortRange { first: end(first, 0)?, last: end(last, u16::MAX)? })
}

/// `80,443,8000:8100`.
pub(super) fn port_list(text: &str) -> Option<Vec<PortRange>> {
    text.split(',').map(|one| ports(one, ':')).collect()
}

pub(super) fn ct_state(text: &str) -> Option<CtState> {
    Some(match text.to_ascii_lowercase().as_str() {
        "new" => CtState::New,
        "established" => CtState::Established,
        "related" => CtState::Related,
        "invalid" => CtState::Invalid,
        "untracked" => CtState::Untracked,
        "snat" => CtState::Snat,
        "dnat" => CtState::Dnat,
        _ => return None,
    })
}

/// Bits of `IPS_*` (include/uapi/linux/netfilter/nf_conntrack_common.h), by iptables' and nft's
/// names.
pub(super) fn ct_status(text: &str) -> Option<u32> {
    text.split(',').try_fold(0, |bits, name| {
        let bit = match name.to_ascii_lowercase().as_str() {
            "expected" => 0,
            "seen_reply" | "seen-reply" => 1,
            "assured" => 2,
            "confirmed" => 3,
            "snat" => 4,
            "dnat" => 5,
            "dying" => 9,
            _ => return None,
        };
        Some(bits | 1 << bit)
    })
}

/// Bits of the TCP flags byte: `SYN,ACK`, `ALL`, `NONE`.
pub(super) fn tcp_flags(text: &str) -> Option<u8> {
    text.split(',').try_fold(0, |bits, name| {
        Some(
            bits | match name.to_ascii_lowercase().as_str() {
                "fin" => 1,
                "syn" => 2,
                "rst" => 4,
                "psh" => 8,
                "ack" => 16,
                "urg" => 32,
                "ecn" => 64,
                "cwr" => 128,
                "all" => 63,
                "none" => 0,
                _ => return None,
            },
        )
    })
}

/// `3/4`, `8`.
pub(super) fn icmp(text: &str) -> Option<(u8, Option<u8>)> {
    match text.split_once('/') {
        Some((kind, code)) => Some((kind.parse().ok()?, Some(code.parse().ok()?))),
        None => Some((text.parse().ok()?, None)),
    }
}

/// iptables says `unicast` for what is addressed to this host.
pub(super) fn packet_type(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "unicast" | "host" => "host",
        "broadcast" => "broadcast",
        "multicast" => "multicast",
        "otherhost" | "other" => "other",
        _ => return None,
    })
}

/// `10.0.0.1-10.0.0.9`.
pub(super) fn address_range(text: &str) -> Option<AddressRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (std::net::IpAddr, std::net::IpAddr) =
        (first.parse().ok()?, last.parse().ok()?);
    (first.is_ipv4() == last.is_ipv4()).then_some(AddressRange { first, last })
}

/// `100:200`, `100`.
pub(super) fn lengths(text: &str) -> Option<(u32, u32)> {
    match text.split_once(':') {
        Some((first, last)) => Some((
            if first.is_empty() { 0 } else { first.parse().ok()? },
            if last.is_empty() { u32::MAX } else { last.parse().ok()? },
        )),
        None => text.parse().ok().map(|length| (length, length)),
    }
}
