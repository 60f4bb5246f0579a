//! Files that are cut off, damaged, from the future, or made to do harm.

use super::super::limits;
use super::tape::{Tape, play};
use super::*;

fn play_lines<S: AsRef<str>>(lines: &[S]) -> Result<Replay, ReadError> {
    let text: String = lines.iter().map(|l| format!("{}\n", l.as_ref())).collect();
    play(text.as_bytes())
}

fn message<S: AsRef<str>>(lines: &[S]) -> String {
    play_lines(lines).unwrap_err().to_string()
}

#[test]
fn lines_need_not_be_compressed() {
    let replay = play_lines(&Tape::of_pings(1).lines()).unwrap();
    assert_eq!(replay.report.verdict.status, Status::Delivered);
}

#[test]
fn a_recording_that_is_cut_off_is_replayed_up_to_there() {
    let lines = Tape::of_pings(2).lines();
    let stage = lines.iter().position(|l| l.starts_with(r#"{"stage""#)).unwrap();
    for kept in 3..lines.len() {
        let replay = play_lines(&lines[..kept]).unwrap();
        let [remark] = replay.remarks.as_slice() else { panic!("{:?}", replay.remarks) };
        assert!(remark.starts_with("the recording ends early, before record"), "{remark}");
        assert!(replay.report.notes.contains(remark));
        if kept >= stage {
            assert_eq!(replay.report.packets.delivered, 2, "{kept} lines");
        }
    }
    // In the middle of a line.
    let whole = lines.join("\n");
    let replay = play(&whole.as_bytes()[..whole.len() - 9]).unwrap();
    assert!(replay.remarks[0].contains("in the middle of a record"), "{:?}", replay.remarks);
}

#[test]
fn a_compressed_file_may_be_cut_anywhere() {
    let whole = fixture("forward-drop");
    for kept in (0..whole.len()).step_by(53) {
        match play(&whole[..kept]) {
            Ok(replay) => assert!(replay.remarks[0].contains("ends early"), "{kept}"),
            Err(ReadError::Foreign(_)) => {}
            Err(other) => panic!("{kept}: {other}"),
        }
    }
    assert_eq!(play(&whole).unwrap().remarks, [""; 0]);
}

#[test]
fn damage_is_found() {
    let good = fixture("healthy");
    let verdict = play(&good).unwrap().report.verdict;
    for at in (4..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        if let Ok(replay) = play(&bad) {
            // What the frame's checksum does not cover changes nothing.
            assert!(!replay.remarks.is_empty() || replay.report.verdict == verdict, "{at}");
        }
    }
}

#[test]
fn other_files_are_refused() {
    for (file, why) in [
        (&b""[..], "empty"),
        (b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00", "neither zstd nor JSON"),
        (b"{\"a\":1}\n", "no header"),
        (b"{}\n", "the object is empty"),
        (b"{\"header\":{}}\n", "missing field"),
        (b"\x28\xb5\x2f\xfd\x00", "it ends before record 1"),
    ] {
        let error = play(file).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ReadError::Foreign(_)) && text.contains(why), "{text}");
    }
    let header = r#"{"header":{"schema":"podtrace.trace/2","tool":"3","started":"x"}}"#;
    assert!(message(&[header]).contains("use a newer one"));
}

#[test]
fn what_is_not_known_is_skipped_and_said() {
    let mut lines = Tape::of_pings(1).lines();
    lines.insert(3, r#"{"weather":{"sun":[1,2,{"x":null}]}}"#.into());
    let event = lines.iter().position(|l| l.starts_with(r#"{"event""#)).unwrap();
    lines[event] = lines[event].replacen(r#""t":"#, r#""later":[1],"t":"#, 1);
    let replay = play_lines(&lines).unwrap();
    assert_eq!(replay.report.packets.delivered, 1);
    assert!(replay.remarks[0].ends_with("does not know: weather"), "{:?}", replay.remarks);
}

#[test]
fn errors_name_the_record() {
    let lines = Tape::of_pings(1).lines();
    for (line, why) in [
        ("nonsense", "expected"),
        (r#"{"batch":1,"idle":null}"#, "more than one member"),
        (r#"{"event":{"t":1,"ns":1,"if":1,"skb":1,"len":1,"l3":0,"proto":1,"data":""}}"#, "hook"),
        (
            r#"{"event":{"t":1,"ns":1,"if":1,"skb":1,"len":1,"hook":"egress","l3":0,"proto":1,"data":"0g"}}"#,
            "hexadecimal",
        ),
        (&lines[0], "a second header"),
        (&lines[1], "a second topology"),
        (r#"{"amended":{}}"#, "nothing to amend"),
        (r#"{"stage":{"kind":"large"}}"#, "without size"),
    ] {
        let mut bad = lines.clone();
        bad.insert(3, line.to_owned());
        let text = message(&bad);
        assert!(text.starts_with("record 4 of the recording is wrong: "), "{text}");
        assert!(text.contains(why), "{text}");
    }
    let mut late = lines.clone();
    late.push(lines[3].clone());
    assert!(message(&late).contains("follows the last one"));
}

#[test]
fn claims_are_bounded() {
    let mut lines = Tape::of_pings(1).lines();
    let long = format!(r#"{{"note":"{}"}}"#, "x".repeat(limits::RECORD));
    let deep = format!(r#"{{"facts":{}}}"#, r#"{"when":"#.repeat(100_000));
    let unknown_deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!(
        r#"{{"event":{{"t":1,"ns":1,"if":1,"skb":1,"len":1,"hook":"egress","l3":0,"proto":1,"data":"{}"}}}}"#,
        "00".repeat(limits::EVENT)
    );
    for bad in [long, deep, wide] {
        lines.insert(3, bad);
        assert!(matches!(play_lines(&lines), Err(ReadError::Record { number: 4, .. })));
        lines.remove(3);
    }
    lines.insert(3, unknown_deep);
    assert!(!matches!(play_lines(&lines), Err(ReadError::Foreign(_))));
    lines.remove(3);
    // A path over an interface that does not exist, and a name without end.
    for (from, to) in [
        (r#""station":11"#.to_owned(), r#""station":99"#.to_owned()),
        (r#""name":"eth0""#.to_owned(), format!(r#""name":"{}""#, "e".repeat(limits::NAME + 1))),
    ] {
        let mut bad = lines.clone();
        bad[1] = bad[1].replacen(&from, &to, 1);
        assert_ne!(bad[1], lines[1]);
        assert!(matches!(play_lines(&bad), Err(ReadError::Record { number: 2, .. })));
    }
}

#[test]
fn a_decompression_bomb_is_refused_before_it_unfolds() {
    let mut lines = Tape::of_pings(1).lines().join("\n").into_bytes();
    lines.extend(vec![b'x'; 40 << 20]);
    let bomb = zstd::bulk::compress(&lines, 1).unwrap();
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(play(&bomb), Err(ReadError::Record { .. })));
    // A window larger than is ever needed.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, &lines).unwrap();
    let wide = encoder.finish().unwrap();
    assert!(play(&wide).is_err());
}
