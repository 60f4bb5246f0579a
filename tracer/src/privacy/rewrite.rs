//! From a recording to one that can be given away.

use std::collections::HashMap;
use std::io;

use serde_json::Value;

use super::Mask;
use crate::decode::RawEvent;
use crate::facts::PathFacts;
use crate::facts::firewall::AddressRange;
use crate::model::{End as Endpoint, Names, Observation, Topology};
use crate::record::{
    End, Facts, FamilyTopology, Header, Next, Observed, ReadError, Reader, Record, RecordWriter,
    Stage, Target, limits,
};

/// Why a recording cannot be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The other cannot be written.
    #[error("cannot write the recording: {0}")]
    Write(#[from] io::Error),
}

/// Writes a recording with stand-ins for everything that tells of the machines it was made on.
///
/// # Errors
/// When it cannot be read or the other not be written. One that is cut off stays so.
pub fn rewrite(reader: &mut Reader, target: Target) -> Result<(), RewriteError> {
    let mut writer = RecordWriter::new(target)?;
    let mut mask = Mask::default();
    let mut ports = Vec::new();
    loop {
        let number = reader.number() + 1;
        let wrong = |reason: String| ReadError::Record { number, reason };
        let record = match reader.read()? {
            Next::Record(record) => record,
            Next::Finished | Next::Cut(_) => return Ok(writer.finish().map(drop)?),
        };
        let masked = match record {
            Record::Event(event) => {
                let raw = event.event().map_err(|reason| wrong(reason.to_owned()))?;
                limits::event(&raw).map_err(wrong)?;
                writer.event(mask.event(raw, &ports))?;
                continue;
            }
            Record::Header(header) => {
                Record::Header(Box::new(Header { command: Vec::new(), private: true, ..*header }))
            }
            Record::Topology(record) => {
                let FamilyTopology { family, topology } = *record;
                limits::topology(&topology).map_err(wrong)?;
                ports.clone_from(&topology.vxlan_ports);
                mask.learn(&topology);
                let topology = mask.topology(topology);
                Record::Topology(Box::new(FamilyTopology { family, topology }))
            }
            Record::Facts(record) => match mask.facts(&record.facts) {
                Ok(facts) => Record::Facts(Box::new(Facts { when: record.when, facts })),
                // Its words say where it went wrong, and perhaps what stood there.
                Err(_) => Record::Note("facts were left out: they could not be masked".to_owned()),
            },
            Record::Observation(observed) => {
                Record::Observation(Box::new(mask.observed(*observed)))
            }
            Record::Amended(observed) => Record::Amended(Box::new(mask.observed(*observed))),
            Record::Stage(stage) => {
                let Stage { kind, mtu, observed } = *stage;
                let observed = mask.observed(observed);
                Record::Stage(Box::new(Stage { kind, mtu, observed }))
            }
            Record::Note(note) => Record::Note(mask.text(&note)),
            // The verdict is made anew from what is above.
            Record::End(end) => Record::End(Box::new(End { verdict: None, ..*end })),
            // Nobody knows what is in it.
            Record::Unknown(_) => continue,
            harmless @ (Record::Batch(_)
            | Record::Idle(())
            | Record::Closed(_)
            | Record::Loss(_)) => harmless,
        };
        writer.record(&masked)?;
    }
}

/// Fields whose values are words of the kernel or of podtrace.
const VERBATIM: [&str; 13] = [
    "kind",
    "oper_state",
    "state",
    "when",
    "family",
    "backend",
    "hook",
    "policy",
    "mode",
    "direction",
    "proto",
    "tcp_state",
    "action",
];

