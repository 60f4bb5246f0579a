//! A small DNS server's mind: query → answer. Pure; no input can make it panic.
//!
//! Enters: a query (RFC 1035 section 4) and the lab's plan. Leaves: an answer with the ClusterIPs of
//! `SERVICE.default.svc.cluster.local`, or the error that says why there is none.

use std::net::IpAddr;

use super::plan::Plan;
use super::services::NAMESPACE;

/// What follows the service's name.
const ZONE: &str = "svc.cluster.local";
/// Bytes of a message's header.
const HEADER: usize = 12;
/// Flags, as their 16 bits (section 4.1.1): a response, its operation, authoritative, recursion desired.
const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AUTHORITATIVE: u16 = 0x0400;
const DESIRED: u16 = 0x0100;
/// Response codes.
const NO_ERROR: u16 = 0;
const FORMAT_ERROR: u16 = 1;
const NO_SUCH_NAME: u16 = 3;
const NOT_IMPLEMENTED: u16 = 4;
/// Types of records: A, AAAA (RFC 3596).
const A: u16 = 1;
const AAAA: u16 = 28;
/// Class IN.
const INTERNET: u16 = 1;
/// How long an answer may be kept, as CoreDNS says, s.
const TTL: u32 = 5;
/// Points to the name in the question (section 4.1.4).
const QUESTION_NAME: u16 = 0xc000 | HEADER as u16;

/// The answer to a query; `None` to what is none: too short, or an answer itself.
pub(super) fn answer(plan: &Plan, query: &[u8]) -> Option<Vec<u8>> {
    let id = be16(query, 0)?;
    let flags = be16(query, 2)?;
    let questions = be16(query, 4)?;
    query.get(..HEADER)?;
    if flags & RESPONSE != 0 {
        return None;
    }
    let keep = RESPONSE | AUTHORITATIVE | (flags & (OPCODE | DESIRED));
    let refuse = |code: u16| Some(message(id, keep | code, &[], &[]));
    if flags & OPCODE != 0 {
        return refuse(NOT_IMPLEMENTED);
    }
    let question = if questions == 1 { question(query) } else { None };
    let Some((name, kind, bytes)) = question else { return refuse(FORMAT_ERROR) };
    let Some(ips) = lookup(plan, &name) else {
        return Some(message(id, keep | NO_SUCH_NAME, bytes, &[]));
    };
    let wanted = |ip: &&IpAddr| (kind == A && ip.is_ipv4()) || (kind == AAAA && ip.is_ipv6());
    let ips: Vec<IpAddr> = ips.iter().filter(wanted).copied().collect();
    Some(message(id, keep | NO_ERROR, bytes, &ips))
}

/// Name, type and all bytes of the question.
fn question(query: &[u8]) -> Option<(String, u16, &[u8])> {
    let mut labels: Vec<String> = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        match length {
            0 => break,
            // Longer ones are pointers, which a question has no use for.
            1..=63 => {
                let label = query.get(at..at + length)?;
                labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                at += length;
            }
            _ => return None,
        }
    }
    let (kind, class) = (be16(query, at)?, be16(query, at + 2)?);
    (class == INTERNET).then_some(())?;
    Some((labels.join("."), kind, query.get(HEADER..at + 4)?))
}

fn lookup<'p>(plan: &'p Plan, name: &str) -> Option<&'p [IpAddr]> {
    let (service, rest) = name.split_once('.')?;
    if rest != format!("{NAMESPACE}.{ZONE}") {
        return None;
    }
    plan.services.iter().find(|s| s.name == service).map(|s| s.ips.as_slice())
}

fn message(id: u16, flags: u16, question: &[u8], ips: &[IpAddr]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + question.len() + ips.len() * 28);
    let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let questions = u16::from(!question.is_empty());
    for word in [id, flags, questions, count(ips.len()), 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(question);
    for ip in ips {
        let (kind, data) = match ip {
            IpAddr::V4(ip) => (A, ip.octets().to_vec()),
            IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
        };
        for word in [QUESTION_NAME, kind, INTERNET] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&TTL.to_be_bytes());
        out.extend_from_slice(&count(data.len()).to_be_bytes());
        out.extend_from_slice(&data);
    }
    out
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::config::LabConfig;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            out.push(u8::try_from(label.len()).expect("short"));
            out.extend_from_slice(label.as_bytes());
        }
        out.extend_from_slice(&[0]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&INTERNET.to_be_bytes());
        out
    }

    fn ask(query: &[u8]) -> Option<Vec<u8>> {
        answer(&Plan::new(&LabConfig::default()), query)
    }

    #[test]
    fn services_have_addresses() {
        let four = ask(&query("DNS.default.svc.cluster.local", A)).expect("an answer");
        assert_eq!(four[..4], [0x12, 0x34, 0x85, 0]);
        assert_eq!(four[6..8], [0, 1]);
        assert!(four.ends_with(&[0, 4, 10, 96, 0, 53]));
        let six = ask(&query("dns.default.svc.cluster.local", AAAA)).expect("an answer");
        assert!(six.ends_with(&[0, 0x53]));
        // It exists, but not as what was asked for.
        let text = ask(&query("dns.default.svc.cluster.local", 16)).expect("an answer");
        assert_eq!((text[3] & 15, text[7]), (0, 0));
    }

    #[test]
    fn what_is_no_question_is_refused_or_ignored() {
        let unknown = ask(&query("nobody.default.svc.cluster.local", A)).expect("an answer");
        assert_eq!(u16::from(unknown[3] & 15), NO_SUCH_NAME);
        // A probe of podtrace: `ptrc`, and a number.
        let probe = ask(b"ptrc\0\0\0\0\0\0\0\x01").expect("an answer");
        assert_eq!((&probe[..2], u16::from(probe[3] & 15)), (&b"pt"[..], NOT_IMPLEMENTED));
        let mut answer = query("dns.default.svc.cluster.local", A);
        answer[2] |= 0x80;
        assert_eq!(ask(&answer), None);
        assert_eq!(ask(b"short"), None);
        let whole = query("dns.default.svc.cluster.local", A);
        for length in HEADER..whole.len() {
            let cut = ask(&whole[..length]).expect("an answer");
            assert_eq!(u16::from(cut[3] & 15), FORMAT_ERROR);
        }
    }
}
