//! Comparisons: a key of the packet on the left, values on the right.

use ipnet::IpNet;
use serde_json::Value;

use super::super::words;
use super::super::{
    Action, AddressRange, Choice, Condition, Match, NamePattern, PortRange, TableFamily,
};
use super::{Reader, action, array, compact, only_member, word};

/// A set or map with more elements than this stays a name: rules would repeat all of them.
const MAX_ELEMENTS: usize = 16_384;

/// Keys that are not of the packet alone.
const RANDOM: [&str; 3] = ["numgen", "jhash", "symhash"];

impl Reader<'_> {
    /// `{"op": …, "left": …, "right": …}`.
    pub(super) fn compare(&mut self, body: &Value) {
        let (Some(left), Some(right)) = (body.get("left"), body.get("right")) else {
            return self.require(Match::Unknown(compact(body)));
        };
        let invert = match word(body, "op") {
            Some("==" | "in") | None => false,
            Some("!=") => true,
            Some(_) => return self.require(Match::Unknown(compact(body))),
        };
        // An ICMP code belongs to the type that was compared just before.
        if !invert
            && payload(left).is_some_and(|(_, field)| field == "code")
            && let Some(Condition { invert: false, what: Match::Icmp { v6, types } }) =
                self.conditions.last_mut()
            && let [(_, code @ None)] = types.as_mut_slice()
            && let Some(number) = icmp_code(*v6, right)
        {
            *code = Some(number);
            return;
        }
        if let Some(("concat", _)) = only_member(left) {
            let alternatives = self.values(right).and_then(|values| {
                values.into_iter().map(|value| self.equal(left, value)).collect::<Option<_>>()
            });
            let what = alternatives.map_or_else(|| Match::Unknown(compact(body)), Match::AnyOf);
            return self.conditions.push(Condition { invert, what });
        }
        match self.understand(left, right) {
            Some((implied, what)) => {
                self.conditions.extend(implied.into_iter().map(Condition::is));
                self.conditions.push(Condition { invert, what });
            }
            None => self.require(Match::Unknown(compact(body))),
        }
    }

    /// A verdict map: `{"key": …, "data": …}`.
    pub(super) fn choose(&self, body: &Value) -> Option<Action> {
        self.map(body, |value| {
            let (kind, arguments) = only_member(value)?;
            action::parse(kind, arguments)
        })
    }

    /// A map whose values are something to do.
    fn map(&self, body: &Value, action: impl Fn(&Value) -> Option<Action>) -> Option<Action> {
        let key = body.get("key")?;
        let elements = self.elements(body.get("data")?)?;
        let choices = elements.iter().map(|element| {
            let [entry, value] = array(Some(element)) else { return None };
            let comment = entry.get("elem").and_then(|e| word(e, "comment")).map(str::to_owned);
            let mut text = shown(bare(entry));
            if let Some(comment) = &comment {
                text += &format!(" comment \"{comment}\"");
            }
            text += &format!(" : {}", shown(value));
            let conditions = self.equal(key, bare(entry))?;
            Some(Choice { text, comment, conditions, action: action(value)? })
        });
        let mut choices: Vec<Choice> = choices.collect::<Option<_>>()?;
        // Where every number that can come up has an entry, one of them is chosen for certain.
        let numbers = only_member(key).filter(|(kind, _)| RANDOM.contains(kind));
        let modulus = numbers.and_then(|(_, body)| body.get("mod")?.as_u64());
        if modulus.is_some_and(|n| usize::try_from(n).is_ok_and(|n| n <= choices.len()))
            && let Some(last) = choices.last_mut()
        {
            last.conditions.clear();
        }
        Some(Action::Choose(choices))
    }

    /// `dnat to KEY map { … }`, `snat to KEY map { … }`: one translation for each entry.
    pub(super) fn translate(&self, kind: &str, body: &Value) -> Option<Action> {
        let ("map", map) = only_member(body.get("addr")?)? else { return None };
        self.map(map, |value| {
            let mut plain = body.clone();
            let object = plain.as_object_mut()?;
            match only_member(value) {
                Some(("concat", parts)) => {
                    let [address, port] = array(Some(parts)) else { return None };
                    object.insert("addr".to_owned(), address.clone());
                    object.insert("port".to_owned(), port.clone());
                }
                _ => _ = object.insert("addr".to_owned(), value.clone()),
            }
            action::parse(kind, &plain)
        })
    }

    /// What must hold for a key, single or concatenated, to have a value.
    fn equal(&self, key: &Value, value: &Value) -> Option<Vec<Condition>> {
        if value.as_str() == Some("*") {
            return Some(Vec::new());
        }
        match (only_member(key), only_member(value)) {
            (Some(("concat", keys)), Some(("concat", values))) => {
                let (keys, values) = (array(Some(keys)), array(Some(values)));
                if keys.len() != values.len() {
                    return None;
                }
                let mut conditions = Vec::new();
                for (key, value) in keys.iter().zip(values) {
                    conditions.extend(self.equal(key, value)?);
                }
                Some(conditions)
            }
            (Some((kind, _)), _) if RANDOM.contains(&kind) => {
                let text = format!("{} is {}", compact(key), compact(value));
                Some(vec![Condition::is(Match::Sometimes(text))])
            }
            _ => {
                let (implied, what) = self.understand(key, value)?;
                Some(implied.into_iter().chain([what]).map(Condition::is).collect())
            }
        }
    }

    /// The elements of an anonymous or a named set; `None`: unknown, or too many.
    fn elements<'v>(&'v self, set: &'v Value) -> Option<&'v [Value]> {
        let elements = match set {
            Value::String(name) => *self.named.sets.get(name.strip_prefix('@')?)?,
            set => match only_member(set)? {
                ("set", elements) => array(Some(elements)),
                _ => return None,
            },
        };
        (elements.len() <= MAX_ELEMENTS).then_some(elements)
    }

    /// The values on the right: those of a set, of a list, or the only one.
    fn values<'v>(&'v self, right: &'v Value) -> Option<Vec<&'v Value>> {
        Some(match right {
            Value::String(text) if text.starts_with('@') => {
                self.elements(right)?.iter().map(bare).collect()
            }
            Value::Object(_) if right.get("set").is_some() => {
                self.elements(right)?.iter().map(bare).collect()
            }
            Value::Array(values) => values.iter().map(bare).collect(),
            right => vec![right],
        })
    }

    /// What is compared, and what nft leaves unsaid because it follows from the key.
    fn understand(&self, left: &Value, right: &Value) -> Option<(Vec<Match>, Match)> {
        if let Some(("&", operands)) = only_member(left) {
            return masked(operands, right);
        }
        let values = self.values(right)?;
        if let Some((protocol, field)) = payload(left) {
            return self.field(protocol, field, &values);
        }
        let (kind, body) = only_member(left)?;
        let key = word(body, "key");
        let what = match (kind, key) {
            ("meta", Some("iif" | "iifname")) => Match::Iif(names(&values)?),
            ("meta", Some("oif" | "oifname")) => Match::Oif(names(&values)?),
            ("meta", Some("mark")) => Match::Mark { value: only_number(&values)?, mask: u32::MAX },
            ("meta", Some("nfproto")) => match strings(&values)?.as_slice() {
                ["ipv4"] => Match::V6(false),
                ["ipv6"] => Match::V6(true),
                _ => return None,
            },
            ("meta", Some("protocol")) => Match::EtherType(ether_types(&values)?),
            ("meta", Some("l4proto")) => Match::Proto(protocols(&values)?),
            ("meta", Some("pkttype")) => {
                let kinds = strings(&values)?.into_iter().map(words::packet_type);
                Match::PacketType(kinds.map(|k| Some(k?.to_owned())).collect::<Option<_>>()?)
            }
            ("meta", Some("length")) => Match::Length(lengths(&values)?),
            ("ct", Some("state")) => {
                let states = strings(&values)?.into_iter().map(words::ct_state);
                Match::CtState(states.collect::<Option<_>>()?)
            }
            ("ct", Some("status")) => {
                let bits = strings(&values)?.into_iter().map(words::ct_status);
                Match::CtStatus(bits.sum::<Option<_>>()?)
            }
            ("ct", Some("mark")) => Match::CtMark { value: only_number(&values)?, mask: u32::MAX },
            ("fib", _) if word(body, "result") == Some("type") => {
                let kinds = strings(&values)?.iter().map(|k| k.to_ascii_uppercase()).collect();
                match flags(body).as_slice() {
                    ["saddr"] => Match::SrcType(kinds),
                    ["daddr"] => Match::DstType(kinds),
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some((Vec::new(), what))
    }

    /// A header field; its protocol must be there, which the listing does not repeat.
    fn field(&self, protocol: &str, field: &str, values: &[&Value]) -> Option<(Vec<Match>, Match)> {
        let what = match (protocol, field) {
            ("ip" | "ip6", "saddr") => Match::Src(addresses(values)?),
            ("ip" | "ip6", "daddr") => Match::Dst(addresses(values)?),
            ("ip", "protocol") | ("ip6", "nexthdr") => Match::Proto(protocols(values)?),
            ("ip", "length") => Match::Length(lengths(values)?),
            ("ether", "saddr") => Match::EtherSrc(macs(values)?),
            ("ether", "daddr") => Match::EtherDst(macs(values)?),
            ("ether", "type") => Match::EtherType(ether_types(values)?),
            ("tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th", "sport") => {
                Match::Sport(values.iter().map(|v| ports(v)).collect::<Option<_>>()?)
            }
            ("tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th", "dport") => {
                Match::Dport(values.iter().map(|v| ports(v)).collect::<Option<_>>()?)
            }
            ("icmp" | "icmpv6", "type") => {
                let v6 = protocol == "icmpv6";
                let types = values.iter().map(|v| Some((icmp_type(v6, v)?, None)));
                Match::Icmp { v6, types: types.collect::<Option<_>>()? }
            }
            _ => return None,
        };
        let either = matches!(self.family, TableFamily::Ip | TableFamily::Ip6);
        let implied = match protocol {
            "ip" | "ip6" if either => None,
            "ip" => Some(Match::V6(false)),
            "ip6" => Some(Match::V6(true)),
            "ether" | "th" => None,
            protocol => Some(Match::Proto(vec![words::protocol(protocol)?])),
        };
        Some((implied.into_iter().collect(), what))
    }
}

/// `[key, mask]` compared with a value.
fn masked(operands: &Value, right: &Value) -> Option<(Vec<Match>, Match)> {
    let [key, mask] = array(Some(operands)) else { return None };
    if payload(key) == Some(("tcp", "flags")) {
        let what = Match::TcpFlags { mask: tcp_flags(mask)?, value: tcp_flags(right)? };
        return Some((vec![Match::Proto(vec![6])], what));
    }
    let (kind, body) = only_member(key)?;
    let (mask, value) = (number(mask)?, number(right)?);
    let what = match (kind, word(body, "key")?) {
        ("meta", "mark") => Match::Mark { value, mask },
        ("ct", "mark") => Match::CtMark { value, mask },
        _ => return None,
    };
    Some((Vec::new(), what))
}

/// Protocol and field of a header expression.
fn payload(left: &Value) -> Option<(&str, &str)> {
    let ("payload", body) = only_member(left)? else { return None };
    Some((word(body, "protocol")?, word(body, "field")?))
}

/// An element that carries a timeout, counter or comment is wrapped: `{"elem": {"val": …}}`.
fn bare(element: &Value) -> &Value {
    element.get("elem").and_then(|e| e.get("val")).unwrap_or(element)
}

/// An element, or what it leads to, as nft prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => return text.clone(),
        Value::Number(number) => return number.to_string(),
        _ => {}
    }
    let list = |values: &Value, between: &str| {
        array(Some(values)).iter().map(shown).collect::<Vec<_>>().join(between)
    };
    match only_member(value) {
        Some(("concat", parts)) => list(parts, " . "),
        Some(("range", ends)) => list(ends, "-"),
        Some(("prefix", prefix)) => {
            let length = prefix.get("len").and_then(Value::as_u64).unwrap_or_default();
            format!("{}/{length}", word(prefix, "addr").unwrap_or_default())
        }
        Some((kind @ ("goto" | "jump"), to)) => {
            format!("{kind} {}", word(to, "target").unwrap_or_default())
        }
        Some((kind @ ("accept" | "drop" | "continue" | "return"), _)) => kind.to_owned(),
        _ => compact(value),
    }
}

