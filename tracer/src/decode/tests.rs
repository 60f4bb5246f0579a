use etherparse::PacketBuilder;
use tracer_common::{STACK_FRAMES, matched};
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::model::{Body, Ip, L4, Loss, Mac, Packet};

const A: [u8; 4] = [10, 10, 0, 2];
const B: [u8; 4] = [10, 10, 1, 2];

fn builder() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn ping() -> Vec<u8> {
    let payload = [7; 56];
    let b = builder().ipv4(A, B, 64).icmpv4_echo_request(42, 3);
    bytes(|out| b.write(out, &payload).unwrap())
}

fn in_vxlan(inner: &[u8], port: u16) -> Vec<u8> {
    let mut payload = vec![8, 0, 0, 0, 0, 0, 5, 0];
    payload.extend_from_slice(inner);
    let b = builder().ipv4([192, 168, 10, 11], [192, 168, 10, 12], 63).udp(50000, port);
    bytes(|out| b.write(out, &payload).unwrap())
}

fn frame(data: &[u8], ports: &[u16]) -> Packet {
    let ethertype = u16::from_be_bytes([data[12], data[13]]);
    parse_frame(data, 14, ethertype, data.len() as u32, ports).unwrap()
}

fn ip(packet: &Packet) -> &Ip {
    match &packet.body {
        Body::Ip(ip) => ip,
        other => panic!("{other:?}"),
    }
}

#[test]
fn echo_request_plain_and_in_a_tunnel_is_the_same_packet() {
    let plain = frame(&ping(), &[8472]);
    let wrapped = frame(&in_vxlan(&ping(), 8472), &[8472]);
    assert_eq!(plain.body, wrapped.body);
    assert_eq!(ip(&plain).l4, L4::Icmp { kind: 8, code: 0, id: 42, seq: 3 });
    assert!(ip(&plain).payload_hash.is_some());
    assert!(plain.outer.is_none());
    let outer = wrapped.outer.unwrap();
    assert_eq!((outer.vni, outer.udp_dst, outer.ttl), (Some(5), 8472, 63));
    assert_eq!(outer.eth.unwrap().dst, Mac([2, 0, 0, 0, 0, 2]));
}

#[test]
fn the_tunnel_port_is_the_devices_own() {
    let packet = frame(&in_vxlan(&ping(), 4789), &[8472]);
    assert!(packet.outer.is_none());
    assert!(matches!(ip(&packet).l4, L4::Udp { dport: 4789, .. }));
    assert!(frame(&in_vxlan(&ping(), 4789), &[4789]).outer.is_some());
}

#[test]
fn the_hash_is_the_same_however_much_was_kept() {
    let whole = ping();
    let cut = frame(&whole[..64], &[]);
    assert_eq!(ip(&frame(&whole, &[])).payload_hash, ip(&cut).payload_hash);
    assert_eq!(ip(&cut).payload_len, 64);
    // Too little to hash: no hash rather than another one.
    assert_eq!(ip(&frame(&whole[..45], &[])).payload_hash, None);
}

#[test]
fn tcp_is_read_though_its_options_are_cut_off() {
    let b = builder().ipv4(A, B, 64).tcp(1000, 80, 7, 500).ack(9).options_raw(&[1; 12]).unwrap();
    let data = bytes(|out| b.write(out, &[0; 100]).unwrap());
    let packet = frame(&data[..60], &[]);
    let L4::Tcp { sport, dport, seq, ack, flags, payload, .. } = ip(&packet).l4 else { panic!() };
    assert_eq!((sport, dport, seq, ack, flags, payload), (1000, 80, 7, 9, 0x10, 100));
}

#[test]
fn super_packets_without_a_stated_length_use_the_frames() {
    let b = builder().ipv4(A, B, 64).tcp(1, 2, 3, 4);
    let mut data = bytes(|out| b.write(out, &[0; 10]).unwrap());
    data[16..18].fill(0);
    let packet = parse_frame(&data, 14, 0x0800, 100_000, &[]).unwrap();
    assert!(matches!(ip(&packet).l4, L4::Tcp { payload, .. } if payload == 100_000 - 14 - 40));
}

#[test]
fn icmp_errors_show_what_they_quote() {
    let quoted = &ping()[14..];
    let b = builder().ipv4(B, A, 62).icmpv4_raw(3, 4, [0, 0, 5, 0x78]);
    let packet = frame(&bytes(|out| b.write(out, quoted).unwrap()), &[]);
    let L4::IcmpError { kind, code, mtu, quoted: Some(quoted), quoted_outer } = &ip(&packet).l4
    else {
        panic!()
    };
    assert_eq!((*kind, *code, *mtu, *quoted_outer), (3, 4, Some(1400), false));
    assert_eq!(quoted.l4, L4::Icmp { kind: 8, code: 0, id: 42, seq: 3 });
}

