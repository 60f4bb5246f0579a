//! Recordings in several files.

use std::sync::{Arc, Mutex};

use super::tape::{Shared, Tape, play};
use crate::decode::Batch;
use crate::model::{Loss, Outcome};
use crate::record::rotation::Rotation;
use crate::record::*;
use crate::report::Status;

/// The files of a recording, each full with the first frame behind its beginning.
fn recorded(tape: &Tape, batches: &[Arc<Batch>]) -> Vec<Vec<u8>> {
    let files = Arc::new(Mutex::new(Vec::<Shared>::new()));
    let opened = Arc::clone(&files);
    let rotation = Rotation {
        limit: 1,
        open: Box::new(move |part| {
            let file = Shared::default();
            let mut files = opened.lock().unwrap();
            files.push(file.clone());
            assert_eq!(files.len(), part as usize);
            Ok(Box::new(file))
        }),
    };
    let mut recorder = tape.start_at(Target::in_parts(rotation).unwrap());
    for (i, batch) in batches.iter().enumerate() {
        recorder.losses(&Loss { ring_hop: i as u64, ..Loss::default() });
        // Frames of a few events are written only when asked for.
        recorder.flush();
        recorder.batch(&tape.events(batch));
    }
    tape.end(&mut recorder);
    let summary = recorder.finish().unwrap();
    let files: Vec<Vec<u8>> = files.lock().unwrap().iter().map(Shared::bytes).collect();
    assert_eq!(summary.parts as usize, files.len());
    assert_eq!(summary.bytes, files.iter().map(|f| f.len() as u64).sum::<u64>());
    files
}

#[test]
fn every_file_is_replayed_by_itself() {
    let tape = Tape::of_pings(6);
    let files = recorded(&tape, &tape.batches);
    assert!(files.len() > 2, "{}", files.len());
    let replays: Vec<Replay> = files.iter().map(|file| play(file).unwrap()).collect();
    let last = replays.len() - 1;
    let mut lost = 0;
    for (i, replay) in replays.iter().enumerate() {
        assert_eq!(replay.header.part as usize, i + 1);
        let missed = replay.report.loss.events_lost;
        lost += missed;
        let status = if missed > 0 { Status::Inconclusive } else { Status::Delivered };
        assert_eq!(replay.report.verdict.status, status, "file {i}");
        assert_eq!(replay.report.packets.delivered, replay.report.packets.sent, "file {i}");
        assert_eq!(replay.end.as_ref().unwrap().continued, i < last);
        let says = |word: &str| replay.remarks.iter().any(|r| r.contains(word));
        assert_eq!((says("this is file"), says("next file")), (i > 0, i < last));
    }
    assert_eq!(replays.iter().map(|r| r.report.packets.sent).sum::<u64>(), 6);
    assert_eq!(replays.iter().map(|r| r.events).sum::<u64>(), 6 * 12);
    // What was lost is told in one file each.
    assert!(lost > 0 && lost <= 5, "{lost}");
}

#[test]
fn a_packet_under_way_between_two_files_is_lost_in_neither() {
    let tape = Tape::of_pings(5);
    let halves = |batch: &Arc<Batch>| {
        let (mut one, mut other) = (Batch::default(), Batch::default());
        for (i, record) in batch.records().enumerate() {
            if i < 6 { one.push(record) } else { other.push(record) }
        }
        [Arc::new(one), Arc::new(other)]
    };
    let batches: Vec<_> = tape.batches.iter().flat_map(halves).collect();
    let files = recorded(&tape, &batches);
    assert!(files.len() > 2, "{}", files.len());
    let mut cut = 0;
    for file in &files {
        let replay = play(file).unwrap();
        for journey in &replay.main.traces[0].2.journeys {
            let whole = journey.outcome == Outcome::Delivered && journey.hops.len() == 12;
            let part = matches!(journey.outcome, Outcome::InFlight | Outcome::Incomplete);
            assert!(whole || part, "{:?} after {} hops", journey.outcome, journey.hops.len());
            cut += u64::from(part);
        }
        assert!(!matches!(replay.report.verdict.status, Status::Lost | Status::Dropped));
    }
    assert!(cut > 0);
}
