//! Faults of the lab: what breaks flannel clusters, made and mended on demand.
//!
//! Enters: a [`Fault`] of the data files. Leaves: a lab that has it, the probe that meets it, and
//! what a tracer must say about it. Nothing of this is known to the diagnosis.

mod programs;
mod record;
mod run;
pub mod serve;
mod spec;
mod vars;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::error::LabError;
use super::firewall::find_program;
use super::identity::Identity;
use super::image::Image;
use super::{
    Firewall, KubeProxy, Lab, Result, build, name_flag, need_root, on_worker, servers, some_of,
    state,
};

pub use spec::{Expected, Fault, Frequency, Probe, all, by_name};

use record::{Active, Record};
use vars::Vars;

/// How long the steps that mend a fault may take to show.
const SETTLES: Duration = Duration::from_secs(3);

/// How to make a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// On the other node, in the other direction: A and B change places.
    pub mirror: bool,
    /// In IPv6.
    pub ipv6: bool,
    /// The `podtrace` program, for servers; by default the running one.
    pub program: Option<PathBuf>,
}

/// A trace that meets a fault, and what it must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// `direct`, `mirrored` (source and destination changed places), `reply` (the fault is on the
    /// mirrored side and kills the replies).
    pub label: &'static str,
    /// Source endpoint.
    pub src: String,
    /// Destination endpoint.
    pub dst: String,
    /// Arguments of podtrace.
    pub args: Vec<String>,
    /// What it must say.
    pub expected: Expected,
}

/// A fault that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Commands that were run: target and command.
    pub steps: Vec<(String, String)>,
    /// Traces that meet it.
    pub cases: Vec<Case>,
    /// Proves it, where no packet of the probe dies: targets and commands that succeed.
    pub proof: Vec<(String, String)>,
}

/// What [`Lab::mend`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// Names of the faults that the lab had.
    pub faults: Vec<String>,
    /// Undoing them did not suffice (or could not): everything was built anew, in the same
    /// namespaces with the same addresses.
    pub rebuilt: bool,
}

impl Lab {
    /// Why this lab, or this machine, cannot have a fault; `None` when it can.
    pub fn unavailable(&self, fault: &Fault, options: &Options) -> Option<String> {
        let config = self.config();
        let list = |items: Vec<String>| items.join(" or ");
        if !fault.backends.contains(&config.backend) {
            let wanted = fault.backends.iter().map(ToString::to_string).collect();
            return Some(format!("it needs a lab with --backend {}", list(wanted)));
        }
        if !fault.firewalls.contains(&config.firewall) {
            let wanted = fault.firewalls.iter().map(ToString::to_string).collect();
            return Some(format!("it needs a lab with --firewall {}", list(wanted)));
        }
        let mut rules = fault.inject.iter().chain(&fault.mend);
        if config.kube_proxy != KubeProxy::Iptables && rules.any(|s| s.contains("KUBE-")) {
            return Some("it needs a lab with --kube-proxy iptables".to_owned());
        }
        if !fault.families.contains(&if options.ipv6 { 6 } else { 4 }) {
            return Some(
                if options.ipv6 { "it exists in IPv4 only" } else { "it exists in IPv6 only" }
                    .to_owned(),
            );
        }
        if options.ipv6 && !config.ipv6 {
            return Some("the lab has no IPv6".to_owned());
        }
        if options.mirror && !fault.mirrors {
            return Some("it exists on one side only".to_owned());
        }
        if let Some(parameter) = &fault.writable
            && !self.is_writable(parameter)
        {
            return Some(format!("this kernel has no {parameter} for a single network namespace"));
        }
        let steps = fault.inject.iter();
        let uses = |word: &str| steps.clone().any(|step| step.contains(word));
        let mut programs: Vec<&str> = fault.needs.iter().map(String::as_str).collect();
        for (word, program) in [
            (": nft ", "nft"),
            ("ethtool ", "ethtool"),
            (": tc ", "tc"),
            ("iptables-legacy ", "iptables-legacy"),
            ("bash ", "bash"),
        ] {
            if uses(word) {
                programs.push(program);
            }
        }
        if uses("{iptables}") || uses("{other_iptables}") {
            programs.push(if config.firewall == Firewall::Legacy || uses("{other_iptables}") {
                "iptables-legacy"
            } else {
                "iptables-nft"
            });
        }
        programs
            .into_iter()
            .find(|program| find_program(program).is_none())
            .map(|program| format!("{program} is not installed"))
    }

