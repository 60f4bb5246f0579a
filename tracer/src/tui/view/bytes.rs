//! The captured bytes of a packet, hop by hop, with those that changed.

use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use crate::export::text::part;
use crate::report::{HopReport, JourneyReport};
use crate::tui::state::State;
use crate::tui::style::Tone;

/// Bytes on a line, and from how many columns of screen on there is room for them.
const PER_LINE: [(usize, usize); 3] = [(16, 75), (8, 43), (4, 0)];

/// The lines of a packet. Empty until its bytes have been looked for.
pub(super) fn lines(state: &State, packet: &JourneyReport, width: usize) -> Vec<Line<'static>> {
    let look = state.look;
    let Some(captured) = state.captured.as_ref().filter(|c| c.id == packet.id) else {
        return Vec::new();
    };
    let mut lines = vec![Line::default(), Line::from(look.span(Tone::Strong, "CAPTURED BYTES"))];
    if captured.hops.iter().all(Option::is_none) {
        lines.push(Line::from(look.span(Tone::Dim, "not kept any more")));
        return lines;
    }
    let mut before: Option<(usize, &HopReport, &[u8])> = None;
    for (i, (hop, data)) in packet.hops.iter().zip(&captured.hops).enumerate() {
        let Some(data) = data.as_deref() else { continue };
        let same = before.filter(|(_, _, old)| *old == data).map(|(number, ..)| number);
        let note = match same {
            Some(number) => format!("as at {number}"),
            None => format!("{} of {} bytes", data.len(), hop.length),
        };
        let point = look.clean(&part::label(&hop.point));
        lines.push(Line::from(vec![
            look.span(Tone::Strong, format!("{:<3} {point} {}", i + 1, hop.point.hook)),
            look.span(Tone::Dim, format!("  {note}")),
        ]));
        if same.is_some() {
            continue;
        }
        let changed = changed(before.map(|(_, hop, data)| (hop, data)), (hop, data));
        lines.extend(dump(state, data, &changed, width));
        before = Some((i + 1, hop, data));
    }
    lines
}

/// Which bytes differ from those at the hop before. Both end alike: what is put around a packet, or
/// taken off it, is in front.
fn changed(before: Option<(&HopReport, &[u8])>, (hop, data): (&HopReport, &[u8])) -> Vec<bool> {
    let none = || vec![false; data.len()];
    let Some((old_hop, old)) = before else { return none() };
    if (old_hop.skbs, old_hop.segments) != (hop.skbs, hop.segments) {
        // Cut or joined on the way: not the same bytes.
        return none();
    }
    let at = |i: usize| (i + old_hop.length as usize).checked_sub(hop.length as usize);
    let differs = |(i, byte): (usize, &u8)| match at(i) {
        Some(i) => old.get(i).is_some_and(|old| old != byte),
        None => true,
    };
    data.iter().enumerate().map(differs).collect()
}

/// `0010  40 00 3f 01 …  @.?.…`, with what changed underlined.
fn dump(state: &State, data: &[u8], changed: &[bool], width: usize) -> Vec<Line<'static>> {
    let look = state.look;
    let per_line =
        PER_LINE.iter().find(|(_, from)| width >= *from).map_or(4, |(per_line, _)| *per_line);
    let style = |changed: bool| match changed {
        true => look.style(Tone::Warn).add_modifier(Modifier::UNDERLINED),
        false => look.style(Tone::Plain),
    };
    let rows = data.chunks(per_line).zip(changed.chunks(per_line)).enumerate();
    rows.map(|(row, (bytes, changed))| {
        let mut spans = vec![look.span(Tone::Dim, format!("    {:04x} ", row * per_line))];
        for (byte, changed) in bytes.iter().zip(changed) {
            spans.push(Span::raw(" "));
            spans.push(Span::styled(format!("{byte:02x}"), style(*changed)));
        }
        spans.push(Span::raw(" ".repeat(2 + 3 * (per_line - bytes.len()))));
        let text = |byte: &u8| match byte {
            0x20..=0x7e => char::from(*byte),
            _ => '.',
        };
        spans.push(look.span(Tone::Dim, bytes.iter().map(text).collect::<String>()));
        Line::from(spans)
    })
    .collect()
}