fn flags(body: &Value) -> Vec<&str> {
    match body.get("flags") {
        Some(Value::String(flag)) => vec![flag],
        flags => array(flags).iter().filter_map(Value::as_str).collect(),
    }
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn strings<'v>(values: &[&'v Value]) -> Option<Vec<&'v str>> {
    values.iter().map(|v| v.as_str()).collect()
}

fn only_number(values: &[&Value]) -> Option<u32> {
    let [value] = values else { return None };
    number(value)
}

fn names(values: &[&Value]) -> Option<Vec<NamePattern>> {
    values.iter().map(|v| Some(NamePattern::new(v.as_str()?, '*'))).collect()
}

fn addresses(values: &[&Value]) -> Option<Vec<AddressRange>> {
    values.iter().map(|v| address(v)).collect()
}

fn address(value: &Value) -> Option<AddressRange> {
    if let Value::String(text) = value {
        return text.parse::<std::net::IpAddr>().ok().map(Into::into);
    }
    match only_member(value)? {
        ("prefix", prefix) => {
            let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
            IpNet::new(word(prefix, "addr")?.parse().ok()?, length).ok().map(Into::into)
        }
        ("range", ends) => {
            let [first, last] = array(Some(ends)) else { return None };
            words::address_range(&format!("{}-{}", first.as_str()?, last.as_str()?))
        }
        _ => None,
    }
}

