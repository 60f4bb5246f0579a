//! Tests of recording and replaying.

mod fuzz;
mod machines;
mod parts;
mod schema;
mod strangers;
mod tape;

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::analysis::{self, Analysis, State};
use crate::decode::Decoder;
use crate::diagnose::Meta;
use crate::expect::Family;
use crate::export::{json, text};
use crate::report::Status;
use tape::{Shared, Tape, play};

/// For tests of what comes after a recording.
pub(crate) mod testing {
    pub(crate) use super::fixture;
    pub(crate) use super::machines::two_machines;
    pub(crate) use super::tape::{Shared, play};
}

/// Recordings of real traces, of every schema ever released; `older/` holds those of earlier
/// podtraces.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    fs::read(path.join(format!("{name}.podtrace"))).unwrap()
}

/// What every tape says of its trace.
fn meta() -> Meta {
    Meta {
        started: "2026-01-02T03:04:05Z".into(),
        duration_ns: 5,
        version: "9.8.7".into(),
        kernel: "6.18.0".into(),
    }
}

#[test]
fn a_replay_is_what_the_analysis_made_live() {
    for pings in [1, 7] {
        let tape = Tape::of_pings(pings);
        let mut decoder = Decoder::new(&tape.topology, tape.slots(), tape.names());
        let mut live = Analysis::new([(Family::V4, tape.topology.clone())]);
        live.arm(tape.armed_ns);
        for batch in &tape.batches {
            live.push(decoder.decode(batch));
            live.push(Vec::new());
        }
        live.close(tape.closed_ns);
        let live = live.finish(tape.observation());
        let live = analysis::conclude(&live, None, State::default(), &meta()).unwrap();
        assert_eq!(live.verdict.status, Status::Delivered);
        assert_eq!(live.packets.sent, pings);

        let replay = play(&tape.record()).unwrap();
        assert_eq!(json::render(&replay.report), json::render(&live));
        let options = text::TextOptions::default();
        assert_eq!(text::render(&replay.report, &options), text::render(&live, &options));
        assert_eq!(replay.events, 12 * pings);
        assert_eq!(replay.remarks, [""; 0]);
    }
}

#[test]
fn fixtures_of_every_schema_can_be_read() {
    for (name, status, direction) in [
        ("healthy", Status::Delivered, None),
        ("forward-drop", Status::Dropped, Some(crate::model::Direction::Forward)),
        ("wire-loss", Status::Lost, Some(crate::model::Direction::Forward)),
    ] {
        for (file, present) in [(name.to_owned(), true), (format!("older/{name}"), false)] {
            let replay = play(&fixture(&file)).unwrap();
            let verdict = &replay.report.verdict;
            assert_eq!((verdict.status, verdict.direction), (status, direction), "{file}");
            assert_eq!(replay.remarks, [""; 0], "{file}");
            assert!(replay.before.is_some() && replay.after.is_some() && replay.end.is_some());
            assert_eq!(replay.main.observation.events_lost(), 0);
            // The older were made before packet filters were among the facts.
            let spaces = &replay.before.as_ref().unwrap().spaces;
            assert_eq!(spaces.iter().any(|s| !s.facts.firewall.tables.is_empty()), present);
        }
    }
}

#[test]
fn what_does_not_fit_into_the_queue_is_counted_and_said() {
    let tape = Tape::of_pings(1);
    let out = Shared::default();
    let blocked = out.block();
    let mut recorder = tape.start(&out);
    // The writer waits for the first frame to be taken; the queue fills up behind it.
    recorder.flush();
    let mut big = crate::decode::Batch::default();
    while big.size() < 100 << 20 {
        big.push(&[0; 1 << 20]);
    }
    let big = tape.events(&big);
    for _ in 0..3 {
        recorder.batch(&big);
    }
    assert_eq!(recorder.unrecorded(), big.len() as u64);
    recorder.patient();
    drop(blocked);
    recorder.batch(&big);
    assert_eq!(recorder.unrecorded(), big.len() as u64, "now there is time to wait");
    tape.end(&mut recorder);
    assert_eq!(recorder.finish().unwrap().unrecorded, 100);
    let replay = play(&out.bytes()).unwrap();
    assert_eq!(replay.report.loss.events_lost, 100);
    assert!(replay.remarks[0].contains("100 events"), "{:?}", replay.remarks);
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_trace() {
    let tape = Tape::of_pings(1);
    let out = Shared::default();
    out.fill();
    let mut recorder = tape.start(&out);
    for batch in &tape.batches {
        recorder.batch(&tape.events(batch));
    }
    tape.end(&mut recorder);
    assert_eq!(recorder.finish().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
}
