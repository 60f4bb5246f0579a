//! Arguments of the command line: validation only.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::export::Format;
use crate::kernel::AttachWith;
use crate::probe::Proto;

/// Follow real packets from pod to pod, across both nodes, and see where and why they die.
#[derive(Debug, Parser)]
#[command(
    name = "podtrace",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "\
Endpoints: NODE.POD (A.a), NAMESPACE/POD, POD when unique, or an IP address.
Exit status: 0 delivered, 1 podtrace failed, 2 usage, 3 not delivered or degraded,
4 no matching traffic or inconclusive."
)]
pub struct Cli {
    /// Subcommand; without one, a trace.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Arguments of the trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// What else podtrace can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A recorded trace, as if it ran now
    Replay(super::replay::ReplayArgs),
    /// A recorded trace in another format
    Export(super::export::ExportArgs),
    /// A recorded trace with all that can be made of it, in one file for a bug report
    Bundle(super::bundle::BundleArgs),
    /// A two-node flannel cluster in network namespaces of this machine
    Lab(super::lab::LabArgs),
    /// Check the way between two pods from tables alone, without traffic
    Check(super::check::CheckArgs),
    /// Interfaces on the path with their roles
    Interfaces(super::inspect::InterfacesArgs),
    /// Pods that can be named
    Pods(super::inspect::PodsArgs),
    /// Nodes that can be named
    Nodes(super::inspect::NodesArgs),
    /// What can be wrong: the list of causes, or the page of one
    Causes(super::causes::CausesArgs),
    /// Serve this node to podtrace on other machines, or make certificates for that
    Agent(super::agent::AgentArgs),
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Arguments of a trace.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Where packets come from
    #[arg(long, value_name = "ENDPOINT", required = true)]
    pub src: Option<String>,
    /// Where they should go
    #[arg(long, value_name = "ENDPOINT", required = true)]
    pub dst: Option<String>,
    /// Only this protocol (ICMP errors about the flow are always shown)
    #[arg(long, value_name = "PROTO")]
    pub proto: Option<Proto>,
    /// Only this TCP or UDP port (either end); the destination port of --probe=tcp|udp
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Send test traffic from inside the source pod [PROTO: icmp, tcp, udp; default icmp]
    #[arg(long, value_name = "PROTO", num_args = 0..=1, require_equals = true,
          default_missing_value = "icmp", hide_possible_values = true)]
    pub probe: Option<Proto>,
    /// Packets to send, or to see from the source before ending [default with --probe: 5]
    #[arg(long, short = 'c', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// How long to trace, such as 10s or 2m [default: until done or Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Time between packets of the probe
    #[arg(long, short = 'i', value_name = "TIME", default_value = "200ms",
          value_parser = parse_duration)]
    pub interval: Duration,
    /// Payload bytes of the probe's packets, as ping -s [default: 56, then one packet as large as
    /// the pod's MTU allows]
    #[arg(long, short = 's', value_name = "BYTES",
          value_parser = clap::value_parser!(u16).range(..=65000))]
    pub size: Option<u16>,
    /// Request and reply (the default)
    #[arg(long)]
    pub both: bool,
    /// IPv4 only
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// IPv6 only
    #[arg(short = '6', long = "ipv6")]
    pub ipv6: bool,
    /// Watch it live; the report is printed at the end [q quits, ? shows the keys]
    #[arg(long)]
    pub tui: bool,
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = what_parser())]
    pub format: What,
    /// Write the report to a file instead of standard output (- is standard output)
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Record the trace to a file, for podtrace replay and export (- is standard output)
    #[arg(long, short = 'w', value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Record to several files, each to be replayed by itself: begin another when one has reached this
    /// size, such as 50M or 1GiB (a bare number is in megabytes). FILE becomes FILE-0001, FILE-0002, …
    #[arg(long, short = 'C', value_name = "SIZE", requires = "write", value_parser = parse_size)]
    pub rotate_size: Option<u64>,
    /// Of those files keep only so many, the newest [default: all]
    #[arg(long, short = 'W', value_name = "N", requires = "rotate_size",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub rotate_count: Option<u32>,
    /// Replace addresses and names by stand-ins and drop payload, in the report and in all files (the
    /// screen of --tui shows what is there)
    #[arg(long, conflicts_with = "rotate_size")]
    pub privacy: bool,
    /// Bytes of each packet to keep [default: the headers and 16 bytes of payload]
    #[arg(long, value_name = "BYTES",
          value_parser = clap::value_parser!(u16).range(64..=2048))]
    pub snaplen: Option<u16>,
    /// Inventory of nodes and pods [default: $PODTRACE_INVENTORY, /run/podtrace/inventory.toml,
    /// /etc/podtrace/inventory.toml]
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// Kernel type information [default: /sys/kernel/btf/vmlinux]
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
    /// How to attach to interfaces: tcx (Linux 6.6 and later), clsact, or any: tcx if the kernel has it
    #[arg(long, value_name = "HOW", default_value = "any", hide_possible_values = true,
          value_parser = attach_parser())]
    pub attach: AttachWith,
    /// Size of the event buffer in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub buffer: u32,
    /// No progress line and no warnings
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// How the text looks.
    #[command(flatten)]
    pub look: Look,
}

