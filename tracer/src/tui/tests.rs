//! Screens and keys, over reports made by hand.

use std::sync::Arc;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Modifier;

use super::state::{Panel, State};
use super::{Captured, Command, Look, Player, Snapshot, Source, Totals, input, view};
use crate::export::{Kind, fixtures};
use crate::model::Direction;
use crate::report::{Report, Status};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 12)];

fn snapshot(report: Report) -> Snapshot {
    let packets = &report.packets;
    let totals = Totals {
        sent: report.probe.as_ref().map(|p| p.sent),
        seen: packets.sent,
        arrived: packets.delivered,
        replied: packets.replied,
    };
    Snapshot {
        report: Arc::new(report),
        span: Duration::from_secs(4),
        elapsed: Duration::from_secs(12),
        totals,
        player: None,
        notices: vec!["kfree_skb cannot be traced here".to_owned()],
    }
}

fn state(report: Report) -> State {
    let mut state = State::new(Look { color: false, unicode: true }, Source::Live);
    state.apply(snapshot(report));
    state
}

fn screen(state: &mut State, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, state)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(width.into());
    let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    rows.map(|row| row.trim_end().to_owned() + "\n").collect()
}

fn press(state: &mut State, keys: &[KeyCode]) -> Option<Command> {
    let press =
        |key: &KeyCode| input::handle(state, &Event::Key(KeyEvent::new(*key, KeyModifiers::NONE)));
    keys.iter().map(press).last().flatten()
}

/// A part of the packets arrives.
fn degraded() -> Report {
    let mut report = fixtures::healthy();
    let broken = fixtures::wire_loss();
    report.journeys[0] = broken.journeys[0].clone();
    report.packets.delivered -= 1;
    report.directions[0].verdict = broken.verdict;
    report.directions[0].verdict.status = Status::Degraded;
    report.directions[0].verdict.summary = "1 of 5 packets is lost between the nodes.".into();
    for (i, hop) in report.directions[0].hops.iter_mut().enumerate().skip(5) {
        hop.packets -= 1;
        hop.lost = u64::from(i == 5);
    }
    report.verdict = report.directions[0].verdict.clone();
    report
}

