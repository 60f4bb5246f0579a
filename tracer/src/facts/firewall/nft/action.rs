//! Statements that decide, or change the packet.

use serde_json::Value;

use super::super::{Action, PortRange};
use super::{array, compact, only_member, word};

/// `None`: not understood.
pub(super) fn parse(kind: &str, body: &Value) -> Option<Action> {
    let flag = |name: &str| match body.get("flags") {
        Some(Value::String(flag)) => flag == name,
        flags => array(flags).iter().any(|f| f.as_str() == Some(name)),
    };
    let random = flag("random") || flag("fully-random");
    Some(match kind {
        "accept" => Action::Accept,
        "drop" => Action::Drop,
        "continue" => Action::Continue,
        "return" => Action::Return,
        "jump" => Action::Jump(word(body, "target")?.to_owned()),
        "goto" => Action::Goto(word(body, "target")?.to_owned()),
        "reject" => {
            let parts = [word(body, "type"), word(body, "expr")];
            let with: Vec<&str> = parts.into_iter().flatten().collect();
            Action::Reject { with: with.join(" ") }
        }
        "queue" => Action::Queue,
        "notrack" => Action::NoTrack,
        "snat" => Action::Snat { to: target(body)?, random },
        "dnat" => Action::Dnat { to: target(body)? },
        "masquerade" => Action::Masquerade { ports: ports(body), random },
        "redirect" => Action::Redirect { ports: ports(body) },
        "mangle" => mangle(body)?,
        _ => return None,
    })
}

/// `10.0.0.1:80`, `[fd00::1]:80`.
fn target(body: &Value) -> Option<String> {
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => match (only_member(other), other.get("range").map(|r| array(Some(r)))) {
            (Some(("range", _)), Some([first, last])) => {
                format!("{}-{}", words(first), words(last))
            }
            _ => compact(other),
        },
    };
    let address = body.get("addr").map(plain);
    let port = body.get("port").map(plain);
    Some(match (address, port) {
        (Some(address), None) => address,
        (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
        (None, Some(port)) => format!(":{port}"),
        (None, None) => return None,
    })
}

fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| compact(value), str::to_owned)
}

fn ports(body: &Value) -> Option<PortRange> {
    super::matching::ports(body.get("port")?)
}

/// `meta mark set …`.
fn mangle(body: &Value) -> Option<Action> {
    let key = body.get("key")?;
    if word(key.get("meta")?, "key") != Some("mark") {
        return None;
    }
    let value = body.get("value")?;
    if let Some(value) = small(value) {
        return Some(Action::SetMark { value, mask: u32::MAX });
    }
    let (operator, operands) = only_member(value)?;
    let [old, bits] = array(Some(operands)) else { return None };
    if operator == "|"
        && let Some(("&", inner)) = only_member(old)
        && let [oldest, kept] = array(Some(inner))
        && oldest == key
    {
        // `meta mark & 0xffffff0f | 0x20`: clear, then set.
        let (kept, bits) = (small(kept)?, small(bits)?);
        return Some(Action::SetMark { value: bits, mask: !kept | bits });
    }
    let bits = small(bits).filter(|_| old == key)?;
    Some(match operator {
        "|" => Action::SetMark { value: bits, mask: bits },
        "^" => Action::SetMark { value: bits, mask: 0 },
        "&" => Action::SetMark { value: 0, mask: !bits },
        _ => return None,
    })
}

fn small(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}
