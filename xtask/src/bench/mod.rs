//! `cargo xtask bench`: what watching costs the traffic that is watched, and how fast recordings are
//! replayed.
//!
//! Rounds of all conditions in random order, each measured for a short time, so that what changes on
//! the machine meanwhile meets all of them. A result is the median over the rounds of the ratio to
//! the bare run of the same round. Nothing here is asserted: numbers of a busy machine are noise,
//! and whether an aim was reached is written down, not tested.

mod alone;
mod document;
mod lab;
mod machine;
mod observer;
mod programs;
mod replay;
mod stats;
mod table;
mod traffic;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::machine::Machine;
use crate::ui::{Progress, seconds, section};
use crate::{podtrace, process, setup};
use lab::Lab;
use observer::{Condition, Observers, Seen};
use programs::Costs;
use replay::Replayed;
use stats::Shuffler;

/// Where the results are kept.
const DOCUMENT: &str = "docs/performance.md";
/// For `--only`: kernel time per program run.
const PROGRAMS: &str = "programs";
/// For `--only`: recordings.
const REPLAY: &str = "replay";
/// No round begins after this.
const ENOUGH: Duration = Duration::from_secs(6 * 60);

/// What `cargo xtask bench` takes.
#[derive(Args, Debug)]
pub struct Options {
    /// A few rounds, for a look; writes no file
    #[arg(long)]
    quick: bool,
    /// Only this (may be repeated); writes no file. `bare` is always measured
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(names()))]
    only: Vec<String>,
    /// Measure this podtrace instead of building one; writes no file
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

fn names() -> Vec<&'static str> {
    let conditions = Condition::ALL.map(Condition::name);
    [PROGRAMS, REPLAY].into_iter().chain(conditions).collect()
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: usize,
    program_rounds: usize,
    /// Of each recording.
    replays: usize,
    /// Of UDP, and of TCP, in each condition and round.
    time: Duration,
    pings: u32,
}

const FULL: Effort = Effort {
    rounds: 25,
    program_rounds: 7,
    replays: 5,
    time: Duration::from_millis(400),
    pings: 4000,
};
const QUICK: Effort = Effort {
    rounds: 5,
    program_rounds: 3,
    replays: 1,
    time: Duration::from_millis(300),
    pings: 2000,
};

/// One condition in one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// UDP packets received per second.
    udp: f64,
    /// Part of the UDP packets sent that was received.
    udp_arrived: f64,
    /// TCP, bits per second.
    tcp: f64,
    /// Round trip, ns.
    ping: f64,
    seen: Seen,
}

/// By condition; the same index is the same round.
type Samples = BTreeMap<Condition, Vec<Sample>>;

/// Everything that was measured.
#[derive(Debug)]
struct Results {
    effort: Effort,
    costs: Option<Costs>,
    replays: Vec<Replayed>,
    samples: Samples,
    took: Duration,
}

/// Builds podtrace optimised, measures, and writes the results down.
///
/// # Errors
/// When something is missing, or a measurement fails. The lab is down in any case.
pub fn run(machine: &Machine, options: &Options) -> Result<()> {
    setup::need_root(machine, "cargo xtask bench")?;
    process::catch_signals()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            section("Build podtrace, optimised");
            podtrace::build(machine, true)?
        }
    };
    let in_part = options.quick || !options.only.is_empty() || options.binary.is_some();
    let effort = if options.quick { QUICK } else { FULL };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|o| o == name);

    let began = Instant::now();
    section("Measure");
    let conditions: Vec<_> = Condition::ALL.into_iter().filter(|c| wanted(c.name())).collect();
    let (mut costs, mut samples) = (None, Samples::new());
    if wanted(PROGRAMS) || !conditions.is_empty() {
        let lab = Lab::up(&binary)?;
        if wanted(PROGRAMS) {
            let progress = Progress::start("kernel time per program run");
            costs = Some(programs::measure(&lab, effort.program_rounds)?);
            progress.done();
        }
        if !conditions.is_empty() {
            samples = measure(&lab, conditions, effort, began)?;
        }
    }
    let replays =
        if wanted(REPLAY) { replay::measure(&binary, effort.replays)? } else { Vec::new() };
    let results = Results { effort, costs, replays, samples, took: began.elapsed() };

    section(&format!("Results, after {}", seconds(results.took)));
    print!("{}", table::plain(&results));
    if in_part {
        println!("\nnot written to {DOCUMENT}: only a full run is");
    } else {
        let path = process::workspace().join(DOCUMENT);
        fs::write(&path, document::write(&results, &machine::describe()))
            .with_context(|| format!("write {}", path.display()))?;
        println!("\nwritten to {DOCUMENT}");
    }
    Ok(())
}

/// Rounds of the conditions.
fn measure(
    lab: &Lab,
    mut conditions: Vec<Condition>,
    effort: Effort,
    began: Instant,
) -> Result<Samples> {
    if !conditions.contains(&Condition::Bare) {
        conditions.push(Condition::Bare);
    }
    let mut progress = Progress::start("traffic");
    let mut shuffler = Shuffler::new();
    let mut samples = Samples::new();
    // The first run of all warms caches and neighbour tables, and counts for nothing.
    sample(lab, Condition::Bare, effort)?;
    for round in 1..=effort.rounds {
        if began.elapsed() > ENOUGH {
            break;
        }
        shuffler.shuffle(&mut conditions);
        for &condition in &conditions {
            progress.last_line(&format!(
                "round {round} of {}: {}",
                effort.rounds,
                condition.name()
            ));
            let sample = sample(lab, condition, effort)
                .with_context(|| format!("{}, round {round}", condition.name()))?;
            samples.entry(condition).or_default().push(sample);
        }
    }
    progress.done();
    Ok(samples)
}

/// All three kinds of traffic under one condition.
fn sample(lab: &Lab, condition: Condition, effort: Effort) -> Result<Sample> {
    let observers = Observers::start(lab, condition)?;
    let ping = traffic::ping(lab, effort.pings)?;
    let udp = traffic::udp(effort.time, None)?;
    let tcp = traffic::tcp(effort.time)?;
    let seen = observers.stop()?;
    process::check_interrupt()?;
    let udp_arrived = udp.received as f64 / udp.sent.max(1) as f64;
    Ok(Sample { udp: udp.rate, udp_arrived, tcp, ping, seen })
}
