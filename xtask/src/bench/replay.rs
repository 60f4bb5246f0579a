//! How fast recordings of growing length are replayed, in how much memory, and how large they are.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::stats::median;
use crate::ui::Progress;
use crate::{podtrace, process};

/// Events of the recordings: what does not depend on the length shows in the difference.
pub const LENGTHS: [u64; 3] = [20_000, 200_000, 2_000_000];
/// The recording that is multiplied.
const PATTERN: &str = "tracer/tests/data/healthy.podtrace";
/// As the recorder does.
const FRAME: usize = 1 << 20;
const LEVEL: i32 = 3;
/// Time from one exchange to the next, ns.
const INTERVAL_NS: u64 = 500_000;
/// Exchanges of a batch.
const BATCH: u64 = 20;

/// One recording.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    /// In it.
    pub events: u64,
    /// Of the file.
    pub bytes: u64,
    /// Of its records, uncompressed.
    pub plain_bytes: u64,
    /// Processor time of the whole command, median.
    pub cpu: Duration,
    /// By the clock, median.
    pub wall: Duration,
    /// Most resident memory, bytes; the largest of all runs.
    pub memory: u64,
}

impl Replayed {
    /// By processor time.
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.cpu.as_secs_f64()
    }
}

/// Makes the recordings, and replays each so many times.
pub fn measure(binary: &Path, runs: usize) -> Result<Vec<Replayed>> {
    let mut progress = Progress::start("replays");
    let pattern = Pattern::read(&process::workspace().join(PATTERN))?;
    let directory = process::target_dir().join("xtask-replay");
    fs::create_dir_all(&directory)
        .with_context(|| format!("make the directory {}", directory.display()))?;
    let file = directory.join("long.podtrace");
    let mut results = Vec::new();
    for length in LENGTHS {
        progress.last_line(&format!("recording of {length} events"));
        let (events, plain_bytes) = pattern.write(&file, length)?;
        let bytes = fs::metadata(&file)?.len();
        let mut all = Vec::new();
        for _ in 0..runs {
            progress.last_line(&format!("replay of {events} events"));
            all.push(replay(binary, &file)?);
            process::check_interrupt()?;
        }
        let middle = |of: fn(&Run) -> Duration| {
            let seconds: Vec<f64> = all.iter().map(|run| of(run).as_secs_f64()).collect();
            Duration::from_secs_f64(median(&seconds).unwrap_or(0.0))
        };
        results.push(Replayed {
            events,
            bytes,
            plain_bytes,
            cpu: middle(|run| run.cpu),
            wall: middle(|run| run.wall),
            memory: all.iter().map(|run| run.memory).max().unwrap_or(0),
        });
    }
    fs::remove_dir_all(&directory)
        .with_context(|| format!("remove the directory {}", directory.display()))?;
    progress.done();
    Ok(results)
}

/// One replay.
struct Run {
    cpu: Duration,
    wall: Duration,
    memory: u64,
}

fn replay(binary: &Path, file: &Path) -> Result<Run> {
    let mut command = podtrace::command(binary);
    command.arg("replay").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let child = command.spawn().context("start podtrace")?;
    let (status, usage) = wait(child.id())?;
    let wall = began.elapsed();
    if !status.success() {
        bail!("podtrace replay failed ({status})");
    }
    let time = |t: libc::timeval| {
        let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(t.tv_usec).unwrap_or(0))
    };
    Ok(Run {
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        wall,
        // Linux tells it in units of 1024 bytes.
        memory: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    })
}

/// Waits for a child of ours and takes what it used.
fn wait(pid: u32) -> Result<(ExitStatus, libc::rusage)> {
    use std::os::unix::process::ExitStatusExt;
    let pid = libc::pid_t::try_from(pid).context("a process id")?;
    let mut status = 0;
    // SAFETY: all zeros is a valid rusage, which consists of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: writes an int and a struct rusage to pointers that are such.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            return Ok((ExitStatus::from_raw(status), usage));
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("wait for podtrace");
        }
    }
}

/// A recorded exchange of two packets, and what stands around it.
struct Pattern {
    /// Up to the first event.
    head: Vec<Value>,
    exchange: Vec<Value>,
    /// When the pattern's exchange began, ns.
    began_ns: u64,
}

impl Pattern {
    fn read(file: &Path) -> Result<Self> {
        let opened = File::open(file).with_context(|| format!("read {}", file.display()))?;
        let text = zstd::decode_all(opened).with_context(|| format!("read {}", file.display()))?;
        let records: Vec<Value> = serde_json::Deserializer::from_slice(&text)
            .into_iter()
            .collect::<Result<_, _>>()
            .with_context(|| format!("read {}", file.display()))?;
        let is = |kind: &'static str| move |record: &Value| record.get(kind).is_some();
        let first = records.iter().position(is("event")).context("a recording with events")?;
        // In the first batch addresses are resolved; the second is as all that follow.
        let second = records.iter().position(is("closed")).context("a whole recording")? + 1;
        let exchange: Vec<Value> =
            records[second..].iter().take_while(|r| r.get("event").is_some()).cloned().collect();
        let began_ns = exchange.first().and_then(|r| r["event"]["t"].as_u64());
        let began_ns = began_ns.context("events behind the first batch")?;
        Ok(Self { head: records[..first].to_vec(), exchange, began_ns })
    }