fn reports() -> [(&'static str, Report); 5] {
    [
        ("healthy", fixtures::healthy()),
        ("dropped", fixtures::forward_drop()),
        ("lost", fixtures::wire_loss()),
        ("degraded", degraded()),
        ("empty", fixtures::no_traffic()),
    ]
}

#[test]
fn every_panel_at_every_size() {
    for (name, report) in reports() {
        for size in SIZES {
            let mut all = String::new();
            for panel in Panel::ALL {
                let mut state = state(report.clone());
                state.show(panel);
                all += &format!("=== {}\n{}", panel.title(), screen(&mut state, size));
            }
            insta::assert_snapshot!(format!("{name}_{}x{}", size.0, size.1), all);
        }
    }
}

#[test]
fn a_packet_whole() {
    let mut state = state(fixtures::forward_drop());
    press(&mut state, &[KeyCode::Char('2'), KeyCode::Home, KeyCode::Enter]);
    insta::assert_snapshot!(screen(&mut state, (120, 40)));
}

/// Bytes as they could have been captured at each hop: a frame, and 50 bytes around it in the tunnel.
fn captured(report: &Report, id: &str) -> Captured {
    let journey = report.journeys.iter().find(|j| j.id == id).unwrap();
    let hop = |hop: &crate::report::HopReport| {
        let mut frame: Vec<u8> = (0..hop.length as usize).map(|i| i as u8).collect();
        let outer = if hop.outer.is_some() { 50 } else { 0 };
        for (i, byte) in frame.iter_mut().enumerate().skip(outer) {
            *byte = (i - outer) as u8;
        }
        frame[outer + 22] = hop.inner.ttl;
        Some(frame)
    };
    Captured { id: id.to_owned(), hops: journey.hops.iter().map(hop).collect() }
}

#[test]
fn a_packet_is_shown_to_its_bytes() {
    for (size, name) in [((120, 110), "wide"), ((40, 200), "narrow")] {
        let mut state = state(fixtures::healthy());
        let asked = press(&mut state, &[KeyCode::Char('2'), KeyCode::Home, KeyCode::Enter]);
        let Some(Command::Bytes(wanted)) = asked else { panic!("{asked:?}") };
        let journey = &fixtures::healthy().journeys[0];
        assert_eq!((&wanted.id, wanted.sightings.len()), (&journey.id, journey.hops.len()));
        let fourth = &journey.hops[3];
        assert_eq!(wanted.sightings[3], (fourth.clock, fourth.point.clone()));
        assert!(!screen(&mut state, size).contains("CAPTURED BYTES"));
        state.captured = Some(captured(&fixtures::healthy(), &wanted.id));
        let drawn = screen(&mut state, size);
        let at = drawn.find("CAPTURED BYTES").unwrap();
        insta::assert_snapshot!(format!("bytes_{name}"), drawn[at..].trim_end());
        // Bytes of another packet are not shown with this one.
        press(&mut state, &[KeyCode::Esc, KeyCode::Down, KeyCode::Enter]);
        assert!(!screen(&mut state, size).contains("CAPTURED BYTES"));
    }
}

#[test]
fn bytes_that_changed_are_marked() {
    let mut state = state(fixtures::healthy());
    press(&mut state, &[KeyCode::Char('2'), KeyCode::Home, KeyCode::Enter]);
    state.captured = Some(captured(&fixtures::healthy(), "1"));
    let mut terminal = Terminal::new(TestBackend::new(120, 110)).unwrap();
    terminal.draw(|frame| view::draw(frame, &mut state)).unwrap();
    let buffer = terminal.backend().buffer();
    let marked = |row: &[ratatui::buffer::Cell]| {
        row.iter().filter(|c| c.modifier.contains(Modifier::UNDERLINED)).count()
    };
    let rows: Vec<usize> = buffer.content.chunks(120).map(marked).filter(|n| *n > 0).collect();
    // Two digits of the TTL where it was routed; 50 bytes of the tunnel's headers.
    assert_eq!(rows, [2, 32, 32, 32, 4, 2]);
}

#[test]
fn bytes_that_are_gone_are_said_to_be() {
    let mut state = state(fixtures::healthy());
    press(&mut state, &[KeyCode::Char('2'), KeyCode::Home, KeyCode::Enter]);
    state.captured = Some(Captured { id: "1".into(), hops: vec![None; 12] });
    assert!(screen(&mut state, (120, 110)).contains("not kept any more"));
}

#[test]
fn files_are_asked_for_and_told_of() {
    for source in [Source::Live, Source::Replay] {
        let mut state = State::new(Look { color: false, unicode: true }, source);
        state.apply(snapshot(fixtures::healthy()));
        assert_eq!(press(&mut state, &[KeyCode::Char('s')]), Some(Command::Save(Kind::Podtrace)));
        press(&mut state, &[KeyCode::Char('e')]);
        if source == Source::Live {
            insta::assert_snapshot!("formats", screen(&mut state, (80, 24)));
        }
        assert_eq!(press(&mut state, &[KeyCode::Char('h')]), Some(Command::Save(Kind::Html)));
        // Any key that is none of them ends the choice, and does nothing else.
        assert_eq!(press(&mut state, &[KeyCode::Char('e'), KeyCode::Char('q')]), None);
        assert!(!state.choosing);
        for size in [(80, 24), (40, 12), (20, 5)] {
            state.message = Some("wrote /tmp/x.html".to_owned());
            assert!(screen(&mut state, size).contains("wrote /tmp/x.html"));
            press(&mut state, &[KeyCode::Left]);
            assert!(!screen(&mut state, size).contains("wrote"));
        }
    }
}

#[test]
fn help_names_the_keys_of_its_source() {
    let mut live = State::new(Look { color: false, unicode: true }, Source::Live);
    press(&mut live, &[KeyCode::Char('?')]);
    insta::assert_snapshot!("help_live", screen(&mut live, (80, 24)));
    let mut replay = State::new(Look { color: false, unicode: false }, Source::Replay);
    press(&mut replay, &[KeyCode::Char('?')]);
    insta::assert_snapshot!("help_replay", screen(&mut replay, (80, 24)));
}

#[test]
fn a_recording_shows_where_it_is() {
    let mut state = State::new(Look { color: false, unicode: true }, Source::Replay);
    let player = Player { length: Duration::from_secs(24), speed: 2.0, playing: true };
    state.apply(Snapshot { player: Some(player), ..snapshot(fixtures::healthy()) });
    let drawn = screen(&mut state, (120, 24));
    let head = drawn.lines().next().unwrap();
    assert!(head.contains("play x2 ━━━━━━────── 12.00/24.00s"), "{head}");
}

#[test]
fn ascii_is_enough() {
    for (name, report) in reports() {
        for panel in Panel::ALL {
            let mut state = State::new(Look { color: false, unicode: false }, Source::Live);
            state.apply(snapshot(report.clone()));
            state.show(panel);
            let drawn = screen(&mut state, (80, 24));
            assert!(drawn.is_ascii(), "{name} {}: {drawn}", panel.title());
        }
    }
}

#[test]
fn without_colour_there_is_none() {
    let mut state = state(fixtures::forward_drop());
    for panel in Panel::ALL {
        state.show(panel);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| view::draw(frame, &mut state)).unwrap();
        let plain = |cell: &ratatui::buffer::Cell| {
            cell.fg == ratatui::style::Color::Reset && cell.bg == ratatui::style::Color::Reset
        };
        assert!(terminal.backend().buffer().content.iter().all(plain), "{}", panel.title());
    }
}

