//! Batches as the kernel gives them, recorded.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use etherparse::PacketBuilder;
use tracer_common::{HOOK_EGRESS, HOOK_INGRESS, HopHeader, KIND_HOP};
use zerocopy::{FromZeros, IntoBytes};

use crate::correlate::testing::{NODE_A, NODE_B, POD_A, POD_B, WIRE, cross_node};
use crate::decode::{Batch, KernelNames, NameSource, Unpacker};
use crate::expect::Family;
use crate::kernel::HeldBatch;
use crate::model::{Hook, Observation, Role, Topology};
use crate::node::Events;
use crate::record::*;

const SLOTS: [u32; 5] = [POD_A, NODE_A, WIRE, NODE_B, POD_B];

/// Pings from pod to pod, one after the other.
pub(crate) struct Tape {
    pub topology: Arc<Topology>,
    pub batches: Vec<Arc<Batch>>,
    pub armed_ns: u64,
    pub closed_ns: u64,
}

/// An echo request, wrapped where it is on its way between the nodes.
fn ping(seq: u16, wrapped: bool) -> Vec<u8> {
    let (mut inner, mut outer) = (Vec::new(), Vec::new());
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 10, 0, 2], [10, 10, 1, 2], 64)
        .icmpv4_echo_request(42, seq)
        .write(&mut inner, b"the secret word: xyzzy")
        .unwrap();
    if !wrapped {
        return inner;
    }
    let mut payload = vec![8, 0, 0, 0, 0, 0, 1, 0];
    payload.extend(inner);
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 4], [2, 0, 0, 0, 0, 7])
        .ipv4([192, 168, 10, 11], [192, 168, 10, 12], 64)
        .udp(50_000, 8472)
        .write(&mut outer, &payload)
        .unwrap();
    outer
}

impl Tape {
    pub(crate) fn of_pings(count: u64) -> Self {
        let topology = cross_node();
        let (armed_ns, mut time_ns) = (1_000, 10_000_000);
        let mut batches = Vec::new();
        for seq in 0..count {
            let mut batch = Batch::default();
            for point in &topology.forward {
                let station = topology.station(point.station);
                let data = ping(seq as u16, matches!(station.role, Role::Physical | Role::Wire));
                let slot = SLOTS.iter().position(|inum| *inum == station.netns_inum).unwrap();
                let header = HopHeader {
                    time_ns,
                    skb: 0xffff_8880_0000_1000 + seq,
                    ifindex: station.ifindex,
                    len: data.len() as u32,
                    caplen: data.len() as u16,
                    protocol: 0x0800_u16.to_be(),
                    kind: KIND_HOP,
                    hook: if point.hook == Hook::Egress { HOOK_EGRESS } else { HOOK_INGRESS },
                    slot: slot as u8,
                    l3_offset: 14,
                    ..HopHeader::new_zeroed()
                };
                batch.push(&[header.as_bytes(), &data].concat());
                time_ns += 1_000;
            }
            batches.push(Arc::new(batch));
            time_ns += 1_000_000_000;
        }
        let topology = Arc::new(topology);
        Self { topology, batches, armed_ns, closed_ns: time_ns }
    }

    /// A batch as a node of this machine hands it out.
    pub(crate) fn events(&self, batch: &Batch) -> Arc<Events> {
        let unpacker = Arc::new(Unpacker::new(self.slots(), self.names()));
        Arc::new(Events::Raw { batch: HeldBatch::from(batch.clone()), unpacker })
    }

    pub(crate) fn slots(&self) -> Vec<u32> {
        SLOTS.to_vec()
    }

    pub(crate) fn names(&self) -> NameSource {
        Box::new(KernelNames::default)
    }

    pub(crate) fn observation(&self) -> Observation {
        Observation {
            armed_ns: self.armed_ns,
            closed_ns: Some(self.closed_ns),
            end_ns: self.closed_ns + 1,
            ..Observation::default()
        }
    }

    /// A recorder that has been told what comes before the first event.
    pub(crate) fn start(&self, out: &Shared) -> Recorder {
        self.start_at(Target::new(out.clone()))
    }

    /// The same, elsewhere.
    pub(crate) fn start_at(&self, target: Target) -> Recorder {
        let header = Header {
            schema: SCHEMA.into(),
            tool: "9.8.7".into(),
            started: "2026-01-02T03:04:05Z".into(),
            command: vec!["podtrace".into(), "--src".into(), "A.a".into()],
            machines: vec![Machine { kernel: "6.18.0".into(), ..Machine::default() }],
            part: 1,
            private: false,
        };
        let mut recorder = Recorder::start(target, header).unwrap();
        let topology = self.topology.as_ref().clone();
        let topology = FamilyTopology { family: Family::V4, topology };
        recorder.record(Record::Topology(Box::new(topology)));
        let observation = Observation { armed_ns: self.armed_ns, ..Observation::default() };
        let observed = Observed { duration_ns: 0, observation };
        recorder.record(Record::Observation(Box::new(observed)));
        recorder
    }

    /// Tells it what comes after the last.
    pub(crate) fn end(&self, recorder: &mut Recorder) {
        recorder.closed(self.closed_ns);
        let observed = Observed { duration_ns: 5, observation: self.observation() };
        let stage = Stage { kind: StageKind::Main, mtu: None, observed };
        recorder.record(Record::Stage(Box::new(stage)));
        let unrecorded = recorder.unrecorded();
        recorder.record(Record::End(Box::new(End { unrecorded, verdict: None, continued: false })));
    }

    /// The whole recording.
    pub(crate) fn record(&self) -> Vec<u8> {
        let out = Shared::default();
        let mut recorder = self.start(&out);
        for batch in &self.batches {
            recorder.batch(&self.events(batch));
            recorder.idle();
        }
        self.end(&mut recorder);
        let summary = recorder.finish().unwrap();
        let bytes = out.bytes();
        assert_eq!(summary.bytes, bytes.len() as u64);
        bytes
    }

    /// Its lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let plain = zstd::decode_all(self.record().as_slice()).unwrap();
        String::from_utf8(plain).unwrap().lines().map(str::to_owned).collect()
    }
}

/// Replays a file.
pub(crate) fn play(file: &[u8]) -> Result<Replay, ReadError> {
    replay(&mut Reader::new(Box::new(io::Cursor::new(file.to_vec())))?)
}

/// A file in memory that can be looked into; full, if need be.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    state: Arc<Mutex<(Vec<u8>, bool)>>,
}

impl Shared {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().0.clone()
    }

    pub(crate) fn fill(&self) {
        self.state.lock().unwrap().1 = true;
    }

    /// Nothing can be written as long as the result lives.
    pub(crate) fn block(&self) -> MutexGuard<'_, (Vec<u8>, bool)> {
        self.state.lock().unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap();
        if state.1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
