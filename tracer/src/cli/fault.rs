//! `podtrace lab fault`, `mend` and `tour`.

use std::io::{self, BufRead, IsTerminal};
use std::process::Command;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::lab::{Name, describe, say};
use crate::lab::fault::{self, Fault, Frequency, Injected, Options};
use crate::lab::{Lab, LabError};

/// Arguments of `podtrace lab fault`.
#[derive(Args, Debug)]
pub struct FaultArgs {
    #[command(flatten)]
    name: Name,
    /// Name of a fault, or `list`
    #[arg(value_name = "NAME|list")]
    fault: String,
    /// On the other node, in the other direction: A and B change places
    #[arg(long)]
    mirror: bool,
    /// IP version that it hits
    #[arg(long, value_name = "4|6", default_value = "4")]
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Family {
    #[value(name = "4")]
    Four,
    #[value(name = "6")]
    Six,
}

impl FaultArgs {
    /// Lists the faults, or makes one.
    ///
    /// # Errors
    /// When there is no such fault, or it cannot be made.
    pub fn run(&self) -> anyhow::Result<u8> {
        if self.fault == "list" {
            return say(&list(Lab::open(&self.name.name).ok().as_ref()));
        }
        let Some(fault) = fault::by_name(&self.fault) else {
            return Err(LabError::Config(unknown(&self.fault)).into());
        };
        let lab = Lab::open(&self.name.name)?;
        let options =
            Options { mirror: self.mirror, ipv6: self.family == Family::Six, program: None };
        let injected = lab.inject(fault, &options)?;
        say(&story(&lab, fault, &injected))
    }
}

fn unknown(name: &str) -> String {
    let names = fault::all().iter().map(|fault| fault.name.as_str());
    let hint = crate::causes::nearest_of(name, names)
        .map_or_else(String::new, |name| format!(": did you mean {name}?"));
    format!("{name:?} is not a fault{hint} (podtrace lab fault list)")
}

/// Every fault, the commonest first; those that the lab cannot have say why.
fn list(lab: Option<&Lab>) -> String {
    let width = fault::all().iter().map(|fault| fault.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let frequencies =
        [Frequency::VeryCommon, Frequency::Common, Frequency::Occasional, Frequency::Rare];
    for frequency in frequencies {
        text.push_str(&format!("{frequency}:\n"));
        for fault in fault::all().iter().filter(|fault| fault.frequency == frequency) {
            text.push_str(&format!("  {:width$}  {}\n", fault.name, fault.title));
            let six = !fault.families.contains(&4);
            let options = Options { ipv6: six, ..Options::default() };
            if let Some(reason) = lab.and_then(|lab| lab.unavailable(fault, &options)) {
                text.push_str(&format!("  {:width$}  (not here: {reason})\n", ""));
            }
        }
    }
    text
}

/// What was done, and how to see it.
fn story(lab: &Lab, fault: &Fault, injected: &Injected) -> String {
    let mut text = format!("{}: {}\n", fault.name, fault.title);
    for (target, command) in &injected.steps {
        text.push_str(&format!("  {target}: {command}\n"));
    }
    let name = &lab.config().name;
    let default = name == crate::lab::DEFAULT_NAME;
    text.push_str("see it with:\n");
    for case in &injected.cases {
        let inventory = if default {
            String::new()
        } else {
            format!(" --inventory {}", lab.inventory_path().display())
        };
        text.push_str(&format!("  podtrace {}{inventory}\n", case.args.join(" ")));
    }
    let flag = if default { String::new() } else { format!(" --name {name}") };
    text.push_str(&format!("mend it with:\n  podtrace lab mend{flag}\n"));
    text
}

/// Mends a lab.
///
/// # Errors
/// When it is not up, or does not come up again.
pub fn mend(name: &str) -> anyhow::Result<u8> {
    let lab = Lab::open(name)?;
    let mended = lab.mend()?;
    let what = match (mended.faults.is_empty(), mended.rebuilt) {
        (true, false) => "had no fault".to_owned(),
        (true, true) => "was damaged and is whole again".to_owned(),
        (false, _) => format!("is whole again, without {}", mended.faults.join(", ")),
    };
    say(&format!("{} {what}\n", describe(name)))
}

/// Arguments of `podtrace lab tour`.
#[derive(Args, Debug)]
pub struct TourArgs {
    #[command(flatten)]
    name: Name,
    /// Through all faults that this lab can have, not the very common ones only
    #[arg(long)]
    all: bool,
}

impl TourArgs {
    /// Goes through the faults: what it is, a trace, mended, the next.
    ///
    /// # Errors
    /// When the lab is not up, or a fault cannot be made or mended.
    pub fn run(&self) -> anyhow::Result<u8> {
        let lab = Lab::open(&self.name.name)?;
        let had = lab.faults()?;
        if !had.is_empty() {
            say(&format!("mending first: {}\n", had.join(", ")))?;
            lab.mend()?;
        }
        let stops: Vec<&Fault> = fault::all()
            .iter()
            .filter(|fault| self.all || fault.frequency == Frequency::VeryCommon)
            .filter(|fault| lab.unavailable(fault, &Options::default()).is_none())
            .collect();
        say(&format!(
            "{} ways in which a flannel network breaks, one after the other. Each is made in {},\n\
             traced, and mended.\n",
            stops.len(),
            describe(&self.name.name)
        ))?;
        for (i, fault) in stops.iter().enumerate() {
            if i > 0 && !next()? {
                break;
            }
            say(&format!("\n[{}/{}] {}: {}\n", i + 1, stops.len(), fault.name, fault.title))?;
            let outcome = self.stop(&lab, fault);
            // Whatever happened: nothing may stay broken.
            lab.mend()?;
            outcome?;
            say("mended\n")?;
        }
        Ok(0)
    }

    fn stop(&self, lab: &Lab, fault: &Fault) -> anyhow::Result<()> {
        let injected = lab.inject(fault, &Options::default())?;
        for (target, command) in &injected.steps {
            say(&format!("  {target}: {command}\n"))?;
        }
        let Some(case) = injected.cases.first() else { return Ok(()) };
        say(&format!("  $ podtrace {}\n\n", case.args.join(" ")))?;
        let program = std::env::current_exe().context("find the own program")?;
        let status = Command::new(program)
            .args(&case.args)
            .arg("--inventory")
            .arg(lab.inventory_path())
            .status()
            .context("start podtrace")?;
        if status.code() == Some(1) {
            anyhow::bail!("podtrace failed");
        }
        if let Some(cause) = fault.expected.cause.first() {
            say(&format!("\n  more about it: podtrace causes {cause}\n"))?;
        }
        Ok(())
    }
}

/// On a terminal waits for Enter; says whether to go on.
fn next() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(true);
    }
    say("\nEnter: the next one; q and Enter: the end ")?;
    let mut line = String::new();
    let length = io::stdin().lock().read_line(&mut line).context("read the terminal")?;
    Ok(length > 0 && !line.trim().eq_ignore_ascii_case("q"))
}