    /// Whether the parameter is node A's own to set: the kernel shows those of the machine read-only.
    fn is_writable(&self, parameter: &str) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let path = std::path::Path::new("/proc/sys").join(parameter);
        let mode = || std::fs::metadata(path).map(|m| m.permissions().mode() & 0o200 != 0);
        let inside = self.netns("A").ok().and_then(|netns| netns.run(mode).ok());
        matches!(inside, Some(Ok(true)))
    }

    /// Makes a fault, beside those that the lab has.
    ///
    /// # Errors
    /// Without root, when the lab is damaged already, cannot have this fault, or the kernel refuses;
    /// then [`Lab::mend`] removes what was done.
    pub fn inject(&self, fault: &Fault, options: &Options) -> Result<Injected> {
        need_root()?;
        let name = &self.config.name;
        let _lock = state::Lock::take(name)?;
        if let Some(reason) = self.unavailable(fault, options) {
            return Err(LabError::Unavailable { fault: fault.name.clone(), reason });
        }
        let mut record = match Record::load(name)? {
            Some(record) => record,
            None => self.new_record()?,
        };
        let vars =
            Vars { config: &self.config, plan: &self.plan, identity: &record.identity, options };
        let bad = |reason| LabError::Unavailable { fault: fault.name.clone(), reason };
        let steps = |list: &[String]| -> Result<Vec<(String, String)>> {
            list.iter().map(|step| vars.step(step).map_err(bad)).collect()
        };
        let inject = steps(&fault.inject)?;
        let mut mend = steps(&fault.mend)?;
        mend.reverse();
        let servers = self.servers(fault, &vars).map_err(bad)?;
        let proof = steps(&fault.proof)?;
        let cases = cases(fault, &vars).map_err(bad)?;
        // Before the first step: what is half made must be mended too.
        record.active.push(Active { name: fault.name.clone(), mend, processes: Vec::new() });
        record.save(name)?;
        let mut processes = Vec::new();
        let made = self.make(options, &servers, &inject, &mut processes);
        if let Some(active) = record.active.last_mut() {
            active.processes = processes;
        }
        record.save(name)?;
        made?;
        Ok(Injected { steps: inject, cases, proof })
    }

    fn make(
        &self,
        options: &Options,
        servers: &[(String, Vec<String>)],
        inject: &[(String, String)],
        processes: &mut Vec<u32>,
    ) -> Result<()> {
        for (target, arguments) in servers {
            processes.push(run::server(self, options.program.as_deref(), target, arguments)?);
        }
        for (target, command) in inject {
            match command.strip_prefix("& ") {
                Some(command) => processes.push(run::background(self, target, command)?),
                None => run::step(self, target, command)?,
            }
        }
        Ok(())
    }

    /// Targets and arguments of the servers that a fault's probe needs; those of both sides when
    /// both are probed.
    fn servers(
        &self,
        fault: &Fault,
        vars: &Vars<'_>,
    ) -> std::result::Result<Vec<(String, Vec<String>)>, String> {
        let direct = Options { mirror: false, ..vars.options.clone() };
        let mut sides = vec![Vars { options: vars.options, ..*vars }];
        if vars.options.mirror && fault.reply {
            sides.push(Vars { options: &direct, ..*vars });
        }
        let mut servers = Vec::new();
        for side in &sides {
            for server in &fault.probe.serve {
                let (target, arguments) = server.split_once(' ').unwrap_or((server, ""));
                let target = side.target(target).ok_or_else(|| format!("no target {target:?}"))?;
                let arguments = side.fill(arguments)?;
                servers.push((target, arguments.split_whitespace().map(str::to_owned).collect()));
            }
        }
        Ok(servers)
    }

    fn new_record(&self) -> Result<Record> {
        let snapshots = self.snapshots()?;
        let defects = super::verify::defects(&self.config, &self.plan, &snapshots);
        if !defects.is_empty() {
            return Err(LabError::Damaged {
                name: self.config.name.clone(),
                flag: name_flag(&self.config.name),
                defects: some_of(&defects),
            });
        }
        let identity = Identity::of(&self.config, &self.plan, &snapshots);
        Ok(Record { pristine: Image::read(&self.plan)?, identity, active: Vec::new() })
    }

    /// Names of the faults that the lab has.
    ///
    /// # Errors
    /// When their record cannot be read.
    pub fn faults(&self) -> Result<Vec<String>> {
        let record = Record::load(&self.config.name)?;
        Ok(record.map(|r| r.active.into_iter().map(|a| a.name).collect()).unwrap_or_default())
    }

    /// Removes every fault. When that does not give back what was there before the first one, or
    /// the lab is damaged otherwise, builds it anew as [`Lab::resync`] does.
    ///
    /// # Errors
    /// Without root, or when the lab does not come up again.
    pub fn mend(&self) -> Result<Mended> {
        need_root()?;
        let name = &self.config.name;
        let _lock = state::Lock::take(name)?;
        let Some(record) = Record::load(name)? else {
            let rebuilt = !self.defects()?.is_empty();
            if rebuilt {
                self.rebuild(Identity::default())?;
            }
            return Ok(Mended { faults: Vec::new(), rebuilt });
        };
        for active in record.active.iter().rev() {
            run::end(self, &active.processes);
            for (target, command) in &active.mend {
                // Half-made faults fail half-way here too; what counts is the comparison.
                let _ = run::step(self, target, command);
            }
        }
        // A carrier comes back by itself, and a moment later (net/core/link_watch.c).
        let until = Instant::now() + SETTLES;
        let undone = record.active.iter().all(|active| !active.mend.is_empty())
            && loop {
                if Image::read(&self.plan)? == record.pristine {
                    break true;
                }
                if Instant::now() >= until {
                    break false;
                }
            };
        if undone {
            self.settle()?;
        } else {
            self.rebuild(record.identity)?;
        }
        Record::remove(name)?;
        let faults = record.active.into_iter().map(|active| active.name).collect();
        Ok(Mended { faults, rebuilt: !undone })
    }

    /// Builds everything anew in the namespaces that are there, with the same hardware addresses and
    /// names: repairs any damage, whatever did it. Processes go on in their namespaces.
    ///
    /// # Errors
    /// Without root, or when the lab does not come up again.
    pub fn resync(&self) -> Result<()> {
        need_root()?;
        let name = &self.config.name;
        let _lock = state::Lock::take(name)?;
        let record = Record::load(name)?;
        let identity = record.map(|record| record.identity).unwrap_or_default();
        self.rebuild(identity)?;
        Record::remove(name)
    }

    fn rebuild(&self, identity: Identity) -> Result<()> {
        let found = Identity::of(&self.config, &self.plan, &self.snapshots()?);
        let identity = identity.or(found);
        on_worker(async || {
            build::build(&self.config, &self.plan, &identity).await?;
            self.wait_until_ready().await
        })?;
        servers::ensure(self, None)
    }

    /// Forgets what traffic through the fault has taught the nodes.
    fn settle(&self) -> Result<()> {
        on_worker(async || {
            for space in self.spaces()? {
                super::reset::flush_conntrack(&space)?;
            }
            Ok(())
        })?;
        for (target, _) in self.plan.targets() {
            run::settle(self, &target)?;
        }
        on_worker(async || self.wait_until_ready().await)
    }
}

