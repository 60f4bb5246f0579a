//! `podtrace check`: the audit of the expected path, without any traffic.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::args::Look;
use super::output::{self, Sink};
use crate::endpoint;
use crate::expect::audit::{self, Audit};
use crate::expect::walk::{FlowSpec, walk};
use crate::expect::{self, Family};
use crate::export::text;
use crate::facts::{self, PathFacts};
use crate::inventory::Inventory;
use crate::model::Direction;
use crate::node::Nodes;
use crate::probe::Proto;
use crate::service;

/// Bytes of an IP header without options, and of the header of TCP, UDP and ICMP echo.
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const TCP_HEADER: u32 = 20;
const SHORT_HEADER: u32 = 8;
/// The client's port, of which rules seldom say anything.
const EPHEMERAL: u16 = 49_999;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Steps, node by node.
    #[default]
    Text,
    /// JSON, schema `podtrace.check/1`.
    Json,
}

/// Check the way between two pods from the nodes' tables alone, without sending anything.
///
/// Walks the path of a request and of its reply step by step, with the table entry that decides
/// each step. Exit status: 0 sound (every step was decided from something read), 3 broken or impaired,
/// 4 unclear (it depends on what is not known; what to read or install is said).
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Where packets start: NODE.POD, NAMESPACE/POD, POD or an IP address
    #[arg(long, value_name = "ENDPOINT")]
    src: String,
    /// Where they go
    #[arg(long, value_name = "ENDPOINT")]
    dst: String,
    /// Protocol of the packet [default: that of the service's port, else icmp]
    #[arg(long, value_name = "PROTO")]
    proto: Option<Proto>,
    /// TCP or UDP port that it goes to
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Payload bytes, as ping -s
    #[arg(long, short = 's', value_name = "BYTES", default_value_t = 56)]
    size: u16,
    /// IPv4 only
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only
    #[arg(short = '6', long = "ipv6")]
    ipv6: bool,
    /// Inventory of nodes and pods [default: $PODTRACE_INVENTORY, then
    /// /run/podtrace/inventory.toml, then /etc/podtrace/inventory.toml]
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write to a file instead of standard output (- is standard output)
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    look: Look,
}

impl CheckArgs {
    /// Runs the command; the exit status.
    ///
    /// # Errors
    /// When an endpoint cannot be found or a namespace not read.
    pub fn run(&self) -> anyhow::Result<u8> {
        let sink = Sink::open(self.output.as_deref())?;
        let audit = self.audit()?;
        let text = match self.format {
            Format::Text => text::audit(&audit, &output::options(self.look, &sink)),
            Format::Json => {
                let json = serde_json::to_string_pretty(&audit).context("cannot write JSON")?;
                json + "\n"
            }
        };
        sink.write(&text)?;
        Ok(audit.verdict.exit_code())
    }

    fn audit(&self) -> anyhow::Result<Audit> {
        let nodes = Nodes::new(Inventory::load(self.inventory.as_deref())?);
        let mut src = endpoint::source(&self.src, &self.dst, &nodes)?;
        let of = service::Flow { proto: self.protocol(), port: self.port, probe: true };
        let mut dst = service::destination(&self.dst, &src, of, &nodes)?;
        endpoint::face(&mut src, &mut dst.resolved);
        endpoint::distinct(&src, &dst.resolved)?;
        let family = match (self.ipv4, self.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::common(&src.end, &dst.resolved.end)?,
        };
        let facts = facts::collect(&nodes, &src, &dst)?.facts;
        let ways = facts.destinations().map(|end| {
            let facts = facts.towards(end);
            Ok((end.clone(), self.audit_way(&facts, family)?))
        });
        let ways = ways.collect::<anyhow::Result<Vec<_>>>()?;
        audit::of_backends(ways).context("there is no way to check")
    }

    /// The way to one end.
    fn audit_way(&self, facts: &PathFacts, family: Family) -> anyhow::Result<Audit> {
        let topology = expect::topology(facts, family)?;
        let mut flow = self.flow(family);
        let service = topology.dst.as_ref().and_then(|e| e.service.as_ref());
        if let Some(service) = service {
            // What is walked is the way of the translated packet.
            flow.proto = service.proto.unwrap_or(flow.proto);
            flow.dport = service.target_port.or(service.port).or(flow.dport);
        }
        let walks = [Direction::Forward, Direction::Reply]
            .map(|direction| walk(facts, &topology, &flow, direction));
        Ok(audit::audit(facts, &topology, &flow, &walks))
    }

    /// IP protocol that decides on a translation, where one was asked for.
    fn protocol(&self) -> Option<u8> {
        self.proto.map(Proto::number)
    }

    fn flow(&self, family: Family) -> FlowSpec {
        let header = if family == Family::V6 { IPV6_HEADER } else { IPV4_HEADER };
        let asked = self.proto.unwrap_or(Proto::Icmp);
        let (proto, inner) = match (asked, family) {
            (Proto::Icmp, Family::V4) => (1, SHORT_HEADER),
            (Proto::Icmp, Family::V6) => (58, SHORT_HEADER),
            (Proto::Tcp, _) => (6, TCP_HEADER),
            (Proto::Udp, _) => (17, SHORT_HEADER),
        };
        let size = header + inner + u32::from(self.size);
        // Clients take one of those that are theirs to take (IANA's dynamic ports, RFC 6335).
        let sport = (asked != Proto::Icmp).then_some(EPHEMERAL);
        FlowSpec { sport, dport: self.port, size, ..FlowSpec::small(family, proto) }
    }
}
