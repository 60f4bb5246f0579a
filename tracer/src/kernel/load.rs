//! Loading: the filter, the kernel's offsets, the programs and maps, the drop tracepoint.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use aya::maps::{HashMap as BpfHashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Ebpf, EbpfLoader};
use tracer_common::{Config, MAX_L3_DEVICES, MAX_PAIRS, MAX_SLOTS, MAX_VXLAN_PORTS};
use zerocopy::{FromZeros, IntoBytes};

use super::btf::{self, Btf, BtfError};
use super::{CaptureError, Filter, Options};
use crate::decode::{KernelNames, NameSource, Symbols};
use crate::model::Station;

/// The programs, as built by `cargo xtask build-ebpf`; empty when that was not done.
static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/podtrace.bpf.o"));

pub(super) struct Loaded {
    pub bpf: Ebpf,
    pub lost: PerCpuArray<MapData, u64>,
    pub events: RingBuf<MapData>,
    pub slots: Vec<u32>,
    pub disabled: Vec<String>,
    pub names: NameSource,
}

/// Namespaces in order of their first station: the slot numbers.
fn slots(stations: &[Station]) -> Result<Vec<u32>, CaptureError> {
    let mut slots = Vec::new();
    for station in stations {
        if !slots.contains(&station.netns_inum) {
            slots.push(station.netns_inum);
        }
    }
    if slots.len() > MAX_SLOTS {
        Err(CaptureError::TooManyNamespaces(slots.len()))
    } else {
        Ok(slots)
    }
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        // Memory order is network order: the programs compare words as they lie in the packet.
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()), 0, 0, 0],
        IpAddr::V6(v6) => {
            let o = v6.octets();
            let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
            [word(0), word(4), word(8), word(12)]
        }
    }
}

/// Puts the filter into the configuration.
fn fill_filter(
    config: &mut Config,
    filter: &Filter,
    stations: &[Station],
    slots: &[u32],
) -> Result<(), CaptureError> {
    fn count<T>(all: &[T], what: &'static str, max: usize) -> Result<u32, CaptureError> {
        u32::try_from(all.len())
            .ok()
            .filter(|n| *n as usize <= max)
            .ok_or(CaptureError::FilterFull(all.len(), what, max))
    }
    let v4: Vec<_> = filter.pairs.iter().filter(|(a, b)| a.is_ipv4() && b.is_ipv4()).collect();
    let v6: Vec<_> = filter.pairs.iter().filter(|(a, b)| a.is_ipv6() && b.is_ipv6()).collect();
    config.pairs4 = count(&v4, "IPv4 address pairs", MAX_PAIRS)?;
    config.pairs6 = count(&v6, "IPv6 address pairs", MAX_PAIRS)?;
    for (slot, (a, b)) in config.pair4.iter_mut().zip(v4) {
        *slot = [words(*a)[0], words(*b)[0]];
    }
    for (slot, (a, b)) in config.pair6.iter_mut().zip(v6) {
        *slot = [words(*a), words(*b)];
    }
    config.vxlan_ports = count(&filter.vxlan_ports, "VXLAN ports", MAX_VXLAN_PORTS)?;
    for (slot, port) in config.vxlan_port.iter_mut().zip(&filter.vxlan_ports) {
        *slot = port.to_be().into();
    }
    let l3: Vec<_> = stations.iter().filter(|s| !s.ethernet).collect();
    config.l3_devices = count(&l3, "interfaces without Ethernet header", MAX_L3_DEVICES)?;
    for (entry, station) in config.l3_device.iter_mut().zip(l3) {
        let slot = slots.iter().position(|s| *s == station.netns_inum).unwrap_or(0);
        *entry = [u32::try_from(slot).unwrap_or(0), station.ifindex];
    }
    config.proto = filter.proto.map_or(0, u32::from);
    config.port = filter.port.map_or(0, |p| p.to_be().into());
    config.port_behind = filter.port_behind.map_or(0, |p| p.to_be().into());
    config.snaplen = filter.snaplen.map_or(0, u32::from);
    Ok(())
}

/// Offsets for the drop tracepoint, and the drop reasons.
fn fill_offsets(config: &mut Config, btf: &Btf) -> Result<HashMap<u32, String>, BtfError> {
    const TRACEPOINT: &str = "kfree_skb";
    if !btf.has_tracepoint(TRACEPOINT) {
        return Err(BtfError::Missing(format!("tracepoint {TRACEPOINT}")));
    }
    // The third argument, the reason, came with Linux 5.17.
    if btf.tracepoint_args(TRACEPOINT).is_some_and(|n| n < 3) {
        return Err(BtfError::Missing(format!("drop reason in tracepoint {TRACEPOINT}")));
    }
    let skb = |member| btf.offset("sk_buff", member);
    config.skb_dev = skb("dev")?;
    config.skb_head = skb("head")?;
    config.skb_len = skb("len")?;
    config.skb_mac = skb("mac_header")?;
    config.skb_network = skb("network_header")?;
    config.skb_tail = skb("tail")?;
    config.skb_protocol = skb("protocol")?;
    config.skb_dst = skb("_skb_refdst")?;
    config.skb_sk = skb("sk")?;
    config.dev_ifindex = btf.offset("net_device", "ifindex")?;
    config.dev_net = btf.offset("net_device", "nd_net.net")?;
    config.net_inum = btf.offset("net", "ns.inum")?;
    config.dst_dev = btf.offset("dst_entry", "dev")?;
    config.sk_net = btf.offset("sock", "__sk_common.skc_net.net")?;
    let reasons = btf.enum_names("skb_drop_reason");
    let code = |wanted: &str| reasons.iter().find(|(_, n)| n.ends_with(wanted)).map(|(c, _)| *c);
    // No reason has this number: nothing is then spared the stack.
    config.reason_no_socket = code("DROP_REASON_NO_SOCKET").unwrap_or(u32::MAX);
    Ok(reasons)
}

