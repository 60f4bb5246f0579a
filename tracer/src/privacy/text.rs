//! Texts: names that are known get their stand-ins, addresses theirs, and other words are kept only
//! where they are known to be harmless.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Mask;
use super::words::is_harmless;
use crate::model::Mac;

/// Names and what stands for them.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    names: HashMap<String, String>,
    counts: HashMap<&'static str, u32>,
}

impl Dictionary {
    /// The stand-in of a name, made from `kind` and a number when it is new.
    pub(super) fn add(&mut self, name: &str, kind: &'static str) -> String {
        // Every namespace has a loopback device of this name.
        if name.is_empty() || name == "lo" {
            return name.to_owned();
        }
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let standin = format!("{kind}{count}");
        self.names.insert(name.to_owned(), standin.clone());
        standin
    }

    pub(super) fn node(&mut self, name: &str) {
        self.add(name, "node");
    }

    pub(super) fn pod(&mut self, name: Option<&str>) {
        if let Some(name) = name {
            self.add(name, "pod");
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.names.get(name).map(String::as_str)
    }

    /// The longest known name at the start of `text`, with the character behind it no part of it.
    fn longest<'t>(&self, text: &'t str) -> Option<(&'t str, &str)> {
        let ends = text.char_indices().map(|(i, c)| (i, !is_word(c)));
        let ends: Vec<usize> = ends
            .filter(|(i, boundary)| *boundary && *i > 0)
            .map(|(i, _)| i)
            .chain([text.len()])
            .collect();
        ends.into_iter().rev().find_map(|end| Some((&text[..end], self.get(&text[..end])?)))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Whether four numbers with full stops between them are in it.
fn has_address(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    parts.windows(4).any(|four| {
        digits(four[1])
            && digits(four[2])
            && four[0].ends_with(|c: char| c.is_ascii_digit())
            && four[3].starts_with(|c: char| c.is_ascii_digit())
    })
}

/// The longest name looked for in a text, bytes.
const NAME: usize = 256;

impl Mask {
    /// An address in text, with or without prefix length.
    fn address(&self, text: &str) -> Option<String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(self.ip(ip).to_string());
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Some(self.net(net).to_string());
        }
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
            return Some(
                std::net::SocketAddr::new(self.ip(socket.ip()), socket.port()).to_string(),
            );
        }
        text.parse::<Mac>().ok().map(|mac| self.mac(mac).to_string())
    }

    /// A name on its own.
    pub(super) fn name(&mut self, name: &str, kind: &'static str) -> String {
        match self.address(name) {
            Some(address) => address,
            None => self.names.add(name, kind),
        }
    }

    /// A text.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            // An option of one letter is none of the names: `-A FORWARD` where a node is called A.
            if let [b'-', option, b' ', ..] = rest.as_bytes()
                && option.is_ascii_alphabetic()
                && (out.is_empty() || out.ends_with(' '))
            {
                out.push_str(&rest[..3]);
                rest = &rest[3..];
                continue;
            }
            if !c.is_alphanumeric() && !matches!(c, ':' | '_') {
                out.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
            let (taken, standin) = self.token(rest);
            out.push_str(&standin);
            rest = &rest[taken..];
        }
        out
    }

    /// What stands at the start of `rest`: how many bytes, and what to put there.
    fn token<'t>(&mut self, rest: &'t str) -> (usize, Cow<'t, str>) {
        let run = |of: fn(char) -> bool| rest.find(|c| !of(c)).unwrap_or(rest.len());
        // Addresses first: no name looks like one. A full stop or colon may end a sentence.
        let full = run(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '/'));
        let mut end = full;
        while end > 0 {
            let candidate = &rest[..end];
            if candidate.contains(['.', ':'])
                && let Some(standin) = self.address(candidate)
                && !rest[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                return (end, Cow::Owned(standin));
            }
            end = candidate.trim_end_matches(['.', ':', '/']).len().min(end - 1);
            if end + 8 < full {
                break;
            }
        }
        let near = &rest[..rest.floor_char_boundary(NAME)];
        if let Some((name, standin)) = self.names.longest(near) {
            return (name.len(), Cow::Owned(standin.to_owned()));
        }
        // An address that is part of a word (`pod-10.1.2.3`) would be taken for numbers.
        let wide = rest[..run(|c| is_word(c) || c == '.')].trim_end_matches('.');
        if has_address(wide) {
            return (wide.len(), Cow::Owned(self.names.add(wide, "word")));
        }
        let word = run(is_word).max(rest.chars().next().map_or(0, char::len_utf8));
        let word = &rest[..word];
        if is_harmless(word) {
            (word.len(), Cow::Borrowed(word))
        } else {
            (word.len(), Cow::Owned(self.names.add(word, "word")))
        }
    }
}