#[test]
fn icmp_errors_about_the_tunnel_show_the_inner_packet() {
    let tunnel = in_vxlan(&ping(), 8472);
    let b = builder().ipv4([192, 168, 10, 12], [192, 168, 10, 11], 64).icmpv4_raw(3, 3, [0; 4]);
    let packet = frame(&bytes(|out| b.write(out, &tunnel[14..]).unwrap()), &[8472]);
    let L4::IcmpError { quoted: Some(quoted), quoted_outer: true, .. } = &ip(&packet).l4 else {
        panic!("{packet:?}")
    };
    assert_eq!(quoted.src, std::net::IpAddr::from(A));
}

#[test]
fn fragments_have_offsets() {
    let mut data = ping();
    data[20..22].copy_from_slice(&0x20b9u16.to_be_bytes()); // more fragments, offset 185 * 8
    let packet = frame(&data, &[]);
    let fragment = ip(&packet).fragment.unwrap();
    assert_eq!((fragment.offset, fragment.more), (1480, true));
    assert_eq!(ip(&packet).l4, L4::Other);
}

#[test]
fn ipv6_fragment_header_is_followed() {
    let mut data = vec![0; 14];
    data[12..14].copy_from_slice(&[0x86, 0xdd]);
    data.extend([0x60, 0, 0, 0, 0, 24, 44, 60]);
    data.extend([0xfd; 16]);
    data.extend([0xfc; 16]);
    data.extend([17, 0, 0, 1, 0, 0, 0, 99]); // UDP, offset 0, more, id 99
    data.extend([0, 1, 0, 2, 0, 200, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let packet = frame(&data, &[]);
    let ip = ip(&packet);
    assert_eq!((ip.proto, ip.id, ip.payload_len), (17, 99, 16));
    assert!(matches!(ip.l4, L4::Udp { sport: 1, dport: 2, .. }));
}

#[test]
fn arp_requests_and_neighbour_solicitations_are_questions() {
    let mut data = vec![0xff; 12];
    data.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
    data.extend(A);
    data.extend([0; 6]);
    data.extend(B);
    let packet = frame(&data, &[]);
    let Body::Neighbor(neighbor) = &packet.body else { panic!() };
    assert!(neighbor.request);
    assert_eq!(neighbor.target_ip, std::net::IpAddr::from(B));
    assert_eq!(neighbor.sender_mac, Some(Mac([2, 0, 0, 0, 0, 1])));
}

fn record(header: &HopHeader, rest: &[&[u8]]) -> Vec<u8> {
    let mut out = header.as_bytes().to_vec();
    rest.iter().for_each(|r| out.extend_from_slice(r));
    out
}

fn header(data: &[u8]) -> HopHeader {
    HopHeader {
        time_ns: 1,
        skb: 2,
        ifindex: 3,
        len: data.len() as u32,
        caplen: data.len() as u16,
        protocol: 0x0800u16.to_be(),
        kind: KIND_HOP,
        hook: HOOK_EGRESS,
        matched: matched::PLAIN as u8,
        l3_offset: 14,
        ..HopHeader::new_zeroed()
    }
}

fn decoder() -> Decoder {
    let names = KernelNames {
        reasons: HashMap::from([(6, "SKB_DROP_REASON_NETFILTER_DROP".into())]),
        symbols: Symbols::from_pairs([
            (0x1000, "bpf_prog_packet_dropped".into()),
            (0x2000, "nf_hook_slow".into()),
            (0x3000, "ip_forward".into()),
        ]),
    };
    Decoder::new(&Topology::default(), vec![77], Box::new(|| names))
}

/// What could not be read, by node.
fn lost(decoder: &Decoder) -> Vec<(String, u64)> {
    let mut losses = vec![("?".to_owned(), Loss::default())];
    decoder.unread().add_to(&mut losses);
    losses.into_iter().map(|(node, loss)| (node, loss.undecodable)).filter(|l| l.1 > 0).collect()
}

#[test]
fn a_hop_record_becomes_an_event() {
    let data = ping();
    let mut batch = Batch::default();
    batch.push(&record(&header(&data), &[&data]));
    let mut decoder = decoder();
    let events = decoder.decode(&batch);
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].netns_inum, events[0].ifindex), (77, 3));
    assert_eq!(events[0].kind, EventKind::Hop(Hook::Egress));
    assert_eq!(lost(&decoder), []);
}

#[test]
fn a_drop_record_gets_its_names() {
    let data = ping();
    let mut stack = [0; STACK_FRAMES];
    stack[..3].copy_from_slice(&[0x1010, 0x2010, 0x3010]);
    let trailer = DropTrailer { location: 0x2020, reason: 6, netns: 5, frames: 3, pad: 0, stack };
    let mut batch = Batch::default();
    batch.push(&record(
        &HopHeader { kind: KIND_DROP, ..header(&data) },
        &[trailer.as_bytes(), &data],
    ));
    let events = decoder().decode(&batch);
    let EventKind::Drop(drop) = &events[0].kind else { panic!() };
    assert_eq!((drop.code, drop.reason.as_str()), (6, "NETFILTER_DROP"));
    assert_eq!(drop.function, "nf_hook_slow");
    assert_eq!(drop.stack, ["nf_hook_slow", "ip_forward"]);
    assert_eq!(events[0].netns_inum, 5);
}