/// A port or a range of ports.
pub(super) fn ports(value: &Value) -> Option<PortRange> {
    let (first, last) = range(value)?;
    Some(PortRange { first: u16::try_from(first).ok()?, last: u16::try_from(last).ok()? })
}

fn range(value: &Value) -> Option<(u32, u32)> {
    if let Some(one) = number(value) {
        return Some((one, one));
    }
    let ("range", ends) = only_member(value)? else { return None };
    let [first, last] = array(Some(ends)) else { return None };
    Some((number(first)?, number(last)?))
}

fn lengths(values: &[&Value]) -> Option<Vec<(u32, u32)>> {
    values.iter().map(|v| range(v)).collect()
}

fn protocols(values: &[&Value]) -> Option<Vec<u8>> {
    let one = |value: &Value| match value {
        Value::String(name) => words::protocol(name),
        value => u8::try_from(value.as_u64()?).ok(),
    };
    values.iter().map(|v| one(v)).collect()
}

fn macs(values: &[&Value]) -> Option<Vec<crate::model::Mac>> {
    values.iter().map(|v| v.as_str()?.parse().ok()).collect()
}

fn ether_types(values: &[&Value]) -> Option<Vec<u16>> {
    let one = |value: &Value| match value.as_str() {
        Some("ip") => Some(0x0800),
        Some("arp") => Some(0x0806),
        Some("ip6") => Some(0x86dd),
        Some("vlan" | "8021q") => Some(0x8100),
        Some("8021ad") => Some(0x88a8),
        Some(text) => u16::try_from(words::number(text)?).ok(),
        None => u16::try_from(value.as_u64()?).ok(),
    };
    values.iter().map(|v| one(v)).collect()
}

