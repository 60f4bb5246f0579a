//! `podtrace lab`: a two-node flannel cluster in network namespaces.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::lab::{Backend, Built, DEFAULT_NAME, Firewall, KubeProxy, Lab, LabConfig, LabError, Up};

/// Exit status of a usage error, as clap's own.
const USAGE: u8 = 2;
/// Exit status when podtrace itself failed.
const FAILED: u8 = 1;
/// Exit status of `lab status` when the lab is not as it was built.
const NOT_AS_BUILT: u8 = 3;

/// Arguments of `podtrace lab`.
#[derive(Args, Debug)]
pub struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand, Debug)]
enum LabCommand {
    /// Bring a lab up; does nothing when it is up and healthy
    Up(Box<UpArgs>),
    /// Take a lab down, ending what still runs in it
    Down {
        #[command(flatten)]
        name: Name,
        /// Every lab of this machine
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Draw the lab as the kernel shows it now; status 3 when it is not as it was built
    Status {
        #[command(flatten)]
        name: Name,
    },
    /// Run a command inside a node (A), a pod (A.a), the switch between the nodes (wire) or the host
    /// behind their gateway (outside)
    Exec {
        #[command(flatten)]
        name: Name,
        /// A, A.a, A.a2, B, B.b, B.b2, wire or outside
        target: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// List the labs of this machine
    List,
    /// Break the lab: `fault list` shows how, `fault NAME` does it
    Fault(super::fault::FaultArgs),
    /// Remove every fault, and repair whatever else is damaged
    Mend {
        #[command(flatten)]
        name: Name,
    },
    /// Break and mend the lab in the ways that are very common, with a trace of each
    Tour(super::fault::TourArgs),
    /// Make this machine one node of a lab that spans two machines
    #[command(hide = true)]
    Node {
        /// A or B
        #[arg(long, value_name = "NAME")]
        node: String,
        #[command(flatten)]
        lab: Box<UpArgs>,
    },
    /// Run a server for the faults that need one
    #[command(hide = true, subcommand)]
    Serve(crate::lab::fault::serve::Server),
}

/// `--name`.
#[derive(Args, Debug)]
pub(super) struct Name {
    /// Which lab, where there are several
    #[arg(long, default_value = DEFAULT_NAME, hide_default_value = true)]
    pub(super) name: String,
}

#[derive(Args, Debug)]
struct UpArgs {
    #[command(flatten)]
    name: Name,
    /// Replace what is there, whatever it is
    #[arg(long)]
    force: bool,
    /// How packets get from node to node
    #[arg(long, default_value_t = LabConfig::default().backend)]
    backend: Backend,
    /// Which iptables installs the rules of flannel and kube-proxy
    #[arg(long, default_value_t = LabConfig::default().firewall)]
    firewall: Firewall,
    /// Mode in which kube-proxy translates services
    #[arg(long, value_name = "MODE", default_value_t = LabConfig::default().kube_proxy)]
    kube_proxy: KubeProxy,
    /// IPv4 only
    #[arg(long)]
    no_ipv6: bool,
    /// Name of the pods' bridge
    #[arg(long, value_name = "IFNAME", default_value_t = LabConfig::default().bridge_name)]
    bridge_name: String,
    /// Name of the VXLAN device; its IPv6 sibling's is derived (flannel-v6.1)
    #[arg(long, value_name = "IFNAME", default_value_t = LabConfig::default().vxlan_name)]
    vxlan_name: String,
    /// Name of the nodes' interface to the wire
    #[arg(long, value_name = "IFNAME", default_value_t = LabConfig::default().physical_name)]
    physical_name: String,
    /// UDP port of the VXLAN devices
    #[arg(long, value_name = "PORT", default_value_t = LabConfig::default().vxlan_port)]
    vxlan_port: u16,
    /// VXLAN network identifier
    #[arg(long, default_value_t = LabConfig::default().vni)]
    vni: u32,
    /// IPv4 network of all pods; each node gets a /24 of it
    #[arg(long, value_name = "CIDR", default_value_t = LabConfig::default().pod_cidr)]
    pod_cidr: Ipv4Net,
    /// IPv6 network of all pods; each node gets a /64 of it
    #[arg(long, value_name = "CIDR", default_value_t = LabConfig::default().pod_cidr_v6)]
    pod_cidr_v6: Ipv6Net,
    /// IPv4 network between the nodes
    #[arg(long, value_name = "CIDR", default_value_t = LabConfig::default().wire_cidr)]
    wire_cidr: Ipv4Net,
    /// IPv6 network between the nodes
    #[arg(long, value_name = "CIDR", default_value_t = LabConfig::default().wire_cidr_v6)]
    wire_cidr_v6: Ipv6Net,
    /// MTU of the wire, bytes; pods get 50 less with vxlan
    #[arg(long, value_name = "BYTES", default_value_t = LabConfig::default().wire_mtu)]
    wire_mtu: u32,
    /// ClusterIP of the service in front of pod b; the other services are in the same /24
    #[arg(long, value_name = "IP", default_value_t = LabConfig::default().service_ip)]
    service_ip: Ipv4Addr,
    /// IPv6 ClusterIP of that service; the others are in the same /112
    #[arg(long, value_name = "IP", default_value_t = LabConfig::default().service_ip_v6)]
    service_ip_v6: Ipv6Addr,
    /// TCP port of the service
    #[arg(long, value_name = "PORT", default_value_t = LabConfig::default().service_port)]
    service_port: u16,
    /// TCP port of pod b behind the service
    #[arg(long, value_name = "PORT", default_value_t = LabConfig::default().target_port)]
    target_port: u16,
}

impl UpArgs {
    fn config(&self) -> LabConfig {
        LabConfig {
            name: self.name.name.clone(),
            backend: self.backend,
            firewall: self.firewall,
            kube_proxy: self.kube_proxy,
            ipv6: !self.no_ipv6,
            bridge_name: self.bridge_name.clone(),
            vxlan_name: self.vxlan_name.clone(),
            physical_name: self.physical_name.clone(),
            vxlan_port: self.vxlan_port,
            vni: self.vni,
            pod_cidr: self.pod_cidr,
            pod_cidr_v6: self.pod_cidr_v6,
            wire_cidr: self.wire_cidr,
            wire_cidr_v6: self.wire_cidr_v6,
            wire_mtu: self.wire_mtu,
            service_ip: self.service_ip,
            service_ip_v6: self.service_ip_v6,
            service_port: self.service_port,
            target_port: self.target_port,
        }
    }
}

/// Runs `podtrace lab`; returns the exit status. `lab exec` becomes the command that it runs and
/// does not return.
///
/// # Errors
/// When the lab cannot do what was asked; parameters that no lab can have are reported here and
/// give status 2.
pub fn run(args: LabArgs) -> anyhow::Result<u8> {
    let result = match args.command {
        LabCommand::Up(args) => up(&args),
        LabCommand::Down { all: true, .. } => down_all(),
        LabCommand::Down { name, .. } => down(&name.name),
        LabCommand::Status { name } => status(&name.name),
        LabCommand::Exec { name, target, command } => exec(&name.name, &target, &command),
        LabCommand::List => list(),
        LabCommand::Fault(args) => args.run(),
        LabCommand::Mend { name } => super::fault::mend(&name.name),
        LabCommand::Tour(args) => args.run(),
        LabCommand::Node { node, lab } => become_node(&lab, &node),
        LabCommand::Serve(server) => return server.run().map(|()| 0).map_err(Into::into),
    };
    match result {
        Err(error) if is_usage(&error) => {
            eprintln!("podtrace: {error:#}");
            Ok(USAGE)
        }
        result => result,
    }
}

fn is_usage(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(LabError::Config(_) | LabError::Target { .. } | LabError::Unavailable { .. })
    )
}

fn up(args: &UpArgs) -> anyhow::Result<u8> {
    let (lab, built) = Lab::up_with(&args.config(), &Up { force: args.force, program: None })?;
    let name = describe(&lab.config().name);
    let what = match built {
        Built::New => "is up",
        Built::Already => "was up already",
        Built::Repaired => "was half-built or damaged and has been built anew",
        Built::Replaced => "has been built anew",
    };
    say(&format!("{name} {what}: inventory {}\n", lab.inventory_path().display()))
}

fn become_node(args: &UpArgs, node: &str) -> anyhow::Result<u8> {
    let inventory = Lab::become_node(&args.config(), node)?;
    say(&format!("this machine is node {node}: inventory {}\n", inventory.display()))
}

fn down(name: &str) -> anyhow::Result<u8> {
    let removed = Lab::down(name)?;
    let processes = match removed.processes {
        0 => String::new(),
        1 => ", with a process that still ran in it".to_owned(),
        n => format!(", with {n} processes that still ran in it"),
    };
    let what = if removed.existed { "is down" } else { "was not up" };
    say(&format!("{} {what}{processes}\n", describe(name)))
}

fn down_all() -> anyhow::Result<u8> {
    let labs = Lab::list()?;
    if labs.is_empty() {
        return say("no lab is up\n");
    }
    let mut status = 0;
    for lab in labs {
        // One that resists must not keep the others.
        if let Err(error) = down(&lab.name) {
            eprintln!("podtrace: {error:#}");
            status = FAILED;
        }
    }
    Ok(status)
}

fn status(name: &str) -> anyhow::Result<u8> {
    let lab = Lab::open(name)?;
    let picture = lab.picture()?;
    say(&picture.text)?;
    Ok(if picture.healthy { 0 } else { NOT_AS_BUILT })
}

fn exec(name: &str, target: &str, command: &[OsString]) -> anyhow::Result<u8> {
    Err(Lab::open(name)?.replace_process(target, command).into())
}

fn list() -> anyhow::Result<u8> {
    let mut text = String::new();
    for lab in Lab::list()? {
        let state = match &lab.config {
            Some(config) if lab.complete => {
                let versions = if config.ipv6 { "IPv4 + IPv6" } else { "IPv4" };
                format!(
                    "{}, {versions}, firewall {}, kube-proxy {}",
                    config.backend, config.firewall, config.kube_proxy
                )
            }
            _ => "half-built".to_owned(),
        };
        text.push_str(&format!("{}: {state}\n", lab.name));
    }
    say(&text)
}

pub(super) fn describe(name: &str) -> String {
    if name == DEFAULT_NAME { "the lab".to_owned() } else { format!("lab {name}") }
}

/// Writes to standard output; a reader that has gone away is no failure.
pub(super) fn say(text: &str) -> anyhow::Result<u8> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        lab: LabArgs,
    }

    fn parse(words: &[&str]) -> LabCommand {
        let all = std::iter::once("lab").chain(words.iter().copied());
        Cli::try_parse_from(all).expect("valid arguments").lab.command
    }

    #[test]
    fn flags_default_to_the_default_lab() {
        let LabCommand::Up(args) = parse(&["up"]) else { panic!("up") };
        assert_eq!(args.config(), LabConfig::default());
    }

    #[test]
    fn flags_reach_the_parameters() {
        let LabCommand::Up(args) = parse(&[
            "up",
            "--name=t1",
            "--backend=host-gw",
            "--firewall=legacy",
            "--kube-proxy=nftables",
            "--no-ipv6",
            "--physical-name=bond0",
            "--vxlan-port=4789",
            "--pod-cidr=10.244.0.0/16",
        ]) else {
            panic!("up")
        };
        let config = args.config();
        assert_eq!((config.name.as_str(), config.ipv6), ("t1", false));
        assert_eq!((config.backend, config.firewall), (Backend::HostGw, Firewall::Legacy));
        assert_eq!(config.kube_proxy, KubeProxy::Nftables);
        assert_eq!((config.physical_name.as_str(), config.vxlan_port), ("bond0", 4789));
        assert_eq!(config.pod_cidr.to_string(), "10.244.0.0/16");
    }

    #[test]
    fn exec_passes_the_command_on_untouched() {
        let LabCommand::Exec { name, target, command } =
            parse(&["exec", "--name", "t1", "A.a", "--", "ping", "-c1", "--", "x"])
        else {
            panic!("exec")
        };
        assert_eq!((name.name.as_str(), target.as_str()), ("t1", "A.a"));
        assert_eq!(command, ["ping", "-c1", "--", "x"]);
        let LabCommand::Exec { command, .. } = parse(&["exec", "wire", "bridge", "-d", "link"])
        else {
            panic!("exec")
        };
        assert_eq!(command, ["bridge", "-d", "link"]);
    }

    #[test]
    fn one_lab_or_all() {
        assert!(Cli::try_parse_from(["lab", "down", "--all", "--name", "x"]).is_err());
    }
}