impl Mask {
    fn event<'a>(&self, event: RawEvent<'a>, ports: &[u16]) -> RawEvent<'a> {
        let l3 = usize::from(event.l3_offset);
        let data = self.frame(event.data.into_owned(), l3, event.protocol, ports);
        // An address in the kernel: only whether it is the same matters.
        RawEvent { skb: self.random(("skb", event.skb)), data: data.into(), ..event }
    }

    fn end(&mut self, end: Endpoint) -> Endpoint {
        Endpoint {
            name: self.text(&end.name),
            node: self.name(&end.node, "node"),
            pod: end.pod.map(|pod| self.name(&pod, "pod")),
            ips: end.ips.into_iter().map(|ip| self.ip(ip)).collect(),
            netns_inum: end.netns_inum,
        }
    }

    fn topology(&mut self, topology: Topology) -> Topology {
        let mut stations = topology.stations;
        for station in &mut stations {
            station.node = self.name(&station.node, "node");
            station.pod = station.pod.take().map(|pod| self.name(&pod, "pod"));
            station.netns = self.name(&station.netns, "netns");
            station.name = self.name(&station.name, "if");
            station.mac = station.mac.map(|mac| self.mac(mac));
            station.addresses.iter_mut().for_each(|net| *net = self.net(*net));
            if let Some(vxlan) = &mut station.vxlan {
                vxlan.local = vxlan.local.map(|ip| self.ip(ip));
            }
        }
        let Names { ip, mac } = topology.names;
        let ip: HashMap<_, _> =
            ip.into_iter().map(|(ip, name)| (self.ip(ip), self.text(&name))).collect();
        let mac: HashMap<_, _> =
            mac.into_iter().map(|(mac, name)| (self.mac(mac), self.text(&name))).collect();
        Topology {
            src: topology.src.map(|end| self.end(end)),
            dst: topology.dst.map(|end| self.end(end)),
            stations,
            names: Names { ip, mac },
            gaps: topology.gaps.iter().map(|gap| self.text(gap)).collect(),
            ..topology
        }
    }

    fn observed(&mut self, observed: Observed) -> Observed {
        let mut observation: Observation = observed.observation;
        for (node, _) in &mut observation.loss {
            *node = self.name(node, "node");
        }
        if let Some(probe) = &mut observation.probe {
            probe.errors.iter_mut().for_each(|(text, _)| *text = self.text(text));
        }
        observation.vanished.iter_mut().for_each(|label| *label = self.text(label));
        observation.disabled.iter_mut().for_each(|line| *line = self.text(line));
        if let Some(ping) = &mut observation.node_ping {
            ping.from = self.name(&ping.from, "node");
            ping.to = self.name(&ping.to, "node");
            ping.src = self.ip(ping.src);
            ping.dst = self.ip(ping.dst);
        }
        Observed { observation, ..observed }
    }

    /// Facts are many and grow: their serialized form is gone through, whatever it holds.
    fn facts(&mut self, facts: &PathFacts) -> serde_json::Result<PathFacts> {
        for space in &facts.spaces {
            self.names.node(&space.node);
            self.names.pod(space.pod.as_deref());
            self.names.add(&space.facts.name, "netns");
            for link in &space.facts.links {
                self.names.add(&link.name, "if");
            }
        }
        for pod in &facts.pods {
            self.names.node(&pod.node);
            self.names.pod(Some(&pod.pod));
        }
        let mut value = serde_json::to_value(facts)?;
        self.value(&mut value, "");
        serde_json::from_value(value)
    }

    fn value(&mut self, value: &mut Value, key: &str) {
        match value {
            Value::String(text) if VERBATIM.contains(&key) => {
                // Words, and only those.
                if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                    *text = self.text(text);
                }
            }
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item, key)),
            Value::Object(fields) => {
                if let Ok(range) =
                    serde_json::from_value::<AddressRange>(Value::Object(fields.clone()))
                    && let Ok(masked) = serde_json::to_value(self.range(range))
                {
                    *value = masked;
                } else if key == "sysctls" {
                    // Names of parameters hold those of interfaces.
                    let old = std::mem::take(fields);
                    for (name, mut of) in old {
                        let parts = name.split('.').map(|part| match self.names.get(part) {
                            Some(standin) => standin.to_owned(),
                            None => part.to_owned(),
                        });
                        let name = parts.collect::<Vec<_>>().join(".");
                        self.value(&mut of, "");
                        fields.insert(name, of);
                    }
                } else {
                    fields.iter_mut().for_each(|(name, field)| self.value(field, name));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
