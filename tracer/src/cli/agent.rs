//! `podtrace agent`: serve this node to collectors. `podtrace agent init`: the certificates for it.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::args::parse_duration;
use super::{Usage, signals};
use crate::agent::address::{Listen, PORT, Target};
use crate::agent::limits::Limits;
use crate::agent::pki::{self, Validity};
use crate::agent::server::{Factory, Log, Server, Settings};
use crate::agent::tls::{AGENT_FOLDER, COLLECTOR_FOLDER, Credentials};
use crate::agent::{Speaks, capabilities};
use crate::node::{LocalNode, Node};

/// Arguments of `podtrace agent`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
The node is the network namespace that the agent runs in. An agent holds only the capabilities that
it needs, and says which is missing. See docs/agent.md."
)]
pub struct AgentArgs {
    /// Subcommand; without one, serve.
    #[command(subcommand)]
    command: Option<AgentCommand>,
    /// What to serve.
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Make certificates: an authority, one for each node's agent, one for the collector
    Init(InitArgs),
}

/// Arguments of an agent.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Where to listen: ADDRESS:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", required = true)]
    listen: Option<Listen>,
    /// Folder with ca.pem, cert.pem and key.pem [default: /etc/podtrace/agent]
    #[arg(long, value_name = "FOLDER", conflicts_with = "plaintext")]
    tls: Option<PathBuf>,
    /// No TLS: only for loopback addresses and Unix sockets
    #[arg(long)]
    plaintext: bool,
    /// Traces at the same time
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    max_traces: u16,
    /// How long a trace may take
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    max_duration: Duration,
    /// Events per second that a trace may send; more are dropped and counted
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    max_rate: u64,
    /// Do not say what collectors do
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// Arguments of `podtrace agent init`.
#[derive(Debug, Args)]
struct InitArgs {
    /// Nodes and the addresses or host names at which collectors reach them
    #[arg(value_name = "NODE=ADDRESS[,ADDRESS…]", required = true, value_parser = parse_node)]
    nodes: Vec<(String, Vec<String>)>,
    /// Folder to make them in; an authority that is there already signs
    #[arg(long, value_name = "FOLDER", default_value = "podtrace-pki")]
    dir: PathBuf,
    /// How long the certificates are good for
    #[arg(long, value_name = "DAYS", default_value_t = 365,
          value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
}

/// `A=192.0.2.1,a.example`
fn parse_node(text: &str) -> Result<(String, Vec<String>), String> {
    let bad = || format!("{text:?} is not NODE=ADDRESS, such as A=192.0.2.1");
    let (node, at) = text.split_once('=').ok_or_else(bad)?;
    // The name becomes a folder's.
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if node.is_empty() || node.starts_with('.') || !node.chars().all(plain) {
        return Err(format!("{node:?} is no name of a node (letters, digits, - _ .)"));
    }
    let at: Vec<String> = at.split(',').map(str::to_owned).collect();
    for address in &at {
        let wrapped = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        format!("https://{wrapped}").parse::<Target>().map_err(|_| bad())?;
    }
    Ok((node.to_owned(), at))
}

impl AgentArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When it cannot listen, certificates are missing, or the kernel does not allow what it needs.
    pub fn run(self) -> Result<u8> {
        match self.command {
            Some(AgentCommand::Init(args)) => init(&args),
            None => serve(&self.serve),
        }
    }
}

fn serve(args: &ServeArgs) -> Result<u8> {
    let Some(listen) = &args.listen else {
        return Err(Usage("--listen ADDRESS:PORT or unix:PATH is needed".into()).into());
    };
    if args.plaintext && !listen.is_local() {
        let message =
            format!("--plaintext is only for loopback and Unix sockets, not for {listen}");
        return Err(Usage(message).into());
    }
    if let (Listen::Unix(_), false) = (listen, args.plaintext) {
        return Err(Usage("a Unix socket is served in plain text: add --plaintext".into()).into());
    }
    let lacking = capabilities::check().map_err(anyhow::Error::msg)?;
    for line in lacking.iter().filter(|_| !args.quiet) {
        eprintln!("podtrace: {line}");
    }
    let tls = if args.plaintext {
        None
    } else {
        let folder = args.tls.clone().unwrap_or_else(|| AGENT_FOLDER.into());
        Some(Credentials::read(&folder)?.server()?)
    };
    // Before there is any other thread: capabilities are a thread's.
    capabilities::give_up_others().context("cannot give up capabilities")?;
    let stop = signals::stop_flag()?;
    let limits = Limits {
        traces: args.max_traces.into(),
        duration: args.max_duration,
        rate: args.max_rate,
        ..Limits::default()
    };
    let quiet = args.quiet;
    let log: Log = Arc::new(move |line| {
        if !quiet {
            // Whoever reads may have gone.
            let _ = writeln!(std::io::stderr(), "podtrace: {line}");
        }
    });
    let settings = Settings { listen: listen.clone(), tls, limits, speaks: Speaks::default(), log };
    let factory: Factory = Arc::new(|| Ok(Arc::new(LocalNode::serving()) as Arc<dyn Node>));
    let server =
        Server::start(settings, factory).with_context(|| format!("cannot serve at {listen}"))?;
    // Even if asked to be quiet: whoever has started it waits for that.
    println!("podtrace agent: listening at {}", server.listen());
    std::io::stdout().flush()?;
    while !stop.load(Relaxed) {
        anyhow::ensure!(server.is_running(), "the agent has ended");
        std::thread::sleep(Duration::from_millis(50));
    }
    server.stop();
    Ok(0)
}

fn init(args: &InitArgs) -> Result<u8> {
    let made = pki::init(&args.dir, &args.nodes, Validity::days(args.days))?;
    let mut out = std::io::stdout();
    if made.new_authority {
        writeln!(
            out,
            "{} signs certificates: keep it where nobody else can read it",
            args.dir.join("ca").display()
        )?;
    }
    if let Some(folder) = &made.collector {
        writeln!(out, "{}: to {COLLECTOR_FOLDER} on the machine that traces", folder.display())?;
    }
    for ((name, _), folder) in args.nodes.iter().zip(&made.nodes) {
        writeln!(out, "{}: to {AGENT_FOLDER} on node {name}", folder.display())?;
    }
    writeln!(out, "On each node: podtrace agent --listen 0.0.0.0:{PORT}")?;
    writeln!(out, "For the inventory of the machine that traces:\n")?;
    for (name, at) in &args.nodes {
        let host = at.first().map_or("", String::as_str);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        writeln!(out, "[[node]]\nname = {name:?}\nagent = \"https://{host}:{PORT}\"\n")?;
    }
    if made.new_authority && out.is_terminal() {
        writeln!(out, "See docs/agent.md for the rest.")?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_names_and_addresses() {
        let (node, at) = parse_node("A=192.0.2.1,2001:db8::1,a.example").unwrap();
        assert_eq!(node, "A");
        assert_eq!(at, ["192.0.2.1", "2001:db8::1", "a.example"]);
        for bad in ["A", "=192.0.2.1", "A=", "../x=192.0.2.1", "A=a b", ".=192.0.2.1", "a/b=c"] {
            assert!(parse_node(bad).is_err(), "{bad}");
        }
    }
}