/// The traces that meet a fault.
fn cases(fault: &Fault, vars: &Vars<'_>) -> std::result::Result<Vec<Case>, String> {
    let direct = Options { mirror: false, ..vars.options.clone() };
    let mut cases = Vec::new();
    let label = if vars.options.mirror { "mirrored" } else { "direct" };
    cases.push(case(fault, vars, label, expected(&fault.expected, vars)?)?);
    if vars.options.mirror && fault.reply {
        let mut expected = expected(&fault.expected, vars)?;
        expected.direction = expected.direction.map(opposite);
        let vars = Vars { options: &direct, ..*vars };
        cases.push(case(fault, &vars, "reply", expected)?);
    }
    Ok(cases)
}

fn opposite(direction: crate::model::Direction) -> crate::model::Direction {
    match direction {
        crate::model::Direction::Forward => crate::model::Direction::Reply,
        crate::model::Direction::Reply => crate::model::Direction::Forward,
    }
}

fn expected(expected: &Expected, vars: &Vars<'_>) -> std::result::Result<Expected, String> {
    let mut expected = expected.clone();
    let side = |name: String| vars.target(&name).unwrap_or(name);
    expected.node = expected.node.map(side);
    expected.pod = expected.pod.map(|pod| {
        let target = side(pod);
        target.split_once('.').map_or(target.clone(), |(_, pod)| pod.to_owned())
    });
    for interface in &mut expected.interface {
        *interface = vars.fill(interface)?;
    }
    Ok(expected)
}

fn case(
    fault: &Fault,
    vars: &Vars<'_>,
    label: &'static str,
    expected: Expected,
) -> std::result::Result<Case, String> {
    let probe = &fault.probe;
    let end = |text: &str| -> std::result::Result<String, String> {
        vars.target(text).map_or_else(|| vars.fill(text), Ok)
    };
    let (src, dst) = (end(&probe.src)?, end(&probe.dst)?);
    let mut args = vec!["--src".to_owned(), src.clone(), "--dst".to_owned(), dst.clone()];
    args.push(match probe.passive {
        true => format!("--proto={}", probe.proto),
        false => format!("--probe={}", probe.proto),
    });
    args.push(if vars.options.ipv6 { "-6" } else { "-4" }.to_owned());
    args.extend(["--count".to_owned(), probe.count.to_string()]);
    for (flag, value) in [("--port", &probe.port), ("--size", &probe.size)] {
        if let Some(value) = value {
            args.extend([flag.to_owned(), vars.fill(value)?]);
        }
    }
    for arg in &probe.args {
        args.push(vars.fill(arg)?);
    }
    Ok(Case { label, src, dst, args, expected })
}
