//! The encapsulation timeline: the headers as they were at each stage, stacked as on the wire.

use unicode_width::UnicodeWidthStr;

use super::canvas::{Canvas, Line, Tone};
use super::words;
use crate::report::{HeaderReport, HopReport, JourneyReport, OuterReport};

/// Columns in front of a layer's addresses: frame and label.
const LEAD: usize = 10;
const LABEL: usize = 6;
/// Stages drawn of a way that goes round in circles.
const MAX_STAGES: usize = 10;

/// Consecutive hops with the same headers.
struct Stage<'a> {
    /// Position of the first in the journey, from 1.
    first: usize,
    hops: Vec<&'a HopReport>,
}

/// A layer: label, and the two ends of it or a text.
struct Layer {
    label: String,
    ends: Option<[Cell; 2]>,
    text: String,
}

/// An address with its name.
struct Cell {
    address: String,
    name: Option<String>,
}

impl Cell {
    fn width(&self) -> usize {
        self.address.width() + self.name.as_ref().map_or(0, |n| n.width() + 1)
    }

    /// Within `width`; the name gives way, the address never.
    fn add(&self, canvas: &Canvas, line: Line, width: usize, pad: bool) -> Line {
        let mut line = line.plain(self.address.as_str());
        let mut used = self.address.width();
        if let Some(name) = &self.name
            && used + 2 <= width
        {
            let name = canvas.shorten(name, width - used - 1);
            used += 1 + name.width();
            line = line.plain(" ").add(Tone::Node, name);
        }
        if pad { line.plain(" ".repeat(width.saturating_sub(used))) } else { line }
    }
}

/// Draws the stages of a journey.
pub(super) fn draw(canvas: &mut Canvas, journey: &JourneyReport) {
    let stages = stages(&journey.hops);
    if stages.is_empty() {
        return;
    }
    let text = format!("{} headers, layer by layer", journey.direction);
    canvas.title("ENCAPSULATION", Tone::Plain, "", &text);
    let drawings: Vec<_> =
        stages.iter().filter_map(|s| Some(layers(canvas, s.hops.first()?))).collect();
    let half = half(canvas);
    // Left cells that fit in half the line say how wide their column must be.
    let column = drawings
        .iter()
        .flat_map(|(outer, inner)| outer.iter().chain(inner))
        .filter_map(|l| l.ends.as_ref())
        .map(|[src, _]| src.width())
        .filter(|w| *w <= half)
        .max()
        .unwrap_or(half);
    let mut before: Option<&HopReport> = None;
    for (i, (stage, (outer, inner))) in stages.iter().zip(&drawings).enumerate() {
        if i == MAX_STAGES && !canvas.verbose() {
            let text = format!("{} {} more stages", canvas.glyphs().ellipsis, stages.len() - i);
            canvas.line(Line::new().add(Tone::Dim, text));
            return;
        }
        header(canvas, stage, before);
        framed(canvas, outer, canvas.glyphs().outer, Tone::Warn, column);
        framed(canvas, inner, canvas.glyphs().inner, Tone::Good, column);
        before = stage.hops.last().copied();
    }
}

fn stages(hops: &[HopReport]) -> Vec<Stage<'_>> {
    let mut stages: Vec<Stage<'_>> = Vec::new();
    for (i, hop) in hops.iter().enumerate() {
        match stages.last_mut() {
            Some(stage)
                if stage
                    .hops
                    .first()
                    .is_some_and(|h| h.inner == hop.inner && h.outer == hop.outer) =>
            {
                stage.hops.push(hop);
            }
            _ => stages.push(Stage { first: i + 1, hops: vec![hop] }),
        }
    }
    stages
}

/// Columns for one end of a layer where both stand on one line.
fn half(canvas: &Canvas) -> usize {
    canvas.width().saturating_sub(LEAD + 2 + canvas.glyphs().arrow.width()) / 2
}