/// How text looks.
#[derive(Clone, Copy, Debug, Args)]
pub struct Look {
    /// More detail: kernel stacks, every note
    #[arg(long, short = 'v', action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Colour in the text
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorArg,
}

/// What a trace, or a replay of one, prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The report.
    Report(Format),
    /// Every sighting of a packet, one JSON object each: what `export --format jsonl` makes of the
    /// recording.
    Events,
}

/// Parses `--format` and lists its values in help.
pub(super) fn what_parser() -> impl TypedValueParser<Value = What> {
    const EVENTS: &str = "jsonl";
    PossibleValuesParser::new(Format::ALL.map(Format::as_str).into_iter().chain([EVENTS])).try_map(
        |name| match name.as_str() {
            EVENTS => Ok(What::Events),
            report => report.parse().map(What::Report),
        },
    )
}

fn attach_parser() -> impl TypedValueParser<Value = AttachWith> {
    PossibleValuesParser::new(["any", "tcx", "clsact"]).map(|name| match name.as_str() {
        "tcx" => AttachWith::Tcx,
        "clsact" => AttachWith::Clsact,
        _ => AttachWith::Any,
    })
}

/// `10s`, `1m30s`, `200ms`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time such as 500ms, 10s or 2m");
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| bad());
    }
    let signed: jiff::SignedDuration = text.parse().map_err(|_| bad())?;
    Duration::try_from(signed).map_err(|_| bad())
}

/// Least size of a file: what stands at the beginning of each takes half of it.
const SMALLEST_FILE: u64 = 100_000;

/// `50M`, `50MB` (millions of bytes), `50MiB` (times 1024 twice), `1.5G`; a bare number is millions of
/// bytes, as for tcpdump.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a size such as 500k, 50M or 1GiB");
    let letters = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(letters);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "m" | "mb" => 1e6,
        "k" | "kb" => 1e3,
        "g" | "gb" => 1e9,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1024.0 * 1024.0,
        "gi" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(bad()),
    };
    let bytes = (number * factor).round();
    if !(SMALLEST_FILE as f64..1e18).contains(&bytes) {
        return Err(format!("{text:?} is no size of at least {} kB", SMALLEST_FILE / 1000));
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("200ms").unwrap(), Duration::from_millis(200));
        assert_eq!(parse_duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("2").unwrap(), Duration::from_secs(2));
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("10", 10_000_000),
            ("500k", 500_000),
            ("1.5GB", 1_500_000_000),
            ("2MiB", 2 << 20),
            ("1 gib", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "M", "5 apples", "1k", "-3M", "1e9", "1.2.3M", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_are_rotated_only_where_something_is_recorded_openly() {
        let parse = |more: &[&str]| {
            Cli::try_parse_from([&["podtrace", "--src", "A.a", "--dst", "B.b"], more].concat())
        };
        let cli = parse(&["-w", "x", "-C", "1M", "-W", "3"]).unwrap();
        assert_eq!((cli.trace.rotate_size, cli.trace.rotate_count), (Some(1_000_000), Some(3)));
        assert!(parse(&["-C", "1M"]).is_err());
        assert!(parse(&["-w", "x", "-W", "3"]).is_err());
        assert!(parse(&["-w", "x", "-C", "1M", "--privacy"]).is_err());
    }

    #[test]
    fn a_probe_without_value_is_icmp() {
        let cli =
            Cli::try_parse_from(["podtrace", "--src", "A.a", "--dst", "B.b", "--probe"]).unwrap();
        assert_eq!(cli.trace.probe, Some(Proto::Icmp));
    }

    #[test]
    fn a_trace_needs_both_ends() {
        assert!(Cli::try_parse_from(["podtrace", "--src", "A.a"]).is_err());
        assert!(Cli::try_parse_from(["podtrace"]).is_err());
    }
}