#[test]
fn where_it_breaks_is_on_the_smallest_screen() {
    let mut state = state(fixtures::wire_loss());
    let drawn = screen(&mut state, (20, 5));
    assert!(drawn.contains("LOST"), "{drawn}");
    assert!(drawn.contains("ens33"), "{drawn}");
}

#[test]
fn no_size_and_no_name_is_too_much() {
    for report in [fixtures::ugly(), fixtures::healthy(), fixtures::tcp()] {
        for size in [(1, 1), (2, 3), (20, 5), (7, 60), (300, 2), (300, 100)] {
            for panel in Panel::ALL {
                let mut state = state(report.clone());
                state.show(panel);
                let drawn = screen(&mut state, size);
                assert!(!drawn.contains('\x1b') && !drawn.contains('\u{202e}'), "{drawn}");
                press(&mut state, &[KeyCode::Enter, KeyCode::Down, KeyCode::PageUp, KeyCode::End]);
                screen(&mut state, size);
            }
        }
    }
}

#[test]
fn panels_are_reached_by_number_and_in_turn() {
    let mut state = state(fixtures::healthy());
    for (i, panel) in Panel::ALL.into_iter().enumerate() {
        press(&mut state, &[KeyCode::Char(char::from(b'1' + i as u8))]);
        assert_eq!(state.panel, panel);
        press(&mut state, &[KeyCode::Tab]);
        assert_eq!(state.panel, Panel::ALL[(i + 1) % 5]);
        press(&mut state, &[KeyCode::BackTab]);
        assert_eq!(state.panel, panel);
    }
}

#[test]
fn the_direction_is_reversed() {
    let mut state = state(fixtures::healthy());
    press(&mut state, &[KeyCode::Char('r')]);
    assert_eq!(state.direction, Direction::Reply);
    let drawn = screen(&mut state, (80, 24));
    let first = drawn.lines().find(|l| l.contains("eth0")).unwrap();
    assert!(first.contains("B.b.eth0"), "{drawn}");
}

#[test]
fn a_frozen_view_stands_while_packets_come() {
    let mut state = state(fixtures::healthy());
    press(&mut state, &[KeyCode::Char(' ')]);
    state.apply(snapshot(fixtures::forward_drop()));
    let drawn = screen(&mut state, (80, 24));
    assert!(drawn.contains("FROZEN") && drawn.contains("DELIVERED"), "{drawn}");
    press(&mut state, &[KeyCode::Char(' ')]);
    let drawn = screen(&mut state, (80, 24));
    assert!(drawn.contains("live") && drawn.contains("DROPPED"), "{drawn}");
    // What came in between is not lost.
    assert_eq!(state.model().drops.values().map(|g| g.count).sum::<u64>(), 5);
}

#[test]
fn drops_are_counted_once() {
    let mut state = state(fixtures::forward_drop());
    state.apply(snapshot(fixtures::forward_drop()));
    let groups: Vec<_> = state.model().drops.values().collect();
    assert_eq!(groups.len(), 1);
    assert_eq!((groups[0].count, groups[0].course.as_slice()), (5, [5, 0].as_slice()));
}