/// `4  A.flannel.1  routed, 98 bytes`.
fn header(canvas: &mut Canvas, stage: &Stage<'_>, before: Option<&HopReport>) {
    let glyphs = canvas.glyphs();
    let last = stage.first + stage.hops.len() - 1;
    let numbers = match last {
        last if last == stage.first => last.to_string(),
        last => format!("{}{}{last}", stage.first, glyphs.dash),
    };
    // An interface crossed out and in again is named once.
    let mut labels: Vec<String> = stage.hops.iter().map(|h| words::label(&h.point)).collect();
    labels.dedup();
    let labels = labels.join(&format!(" {} ", glyphs.arrow));
    let lengths = stage.hops.iter().map(|h| h.length);
    let skbs = stage.hops.iter().map(|h| h.skbs).max().unwrap_or(1);
    let mut bytes = match (lengths.clone().min(), lengths.max()) {
        (Some(min), Some(max)) if min != max => format!("{min}{}{max} bytes", glyphs.dash),
        (min, _) => format!("{} bytes", min.unwrap_or(0)),
    };
    if skbs > 1 {
        bytes += &format!(", first of {skbs} skbs");
    }
    let what = stage.hops.first().map_or("", |hop| what_happened(before, hop));
    let text = if what.is_empty() { bytes } else { format!("{what}, {bytes}") };
    let numbers = format!("{numbers:<5} ");
    let indent = numbers.width();
    let head = Line::new().add(Tone::Strong, &*numbers).add(Tone::Strong, canvas.clean(&labels));
    if head.width() + 2 + text.width() <= canvas.width() {
        canvas.line(head.plain("  ").add(Tone::Dim, text));
    } else {
        let head = Line::new().add(Tone::Strong, numbers);
        canvas.paragraph(head, indent, Tone::Strong, &labels);
        canvas.line(Line::new().plain(" ".repeat(indent)).add(Tone::Dim, text));
    }
}

/// What the kernel did between the two, in a word.
fn what_happened(before: Option<&HopReport>, hop: &HopReport) -> &'static str {
    let Some(before) = before else { return "as it was sent" };
    let (a, b) = (&before.inner, &hop.inner);
    match (&before.outer, &hop.outer) {
        (None, Some(_)) => "encapsulated",
        (Some(_), None) => "decapsulated",
        _ if (&a.src_ip, &a.dst_ip, a.src_port, a.dst_port)
            != (&b.src_ip, &b.dst_ip, b.src_port, b.dst_port) =>
        {
            "address translated"
        }
        _ if a.ttl > b.ttl => "routed",
        (Some(x), Some(y)) if x.ttl > y.ttl => "routed on the way",
        _ => "changed",
    }
}

/// The outer and the inner layers.
fn layers(canvas: &Canvas, hop: &HopReport) -> (Vec<Layer>, Vec<Layer>) {
    let cell = |address: &str| Cell {
        address: canvas.clean(address),
        name: hop.names.get(address).map(|n| canvas.clean(n)),
    };
    let ends = |label: &str, src: &str, dst: &str, text: String| Layer {
        label: label.to_owned(),
        ends: Some([cell(src), cell(dst)]),
        text,
    };
    let ethernet = |src: &Option<String>, dst: &Option<String>| match (src, dst) {
        (Some(src), Some(dst)) => Some(ends("Ether", src, dst, String::new())),
        _ => None,
    };
    let network = |src: &str, dst: &str, ttl: u8| {
        let label = if src.contains(':') { "IPv6" } else { "IPv4" };
        ends(label, src, dst, format!("ttl {ttl}"))
    };
    let text = |label: &str, text: String| Layer { label: label.to_owned(), ends: None, text };
    let mut outer = Vec::new();
    if let Some(OuterReport { src_mac, dst_mac, src_ip, dst_ip, ttl, vni, udp_src, udp_dst }) =
        &hop.outer
    {
        outer.extend(ethernet(src_mac, dst_mac));
        outer.push(network(src_ip, dst_ip, *ttl));
        outer.push(text("UDP", format!("{udp_src} {} {udp_dst}", canvas.glyphs().arrow)));
        outer.extend(vni.map(|vni| text("VXLAN", format!("VNI {vni}"))));
    }
    let mut inner = Vec::from_iter(ethernet(&hop.inner.src_mac, &hop.inner.dst_mac));
    inner.push(network(&hop.inner.src_ip, &hop.inner.dst_ip, hop.inner.ttl));
    let (label, words) = transport(canvas, &hop.inner);
    inner.push(text(&canvas.shorten(&label, LABEL), words));
    (outer, inner)
}

