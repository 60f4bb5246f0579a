//! From a recording to one that can be given away.

use std::collections::HashMap;
use std::io;

use serde_json::Value;

use super::Mask;
use crate::decode::RawEvent;
use crate::facts::PathFacts;
use crate::facts::firewall::{AddressRange, NamePattern};
use crate::model::{Alias, End as Endpoint, Names, Observation, Service, Topology};
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
            | Record::Reached(_)
            | Record::Clock(_)
            | Record::Closed(_)
            | Record::Loss(_)) => harmless,
        };
        writer.record(&masked)?;
    }
}

/// Fields whose values are words of the kernel or of podtrace.
const VERBATIM: [&str; 16] = [
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
    "effects",
    "ct_state",
    "point",
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
            kind: end.kind,
            service: end.service.map(|service| Service {
                ip: self.ip(service.ip),
                others: service.others.into_iter().map(|ip| self.ip(ip)).collect(),
                translator: self.name(&service.translator, "node"),
                entry: service.entry.map(|entry| self.text(&entry)),
                port: service.port,
                proto: service.proto,
                target_port: service.target_port,
                leads: service.leads,
                dead: service.dead,
            }),
        }
    }

    fn topology(&mut self, topology: Topology) -> Topology {
        // Every field by name: one that is new must not slip through.
        let Topology {
            src,
            dst,
            mut stations,
            forward,
            reply,
            names,
            vxlan_ports,
            aliases,
            elsewhere,
            machines,
            gaps,
        } = topology;
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
        let Names { ip, mac } = names;
        let ip: HashMap<_, _> =
            ip.into_iter().map(|(ip, name)| (self.ip(ip), self.text(&name))).collect();
        let mac: HashMap<_, _> =
            mac.into_iter().map(|(mac, name)| (self.mac(mac), self.text(&name))).collect();
        Topology {
            src: src.map(|end| self.end(end)),
            dst: dst.map(|end| self.end(end)),
            stations,
            forward,
            reply,
            names: Names { ip, mac },
            vxlan_ports,
            aliases: aliases
                .into_iter()
                .map(|alias| Alias { ip: self.ip(alias.ip), real: self.ip(alias.real), ..alias })
                .collect(),
            elsewhere: elsewhere.into_iter().map(|ip| self.ip(ip)).collect(),
            machines: machines
                .into_iter()
                .map(|(node, machine)| (self.name(&node, "node"), machine))
                .collect(),
            gaps: gaps.iter().map(|gap| self.text(gap)).collect(),
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
    pub(super) fn facts(&mut self, facts: &PathFacts) -> serde_json::Result<PathFacts> {
        for space in &facts.spaces {
            self.names.node(&space.node);
            self.names.pod(space.pod.as_deref());
            self.names.add(&space.facts.name, "netns");
            for link in &space.facts.links {
                self.names.add(&link.name, "if");
                self.interfaces.insert(link.name.clone());
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
            Value::Array(items) => {
                // A pattern would match no stand-in: in its place go the names that it matches.
                let patterns = std::mem::take(items);
                for mut item in patterns {
                    let names = self.matched(&item);
                    if names.is_empty() {
                        self.value(&mut item, key);
                        items.push(item);
                    }
                    items.extend(names);
                }
            }
            Value::Object(fields) => {
                if let Ok(range) =
                    serde_json::from_value::<AddressRange>(Value::Object(fields.clone()))
                    && let Ok(masked) = serde_json::to_value(self.range(range))
                {
                    *value = masked;
                } else if key == "sysctls" {
                    let old = std::mem::take(fields);
                    for (name, mut of) in old {
                        self.value(&mut of, "");
                        fields.insert(self.parameter(&name), of);
                    }
                } else {
                    fields.iter_mut().for_each(|(name, field)| self.value(field, name));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// The stand-ins that a pattern with a wildcard stands for; none for anything else.
    fn matched(&self, value: &Value) -> Vec<Value> {
        if value.get("prefix").is_none() {
            return Vec::new();
        }
        match serde_json::from_value::<NamePattern>(value.clone()) {
            // The one that matches everything still does.
            Ok(pattern) if pattern.prefix && !pattern.name.is_empty() => {
                let matching = self.interfaces.iter().filter(|name| pattern.matches(name));
                let names = matching.filter_map(|name| self.names.get(name).map(str::to_owned));
                names
                    .filter_map(|name| {
                        serde_json::to_value(NamePattern { name, prefix: false }).ok()
                    })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// The name of a kernel parameter, `net.ipv4.conf.eth0/100.rp_filter`: those of one interface
    /// hold its name, with a slash for a full stop.
    fn parameter(&mut self, name: &str) -> String {
        let mut parts: Vec<String> = name.split('.').map(str::to_owned).collect();
        if let [_, _, table, interface, _] = &mut parts[..]
            && matches!(table.as_str(), "conf" | "neigh")
            && !matches!(interface.as_str(), "all" | "default")
        {
            *interface = self.names.add(&interface.replace('/', "."), "if");
        }
        parts.join(".")
    }
}
