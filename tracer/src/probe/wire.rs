//! Bytes of the probe's packets: building requests, recognising answers. No I/O, and no input can
//! make it panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ICMP echo request and reply (RFC 792), ICMPv6 ones (RFC 4443 section 4).
const ECHO4: u8 = 8;
const ECHO_REPLY4: u8 = 0;
const ECHO6: u8 = 128;
const ECHO_REPLY6: u8 = 129;
/// Types that are errors and quote the packet they are about.
pub(super) const ERRORS4: [u8; 3] = [3, 11, 12];
pub(super) const ERRORS6: [u8; 4] = [1, 2, 3, 4];
/// Types that the ICMP probe wants to receive.
pub(super) const WANTED4: [u8; 4] = [ECHO_REPLY4, ERRORS4[0], ERRORS4[1], ERRORS4[2]];
pub(super) const WANTED6: [u8; 5] = [ECHO_REPLY6, ERRORS6[0], ERRORS6[1], ERRORS6[2], ERRORS6[3]];

/// ICMP header: type, code, checksum, identifier, sequence number.
pub(super) const ICMP_HEADER: usize = 8;
/// IPv6 header (RFC 8200 section 3) and its fragment extension (section 4.5).
const IPV6_HEADER: usize = 40;
const IPV6_FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;
/// IP protocol numbers.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Begins a UDP probe's payload; the packet's number follows.
const UDP_MAGIC: [u8; 4] = *b"ptrc";
const UDP_MARK: usize = UDP_MAGIC.len() + size_of::<u64>();

/// An ICMP message about one of our echo requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The answer.
    Reply {
        /// Low 16 bits of the packet's number.
        seq: u16,
    },
    /// An error that quotes the request.
    Error { kind: u8, code: u8, seq: u16 },
}

/// An echo request, with checksum for IPv4 (for IPv6 the kernel puts it in, RFC 3542 section 3.1).
/// The payload begins with the full packet number, as far as it fits.
pub(super) fn echo_request(v4: bool, id: u16, number: u64, size: usize) -> Vec<u8> {
    let mut packet = vec![if v4 { ECHO4 } else { ECHO6 }, 0, 0, 0];
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&(number as u16).to_be_bytes());
    packet.extend(number.to_be_bytes().into_iter().chain(pattern()).take(size));
    if v4 {
        let sum = checksum(&packet).to_be_bytes();
        if let Some(field) = packet.get_mut(2..4) {
            field.copy_from_slice(&sum);
        }
    }
    packet
}

/// Reads what a raw ICMP socket received from `from`: with IP header for IPv4, without for IPv6.
/// `None` unless it is about an echo request with identifier `id` to `dst`.
pub(super) fn parse(packet: &[u8], from: IpAddr, dst: IpAddr, id: u16) -> Option<Message> {
    let v4 = dst.is_ipv4();
    let icmp = if v4 { ipv4_payload(packet)?.1 } else { packet };
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    let (reply, request, errors): (_, _, &[u8]) =
        if v4 { (ECHO_REPLY4, ECHO4, &ERRORS4) } else { (ECHO_REPLY6, ECHO6, &ERRORS6) };
    if kind == reply {
        return (from == dst && be16(icmp, 4)? == id)
            .then_some(Message::Reply { seq: be16(icmp, 6)? });
    }
    if !errors.contains(&kind) {
        return None;
    }
    let quoted = icmp.get(ICMP_HEADER..)?;
    let (to, original) = if v4 { ipv4_payload(quoted)? } else { ipv6_payload(quoted)? };
    (to == dst && *original.first()? == request && be16(original, 4)? == id)
        .then_some(Message::Error { kind, code, seq: be16(original, 6)? })
}

/// Destination and payload of an IPv4 packet that carries ICMP and is no later fragment.
fn ipv4_payload(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let offset = be16(packet, 6)? & 0x1fff;
    if first >> 4 != 4 || header < 20 || *packet.get(9)? != ICMP || offset != 0 {
        return None;
    }
    let dst: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some((Ipv4Addr::from(dst).into(), packet.get(header..)?))
}