pub(super) fn failed<E>(what: &str) -> impl FnOnce(E) -> CaptureError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let what = what.to_owned();
    move |source| CaptureError::Load { what, source: source.into() }
}

/// One line: what the verifier said last, or the error itself.
pub(super) fn program_failed(what: &str, error: ProgramError) -> CaptureError {
    let source: Box<dyn std::error::Error + Send + Sync> = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last = log.lines().rev().find(|l| {
                !l.trim().is_empty()
                    && !["processed ", "stack depth ", "verification time "]
                        .iter()
                        .any(|statistics| l.starts_with(statistics))
            });
            match last {
                Some(line) => format!("{io_error}: {line}").into(),
                None => io_error.into(),
            }
        }
        other => other.into(),
    };
    CaptureError::Load { what: what.to_owned(), source }
}

pub(super) fn load(
    stations: &[Station],
    filter: &Filter,
    options: &Options,
) -> Result<Loaded, CaptureError> {
    if PROGRAMS.is_empty() {
        return Err(CaptureError::NoPrograms);
    }
    let slots = slots(stations)?;
    let mut config = Config::new_zeroed();
    fill_filter(&mut config, filter, stations, &slots)?;
    let mut disabled = Vec::new();
    let btf_path = options.btf.as_deref().unwrap_or(Path::new(btf::VMLINUX));
    let reasons = Btf::from_file(btf_path).and_then(|btf| fill_offsets(&mut config, &btf));

    // The loader and the tracepoint each parse the kernel's type information, a quarter of a second
    // together: side by side.
    let (bpf, btf) = std::thread::scope(|scope| {
        let btf = scope.spawn(aya::Btf::from_sys_fs);
        let bpf = EbpfLoader::new()
            .override_global("CONFIG", config.as_bytes(), true)
            .map_max_entries("EVENTS", options.ring_bytes.next_power_of_two())
            .load(PROGRAMS);
        (bpf, btf.join())
    });
    let mut bpf = bpf.map_err(failed("object"))?;
    let btf = match btf {
        Ok(btf) => btf.map_err(failed("type information")),
        Err(_) => Err(failed("type information")("parsing it panicked")),
    };

    let reasons = match reasons {
        Ok(reasons) => match btf.and_then(|btf| start_drops(&mut bpf, &btf)) {
            Ok(()) => reasons,
            Err(error) => {
                disabled.push(format!("drop tracepoint off: {error}"));
                HashMap::new()
            }
        },
        Err(error) => {
            disabled.push(format!("drop tracepoint off: {error}"));
            HashMap::new()
        }
    };

    {
        let map = bpf.map_mut("ADDRESSES").ok_or_else(|| failed("map ADDRESSES")("missing"))?;
        let mut map: BpfHashMap<_, [u32; 4], u8> =
            map.try_into().map_err(failed("map ADDRESSES"))?;
        for address in &filter.addresses {
            map.insert(words(*address), 1, 0).map_err(failed("map ADDRESSES"))?;
        }
    }
    let mut take = |name: &str| bpf.take_map(name).ok_or_else(|| failed(name)("missing"));
    let lost = PerCpuArray::try_from(take("LOST")?).map_err(failed("map LOST"))?;
    let events = RingBuf::try_from(take("EVENTS")?).map_err(failed("map EVENTS"))?;
    let names: NameSource = Box::new(move || {
        // Read after the programs are loaded, or their own frames are misnamed.
        let symbols = aya::util::kernel_symbols().map(Symbols::from_pairs).unwrap_or_default();
        KernelNames { reasons, symbols }
    });
    Ok(Loaded { bpf, lost, events, slots, disabled, names })
}

fn start_drops(bpf: &mut Ebpf, btf: &aya::Btf) -> Result<(), CaptureError> {
    const NAME: &str = "packet_dropped";
    let program: &mut BtfTracePoint = bpf
        .program_mut(NAME)
        .ok_or_else(|| failed(NAME)("missing"))?
        .try_into()
        .map_err(failed(NAME))?;
    program.load("kfree_skb", btf).map_err(|e| program_failed(NAME, e))?;
    program.attach().map_err(|e| program_failed(NAME, e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_words_in_memory_order() {
        assert_eq!(words("10.0.0.1".parse().unwrap())[0].to_ne_bytes(), [10, 0, 0, 1]);
        let v6 = words("fd00::1".parse().unwrap());
        assert_eq!(v6[0].to_ne_bytes(), [0xfd, 0, 0, 0]);
        assert_eq!(v6[3].to_ne_bytes(), [0, 0, 0, 1]);
    }

    #[test]
    fn too_much_for_the_filter_is_an_error_that_names_it() {
        let pair = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let filter = Filter { pairs: vec![pair; MAX_PAIRS + 1], ..Filter::default() };
        let error =
            fill_filter(&mut Config::new_zeroed(), &filter, &[], &[]).unwrap_err().to_string();
        assert_eq!(error, "9 IPv4 address pairs on the path; the kernel filter holds at most 8");
    }
}
