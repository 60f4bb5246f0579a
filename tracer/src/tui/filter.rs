//! The filter: which packets are listed.

use crate::report::JourneyReport;

/// What a packet must have. `--proto P` and `--port N` are as on the command line; anything else is a
/// word that is to be found in what is known of the packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    proto: Option<String>,
    port: Option<u16>,
    words: Vec<String>,
}

impl Query {
    /// Reads what was typed; while an option has no value yet, it asks for nothing.
    pub fn of(text: &str) -> Self {
        let mut query = Self::default();
        let text = text.to_lowercase();
        let mut tokens = text.split_whitespace();
        while let Some(token) = tokens.next() {
            let (option, value) = match token.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value)),
                _ => (token, None),
            };
            match option {
                "--proto" => query.proto = value.or_else(|| tokens.next()).map(str::to_owned),
                "--port" => {
                    query.port = value.or_else(|| tokens.next()).and_then(|n| n.parse().ok());
                }
                _ => query.words.push(token.to_owned()),
            }
        }
        query
    }

    /// Whether the packet has all of it.
    pub fn admits(&self, journey: &JourneyReport) -> bool {
        let headers = || journey.hops.iter().map(|hop| &hop.inner);
        // As on the command line, ICMP is that of the packet's address family.
        let is_proto = |proto: &String| {
            headers().any(|h| h.proto == *proto || proto == "icmp" && h.proto == "icmpv6")
        };
        let has_port =
            |port: u16| headers().any(|h| h.src_port == Some(port) || h.dst_port == Some(port));
        self.proto.as_ref().is_none_or(is_proto)
            && self.port.is_none_or(has_port)
            && (self.words.is_empty() || self.finds_words(journey))
    }

    fn finds_words(&self, journey: &JourneyReport) -> bool {
        let mut text = format!("{} {} {:?}", journey.direction, journey.summary, journey.outcome);
        for hop in &journey.hops {
            let (inner, point) = (&hop.inner, &hop.point);
            text += &format!(" {} {} {}", inner.src_ip, inner.dst_ip, point.interface);
            text.extend(hop.names.values().map(|name| format!(" {name}")));
        }
        for drop in journey.drop.iter().chain(&journey.side_drops) {
            text += &format!(" {} {}", drop.reason.name, drop.function);
        }
        let text = text.to_lowercase();
        self.words.iter().all(|word| text.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fixtures;

    #[test]
    fn options_are_those_of_the_command_line() {
        let query = Query::of("--proto TCP seq --port=80");
        let words = vec!["seq".to_owned()];
        assert_eq!(query, Query { proto: Some("tcp".into()), port: Some(80), words });
        assert_eq!(Query::of("--port"), Query::default());
    }

    #[test]
    fn packets_are_admitted_by_protocol_port_and_words() {
        let (tcp, ping) = (fixtures::tcp(), fixtures::healthy());
        let admitted = |text: &str| {
            let count = |journeys: &[JourneyReport]| {
                journeys.iter().filter(|j| Query::of(text).admits(j)).count()
            };
            (count(&tcp.journeys), count(&ping.journeys))
        };
        let (all_tcp, all_ping) = (tcp.journeys.len(), ping.journeys.len());
        assert_eq!(admitted(""), (all_tcp, all_ping));
        assert_eq!(admitted("--proto tcp"), (all_tcp, 0));
        assert_eq!(admitted("--proto icmp"), (0, all_ping));
        let port = tcp.journeys[0].hops[0].inner.dst_port.unwrap();
        assert_eq!(admitted(&format!("--port {port}")), (all_tcp, 0));
        assert_eq!(admitted("--port 1"), (0, 0));
        assert_eq!(admitted("--proto icmp reply"), (0, all_ping / 2));
    }
}