#[test]
fn drops_stay_together_when_their_rule_becomes_known() {
    let with_rule = |rule: Option<&str>, round: &str| {
        let mut report = fixtures::forward_drop();
        for journey in &mut report.journeys {
            journey.id = format!("{round}.{}", journey.id);
            if let Some(drop) = &mut journey.drop {
                drop.rule = rule.map(str::to_owned);
            }
        }
        report
    };
    let mut state = state(with_rule(None, "a"));
    for (rule, round) in [(Some("-j DROP"), "b"), (None, "c"), (Some("-m x -j DROP"), "d")] {
        state.apply(snapshot(with_rule(rule, round)));
    }
    let groups: Vec<_> = state.model().drops.values().collect();
    let told: Vec<_> = groups.iter().map(|g| (g.last.rule.as_deref(), g.count)).collect();
    assert_eq!(told, [(Some("-j DROP"), 15), (Some("-m x -j DROP"), 5)]);
    assert_eq!(groups[0].course, [5, 5, 5, 0]);
}

#[test]
fn the_selection_follows_the_newest_until_moved() {
    let mut state = state(fixtures::healthy());
    press(&mut state, &[KeyCode::Char('2')]);
    assert_eq!(state.selected, None);
    press(&mut state, &[KeyCode::Char('k'), KeyCode::Up]);
    assert_eq!(state.selected.as_deref(), Some("8"));
    press(&mut state, &[KeyCode::Char('G')]);
    assert_eq!(state.selected, None);
    assert!(matches!(press(&mut state, &[KeyCode::Enter]), Some(Command::Bytes(_))));
    assert!(state.detail);
    assert_eq!(state.selected.as_deref(), Some("10"));
    press(&mut state, &[KeyCode::Esc]);
    assert!(!state.detail);
}

#[test]
fn the_filter_wants_every_word() {
    let mut state = state(fixtures::healthy());
    let keys = |text: &str| text.chars().map(KeyCode::Char).collect::<Vec<_>>();
    press(&mut state, &keys("/REPLY seq"));
    assert!(state.typing);
    press(&mut state, &[KeyCode::Enter]);
    assert!(!state.typing);
    assert_eq!(state.packets().len(), 5);
    // The keys of a filter are keys again.
    assert_eq!(press(&mut state, &keys("q")), Some(Command::Quit));
    press(&mut state, &keys("/ nowhere"));
    assert!(state.packets().is_empty());
    press(&mut state, &[KeyCode::Esc]);
    assert_eq!(state.packets().len(), 10);
}

#[test]
fn quitting_and_playing_go_beyond_the_screen() {
    let mut live = State::new(Look { color: false, unicode: true }, Source::Live);
    assert_eq!(press(&mut live, &[KeyCode::Char('q')]), Some(Command::Quit));
    assert_eq!(press(&mut live, &[KeyCode::Char('n')]), None);
    assert_eq!(press(&mut live, &[KeyCode::Char('p')]), Some(Command::Probe));
    let interrupt = Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    live.typing = true;
    assert_eq!(input::handle(&mut live, &interrupt), Some(Command::Quit));

    let mut replay = State::new(Look { color: false, unicode: true }, Source::Replay);
    for (key, command) in [
        (' ', Command::Play),
        ('+', Command::Faster(true)),
        ('-', Command::Faster(false)),
        ('n', Command::Step(true)),
        ('N', Command::Step(false)),
        (']', Command::Scrub(true)),
        ('[', Command::Scrub(false)),
        ('}', Command::Jump(true)),
        ('{', Command::Jump(false)),
    ] {
        assert_eq!(press(&mut replay, &[KeyCode::Char(key)]), Some(command));
    }
    assert_eq!(press(&mut replay, &[KeyCode::Char('p')]), None);
    assert!(!replay.is_frozen());
}

#[test]
fn memory_is_bounded() {
    let mut state = state(fixtures::healthy());
    for round in 0..300 {
        let mut report = fixtures::forward_drop();
        for journey in &mut report.journeys {
            journey.id = format!("{round}.{}", journey.id);
            if let Some(drop) = &mut journey.drop {
                drop.function = format!("f{round}");
            }
        }
        state.apply(snapshot(report));
    }
    let model = state.model();
    assert_eq!(model.packets.len(), 1000);
    assert_eq!(model.drops.len(), 200);
    assert!(model.drops.values().all(|group| group.course.len() <= 60));
}