/// Destination and payload of an IPv6 packet that carries ICMPv6 and is no later fragment.
fn ipv6_payload(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let dst: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let (next, payload) = match *packet.get(6)? {
        IPV6_FRAGMENT => {
            let fragment = packet.get(IPV6_HEADER..)?;
            if be16(fragment, 2)? & 0xfff8 != 0 {
                return None;
            }
            (*fragment.first()?, fragment.get(FRAGMENT_HEADER..)?)
        }
        next => (next, packet.get(IPV6_HEADER..)?),
    };
    (next == ICMPV6).then_some((Ipv6Addr::from(dst).into(), payload))
}

/// Payload of a UDP probe packet: marked with its number, if `size` has room, so that each differs.
/// Shorter ones hold the low bytes of the number.
pub(super) fn udp_payload(number: u64, size: usize) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    match size.checked_sub(UDP_MARK) {
        Some(rest) => UDP_MAGIC.into_iter().chain(bytes).chain(pattern().take(rest)).collect(),
        None => bytes.iter().rev().copied().chain(pattern()).take(size).collect(),
    }
}

/// An ICMP error in words: `ICMP 3/1 host unreachable`, `ICMPv6 1/4 port unreachable`.
pub(super) fn describe(v4: bool, kind: u8, code: u8) -> String {
    let words = match (v4, kind, code) {
        (true, 3, 0) => "network unreachable",
        (true, 3, 1) => "host unreachable",
        (true, 3, 2) => "protocol unreachable",
        (true, 3, 3) | (false, 1, 4) => "port unreachable",
        (true, 3, 4) => "fragmentation needed",
        (true, 3, 9 | 10 | 13) | (false, 1, 1) => "administratively prohibited",
        (true, 3, _) | (false, 1, _) => "destination unreachable",
        (true, 11, 0) => "TTL exceeded in transit",
        (false, 3, 0) => "hop limit exceeded in transit",
        (true, 11, _) | (false, 3, _) => "fragment reassembly time exceeded",
        (true, 12, _) | (false, 4, _) => "parameter problem",
        (false, 2, _) => "packet too big",
        _ => "error",
    };
    format!("ICMP{} {kind}/{code} {words}", if v4 { "" } else { "v6" })
}

/// Filler that makes misplaced bytes visible in a capture.
fn pattern() -> impl Iterator<Item = u8> {
    (0..=u8::MAX).cycle()
}

/// Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = bytes.chunks(2).fold(0_u64, |sum, pair| {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u64::from(u16::from_be_bytes([high, low]))
    });
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DST4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 1, 2));
    const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 1));
    const DST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

    fn ipv4(dst: IpAddr, options: usize, payload: &[u8]) -> Vec<u8> {
        let IpAddr::V4(dst) = dst else { panic!("not IPv4") };
        let mut packet = vec![0x45 + (options / 4) as u8, 0, 0, 0, 0, 1, 0x40, 0, 64, ICMP, 0, 0];
        packet.extend([10, 10, 0, 2]);
        packet.extend(dst.octets());
        packet.extend(vec![1; options]);
        packet.extend(payload);
        packet
    }

    fn ipv6(dst: IpAddr, next: u8, payload: &[u8]) -> Vec<u8> {
        let IpAddr::V6(dst) = dst else { panic!("not IPv6") };
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend([0; 16]);
        packet.extend(dst.octets());
        packet.extend(payload);
        packet
    }

    fn reply(kind: u8, request: &[u8]) -> Vec<u8> {
        let mut reply = request.to_vec();
        reply[0] = kind;
        reply
    }

    #[test]
    fn requests_have_the_right_bytes() {
        // As `ping -s 3` sends it: type 8, code 0, checksum, id, seq, payload.
        let packet = echo_request(true, 0x1234, 0x1_0005, 3);
        assert_eq!(packet, [8, 0, 0xe5, 0xc6, 0x12, 0x34, 0, 5, 0, 0, 0]);
        assert_eq!(checksum(&packet), 0, "the checksum of a packet with its checksum is 0");
        assert_eq!(echo_request(false, 0x1234, 5, 0), [128, 0, 0, 0, 0x12, 0x34, 0, 5]);
        let long = echo_request(true, 1, 7, 1400);
        assert_eq!(long.len(), ICMP_HEADER + 1400);
        assert_eq!(long[ICMP_HEADER..][..12], [0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 2, 3]);
        assert_eq!(checksum(&long), 0);
    }

    #[test]
    fn replies_match_by_peer_identifier_and_sequence() {
        let request = echo_request(true, 7, 3, 56);
        let packet = ipv4(ROUTER4, 0, &reply(0, &request));
        assert_eq!(parse(&packet, DST4, DST4, 7), Some(Message::Reply { seq: 3 }));
        assert_eq!(parse(&packet, DST4, DST4, 8), None, "another ping's");
        assert_eq!(parse(&packet, ROUTER4, DST4, 7), None, "another host's");
        let request = ipv4(ROUTER4, 0, &request);
        assert_eq!(parse(&request, DST4, DST4, 7), None, "a request is no reply");
        let options = ipv4(ROUTER4, 8, &reply(0, &echo_request(true, 7, 4, 0)));
        assert_eq!(parse(&options, DST4, DST4, 7), Some(Message::Reply { seq: 4 }));
        let packet = reply(129, &echo_request(false, 7, 3, 56));
        assert_eq!(parse(&packet, DST6, DST6, 7), Some(Message::Reply { seq: 3 }));
    }

    #[test]
    fn errors_match_by_what_they_quote() {
        let quoted = ipv4(DST4, 0, &echo_request(true, 7, 9, 0));
        let error = |kind, code| {
            ipv4(ROUTER4, 0, &[&[kind, code, 0, 0, 0, 0, 0, 0], quoted.as_slice()].concat())
        };
        let expected = Message::Error { kind: 3, code: 1, seq: 9 };
        assert_eq!(parse(&error(3, 1), ROUTER4, DST4, 7), Some(expected));
        assert_eq!(parse(&error(3, 1), ROUTER4, DST4, 6), None);
        assert_eq!(parse(&error(3, 1), ROUTER4, ROUTER4, 7), None, "quotes another destination");
        assert_eq!(parse(&error(13, 0), ROUTER4, DST4, 7), None);

        let request = echo_request(false, 7, 9, 0);
        let fragment = [&[ICMPV6, 0, 0, 1, 0, 0, 0, 1], request.as_slice()].concat();
        for quoted in [ipv6(DST6, ICMPV6, &request), ipv6(DST6, IPV6_FRAGMENT, &fragment)] {
            let packet = [&[1, 3, 0, 0, 0, 0, 0, 0], quoted.as_slice()].concat();
            let expected = Message::Error { kind: 1, code: 3, seq: 9 };
            assert_eq!(parse(&packet, ROUTER6, DST6, 7), Some(expected));
        }
        let udp = ipv6(DST6, 17, &request);
        let packet = [&[1, 3, 0, 0, 0, 0, 0, 0], udp.as_slice()].concat();
        assert_eq!(parse(&packet, ROUTER6, DST6, 7), None);
    }

    #[test]
    fn udp_payloads_differ() {
        for size in [12, 13, 100, 1472] {
            let payload = udp_payload(0x0102_0304_0506, size);
            assert_eq!(payload.len(), size);
            assert_eq!(payload[..UDP_MARK], *b"ptrc\0\0\x01\x02\x03\x04\x05\x06");
        }
        assert_eq!(udp_payload(0x0203, 2), [3, 2]);
        assert!(udp_payload(1, 0).is_empty());
    }

    #[test]
    fn errors_are_put_in_words() {
        assert_eq!(describe(true, 3, 13), "ICMP 3/13 administratively prohibited");
        assert_eq!(describe(false, 1, 4), "ICMPv6 1/4 port unreachable");
        assert_eq!(describe(true, 200, 1), "ICMP 200/1 error");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, DST4, DST4, 7);
            let _ = parse(&bytes, DST6, DST6, 7);
            let _ = checksum(&bytes);
        }

        #[test]
        fn any_truncation_is_read_without_panic(cut in 0_usize..80, v4: bool) {
            let (dst, packet) = if v4 {
                let quoted = ipv4(DST4, 4, &echo_request(true, 7, 9, 0));
                (DST4, ipv4(ROUTER4, 0, &[&[3, 1, 0, 0, 0, 0, 0, 0], quoted.as_slice()].concat()))
            } else {
                let quoted = ipv6(DST6, ICMPV6, &echo_request(false, 7, 9, 0));
                (DST6, [&[1, 3, 0, 0, 0, 0, 0, 0], quoted.as_slice()].concat())
            };
            let _ = parse(&packet[..cut.min(packet.len())], dst, dst, 7);
        }
    }
}
