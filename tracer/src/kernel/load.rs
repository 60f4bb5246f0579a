//! Loading: the filter, the kernel's offsets, the programs and maps, the drop tracepoint.

use std::collections::HashMap;
use std::path::Path;

use aya::maps::{HashMap as BpfHashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Ebpf, EbpfLoader};
use tracer_common::{Config, MAX_SLOTS};
use zerocopy::{FromZeros, IntoBytes};

use super::btf::{self, Btf, BtfError};
use super::filter::{self, Filter};
use super::{CaptureError, Options};
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
    filter::fill(&mut config, filter, stations, &slots)?;
    let tables = filter::Tables::of(filter)?;
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
            .map_max_entries("ADDRESSES", filter::entries(tables.addresses.len()))
            .map_max_entries("ENDS", filter::entries(tables.ends.len()))
            .map_max_entries("PORTS", filter::entries(tables.ports.len()))
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

    put(&mut bpf, "ADDRESSES", &tables.addresses)?;
    put(&mut bpf, "ENDS", &tables.ends)?;
    put(&mut bpf, "PORTS", &tables.ports)?;
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

/// Fills a hash map.
fn put<K: aya::Pod>(bpf: &mut Ebpf, name: &str, entries: &[(K, u8)]) -> Result<(), CaptureError> {
    let map = bpf.map_mut(name).ok_or_else(|| failed(name)("missing"))?;
    let mut map: BpfHashMap<_, K, u8> = map.try_into().map_err(failed(name))?;
    for (key, value) in entries {
        map.insert(key, value, 0).map_err(failed(name))?;
    }
    Ok(())
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
