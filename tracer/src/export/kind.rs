//! What a recording can be turned into.

/// A format that is made of a recording, not of the report alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The report, for programs
    Json,
    /// Every sighting of a packet, one JSON object each
    Jsonl,
    /// Packets for Wireshark and tshark
    Pcapng,
    /// A page of its own, for a browser
    Html,
    /// For an issue
    Markdown,
    /// The path as a picture
    Svg,
    /// Timeline for ui.perfetto.dev
    Perfetto,
    /// A recording again, for --privacy
    Podtrace,
}

impl Kind {
    /// What files of this format end in.
    pub fn extension(self) -> &'static str {
        match self {
            Kind::Json => "json",
            Kind::Jsonl => "jsonl",
            Kind::Pcapng => "pcapng",
            Kind::Html => "html",
            Kind::Markdown => "md",
            Kind::Svg => "svg",
            // Two formats of JSON stand side by side.
            Kind::Perfetto => "perfetto.json",
            Kind::Podtrace => "podtrace",
        }
    }
}