/// Label and text of the transport layer.
fn transport(canvas: &Canvas, header: &HeaderReport) -> (String, String) {
    let label = match header.proto.as_str() {
        "icmpv6" => "ICMPv6".to_owned(),
        proto => canvas.clean(proto).to_uppercase(),
    };
    let mut parts = Vec::new();
    if let (Some(src), Some(dst)) = (header.src_port, header.dst_port) {
        parts.push(format!("{src} {} {dst}", canvas.glyphs().arrow));
    }
    if let Some(flags) = &header.tcp_flags {
        parts.push(format!("flags {flags}"));
    }
    parts.extend(header.tcp_seq.map(|seq| format!("seq {seq}")));
    parts.extend(header.tcp_ack.filter(|ack| *ack != 0).map(|ack| format!("ack {ack}")));
    if let (Some(kind), Some(code)) = (header.icmp_type, header.icmp_code) {
        parts.push(match (header.proto.as_str(), kind) {
            ("icmp", 8) | ("icmpv6", 128) => "echo request".to_owned(),
            ("icmp", 0) | ("icmpv6", 129) => "echo reply".to_owned(),
            _ => format!("type {kind} code {code}"),
        });
    }
    parts.extend(header.icmp_id.map(|id| format!("id {id}")));
    parts.extend(header.icmp_seq.map(|seq| format!("seq {seq}")));
    if let Some(offset) = header.fragment_offset {
        let more = if header.more_fragments == Some(true) { ", more follow" } else { ", the last" };
        parts.push(format!("fragment at byte {offset}{more}"));
    }
    (label, parts.join(", "))
}

/// Draws layers with a frame on their left.
fn framed(canvas: &mut Canvas, layers: &[Layer], frame: [&str; 3], tone: Tone, column: usize) {
    let arrow = canvas.glyphs().arrow;
    let mut rows: Vec<Line> = Vec::new();
    for layer in layers {
        let label = Line::new().cell(Tone::Dim, &layer.label, LABEL, false).plain(" ");
        let Some([src, dst]) = &layer.ends else {
            rows.push(label.plain(layer.text.as_str()));
            continue;
        };
        let room = canvas.width().saturating_sub(LEAD);
        let right = room.saturating_sub(column + 2 + arrow.width());
        let last = if src.width() <= column && dst.width() <= right {
            let line = src.add(canvas, label, column, true);
            dst.add(canvas, line.plain(format!(" {arrow} ")), right, false)
        } else {
            rows.push(src.add(canvas, label, room, false));
            let line = Line::new().plain(" ".repeat(LABEL + 1)).plain(format!("{arrow} "));
            dst.add(canvas, line, room.saturating_sub(arrow.width() + 1), false)
        };
        let note = Line::new().add(Tone::Dim, layer.text.as_str());
        if layer.text.is_empty() {
            rows.push(last);
        } else if LEAD - LABEL - 1 + last.width() + 2 + note.width() <= canvas.width() {
            rows.push(last.plain("  ").add(Tone::Dim, layer.text.as_str()));
        } else {
            rows.push(last);
            rows.push(Line::new().plain(" ".repeat(LABEL + 1)).add(Tone::Dim, layer.text.as_str()));
        }
    }
    let [top, middle, bottom] = frame;
    let end = rows.len().saturating_sub(1);
    for (i, row) in rows.into_iter().enumerate() {
        let bar = match i {
            0 => top,
            i if i == end => bottom,
            _ => middle,
        };
        canvas.line(Line::new().plain(" ").add(tone, bar).plain(" ").append(row));
    }
}