#[test]
fn nonsense_is_counted_not_believed() {
    let data = ping();
    let mut batch = Batch::default();
    batch.push(b"");
    batch.push(&[0; 40]);
    batch.push(&record(&HopHeader { slot: 9, ..header(&data) }, &[&data]));
    batch.push(&record(&HopHeader { hook: 9, ..header(&data) }, &[&data]));
    batch.push(&record(&HopHeader { caplen: 9999, ..header(&data) }, &[&data]));
    let mut decoder = decoder();
    assert!(decoder.decode(&batch).is_empty());
    // Two are no events at all; that slot 9 is unknown as well.
    assert_eq!(lost(&decoder), [("?".to_owned(), 5)]);
}

fn raw(data: &[u8]) -> RawEvent<'_> {
    RawEvent {
        machine: 0,
        time_ns: 1,
        netns_inum: 77,
        ifindex: 3,
        skb: 2,
        len: data.len() as u32,
        gso: None,
        kind: EventKind::Hop(Hook::Egress),
        l3_offset: 14,
        protocol: 0x0800,
        data: Cow::Borrowed(data),
    }
}

#[test]
fn a_tunnel_packet_that_cannot_be_read_is_counted_at_its_node() {
    let mut topology = crate::correlate::testing::cross_node();
    topology.stations[0].netns_inum = 77;
    topology.vxlan_ports = vec![8472];
    let node = topology.stations[0].node.clone();
    let parser = Parser::new(&topology);
    let good = in_vxlan(&ping(), 8472);
    // Without the flag that says that there is a network identifier; cut off in the inner header.
    let mut flagless = good.clone();
    flagless[14 + 20 + 8] = 0;
    let mut unread = Unread::default();
    assert!(parser.read(Some(raw(&good)), &mut unread).is_some());
    assert!(parser.read(Some(raw(&flagless)), &mut unread).is_none());
    assert!(parser.read(Some(raw(&good[..70])), &mut unread).is_none());
    let mut losses = Vec::new();
    unread.add_to(&mut losses);
    assert_eq!(losses, [(node, Loss { undecodable: 2, ..Loss::default() })]);
    // What the flow itself sends to that port is no tunnel.
    let own = builder().ipv4(A, B, 64).udp(50000, 8472);
    topology.src.as_mut().unwrap().ips = vec![A.into()];
    topology.dst.as_mut().unwrap().ips = vec![B.into()];
    assert!(
        Parser::new(&topology)
            .parse(raw(&bytes(|out| own.write(out, &[0; 20]).unwrap())))
            .is_some()
    );
}

#[test]
fn what_is_cut_off_before_it_can_be_told_apart_is_not_read() {
    // 60 bytes of IPv4 header leave no room for a transport header in 64.
    let options: etherparse::Ipv4Options = [1; 40].as_slice().try_into().unwrap();
    let header = |proto| {
        let mut ip = etherparse::Ipv4Header::new(40, 64, proto, A, B).unwrap();
        (ip.options, ip.identification) = (options.clone(), 7);
        builder().ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
    };
    let parser = Parser::new(&Topology::default());
    let tcp = bytes(|out| {
        header(etherparse::IpNumber::TCP).tcp(1, 2, 3, 4).write(out, &[0; 40]).unwrap()
    });
    assert!(parser.parse(raw(&tcp)).is_some());
    assert!(parser.parse(raw(&tcp[..76])).is_none());
    // By its number it can be followed all the same.
    let udp =
        bytes(|out| header(etherparse::IpNumber::UDP).udp(1, 2).write(out, &[0; 40]).unwrap());
    assert!(parser.parse(raw(&udp[..76])).is_some());
}

proptest::proptest! {
    #[test]
    fn never_panics(
        data in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        l3 in 0usize..40,
        kind in 0usize..4,
        len in 0u32..70_000,
    ) {
        let ethertype = [0x0800, 0x86dd, 0x0806, 0x1234][kind];
        let _ = parse_frame(&data, l3, ethertype, len, &[8472]);
    }

    #[test]
    fn damaged_packets_never_panic(at in 0usize..170, value: u8, cut in 0usize..170) {
        let mut data = in_vxlan(&ping(), 8472);
        let n = data.len();
        data[at % n] = value;
        let _ = parse_frame(&data[..cut.min(n)], 14, 0x0800, 9, &[8472]);
    }

    #[test]
    fn records_never_panic(data in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        let mut batch = Batch::default();
        batch.push(&data);
        let _ = decoder().decode(&batch);
    }
}