    /// Writes a recording of at least so many events; how many, and the bytes of its records.
    fn write(&self, file: &Path, events: u64) -> Result<(u64, u64)> {
        let mut out =
            Frames::new(File::create(file).with_context(|| format!("write {}", file.display()))?)?;
        self.head.iter().try_for_each(|record| out.record(record))?;
        let size = self.exchange.len() as u64;
        let exchanges = events.div_ceil(size).next_multiple_of(BATCH);
        for number in 0..exchanges {
            for record in &self.exchange {
                out.record(&self.numbered(record, number))?;
            }
            if (number + 1) % BATCH == 0 {
                out.record(&json!({"batch": BATCH * size}))?;
            }
        }
        let end_ns = self.began_ns + exchanges * INTERVAL_NS + 1_000_000_000;
        out.record(&json!({"idle": null}))?;
        out.record(&json!({"closed": end_ns}))?;
        let duration_ns = end_ns - self.began_ns;
        out.record(&json!({"stage": {
            "kind": "main",
            "duration_ns": duration_ns,
            "armed_ns": self.began_ns - 1,
            "closed_ns": end_ns,
            "end_ns": end_ns,
        }}))?;
        out.record(&json!({"end": {"unrecorded": 0, "verdict": null}}))?;
        Ok((exchanges * size, out.finish()?))
    }

    /// An event of the pattern as that of another exchange.
    fn numbered(&self, record: &Value, number: u64) -> Value {
        /// Where a packet within VXLAN begins: Ethernet, IPv4, UDP, VXLAN, Ethernet.
        const WITHIN: usize = 14 + 20 + 8 + 8 + 14;
        let mut record = record.clone();
        let event = &mut record["event"];
        let t = event["t"].as_u64().unwrap_or(0);
        event["t"] = (t + number * INTERVAL_NS).into();
        let skb = event["skb"].as_u64().unwrap_or(0);
        event["skb"] = (skb ^ (number % 4096) << 10).into();
        let l3 = event["l3"].as_u64().unwrap_or(0) as usize;
        let at = if event["len"].as_u64() == Some(148) { WITHIN } else { l3 };
        // The identification of the IPv4 header, and the sequence number of the echo behind it.
        let id = format!("{:04x}", number % 65_535 + 1);
        if let Some(data) = event["data"].as_str() {
            let mut data = data.to_owned();
            for offset in [at + 4, at + 26] {
                let range = 2 * offset..2 * offset + 4;
                if data.len() >= range.end {
                    data.replace_range(range, &id);
                }
            }
            event["data"] = data.into();
        }
        record
    }
}

/// Lines in zstd frames, as the recorder writes them.
struct Frames {
    file: File,
    compressor: zstd::bulk::Compressor<'static>,
    lines: Vec<u8>,
    written: u64,
}

impl Frames {
    fn new(file: File) -> Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        Ok(Self { file, compressor, lines: Vec::with_capacity(FRAME + 4096), written: 0 })
    }

    fn record(&mut self, record: &Value) -> Result<()> {
        serde_json::to_writer(&mut self.lines, record)?;
        self.lines.push(b'\n');
        if self.lines.len() >= FRAME { self.frame() } else { Ok(()) }
    }

    fn frame(&mut self) -> Result<()> {
        self.file.write_all(&self.compressor.compress(&self.lines)?)?;
        self.written += self.lines.len() as u64;
        self.lines.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        self.frame()?;
        Ok(self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recording_that_is_multiplied_holds_a_whole_exchange() {
        let pattern = Pattern::read(&process::workspace().join(PATTERN)).unwrap();
        assert_eq!(pattern.exchange.len(), 25, "twelve hops each way, and the end of the answer");
        let ids = |number| -> Vec<String> {
            let data = |r: &Value| pattern.numbered(r, number)["event"]["data"].to_string();
            pattern.exchange.iter().map(data).collect()
        };
        assert!(ids(1).iter().zip(ids(2)).all(|(a, b)| *a != b));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x");
        let (events, plain) = pattern.write(&file, 700).unwrap();
        assert_eq!(events, 1000);
        let text = zstd::decode_all(File::open(&file).unwrap()).unwrap();
        assert_eq!(text.len() as u64, plain);
        assert_eq!(text.iter().filter(|b| **b == b'\n').count(), pattern.head.len() + 1000 + 2 + 4);
    }
}