/// A flag, a list of flags, `{"|": […]}`, or a number.
fn tcp_flags(value: &Value) -> Option<u8> {
    match value {
        Value::String(name) => words::tcp_flags(name),
        Value::Array(values) => {
            values.iter().try_fold(0, |bits, value| Some(bits | tcp_flags(value)?))
        }
        Value::Number(_) => u8::try_from(value.as_u64()?).ok(),
        value => match only_member(value)? {
            ("|" | "set", values @ Value::Array(_)) => tcp_flags(values),
            _ => None,
        },
    }
}

/// Names of nft's own table (src/proto.c, icmp_type_tbl and icmp6_type_tbl).
fn icmp_type(v6: bool, value: &Value) -> Option<u8> {
    let Some(name) = value.as_str() else { return u8::try_from(value.as_u64()?).ok() };
    Some(match (v6, name) {
        (false, "echo-reply") => 0,
        (false, "destination-unreachable") => 3,
        (false, "source-quench") => 4,
        (false, "redirect") => 5,
        (false, "echo-request") => 8,
        (false, "router-advertisement") => 9,
        (false, "router-solicitation") => 10,
        (false, "time-exceeded") => 11,
        (false, "parameter-problem") => 12,
        (false, "timestamp-request") => 13,
        (false, "timestamp-reply") => 14,
        (true, "destination-unreachable") => 1,
        (true, "packet-too-big") => 2,
        (true, "time-exceeded") => 3,
        (true, "parameter-problem") => 4,
        (true, "echo-request") => 128,
        (true, "echo-reply") => 129,
        (true, "mld-listener-query") => 130,
        (true, "mld-listener-report") => 131,
        (true, "mld-listener-done" | "mld-listener-reduction") => 132,
        (true, "nd-router-solicit") => 133,
        (true, "nd-router-advert") => 134,
        (true, "nd-neighbor-solicit") => 135,
        (true, "nd-neighbor-advert") => 136,
        (true, "nd-redirect") => 137,
        (true, "router-renumbering") => 138,
        (true, "mld2-listener-report") => 143,
        _ => return None,
    })
}

/// As [`icmp_type`] (icmp_code_tbl and icmpv6_code_tbl).
fn icmp_code(v6: bool, value: &Value) -> Option<u8> {
    let Some(name) = value.as_str() else { return u8::try_from(value.as_u64()?).ok() };
    Some(match (v6, name) {
        (false, "net-unreachable") => 0,
        (false, "host-unreachable") => 1,
        (false, "prot-unreachable") => 2,
        (false, "port-unreachable") => 3,
        (false, "frag-needed") => 4,
        (false, "net-prohibited") => 9,
        (false, "host-prohibited") => 10,
        (false, "admin-prohibited") => 13,
        (true, "no-route") => 0,
        (true, "admin-prohibited") => 1,
        (true, "addr-unreachable") => 3,
        (true, "port-unreachable") => 4,
        (true, "policy-fail") => 5,
        (true, "reject-route") => 6,
        _ => return None,
    })
}
