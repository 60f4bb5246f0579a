//! Payloads: a message's JSON form, compressed where that pays, with a bound on what is unpacked.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::proto::Payload;
use crate::node::message;

/// Below it compressing does not pay, bytes.
const COMPRESS_FROM: usize = 4 << 10;

/// The fastest.
const LEVEL: i32 = 1;

/// What a collector may send in one message, bytes.
pub const MAX_REQUEST: usize = 1 << 20;

/// What an agent may answer in one message, bytes: the network state of a node with very many
/// packet-filter rules.
pub const MAX_ANSWER: usize = 64 << 20;

/// Packs a message.
///
/// # Errors
/// When memory runs out, in words.
pub fn pack<T: Serialize>(message: &T) -> Result<Payload, String> {
    let bytes = message::to_bytes(message).map_err(|error| error.to_string())?;
    if bytes.len() < COMPRESS_FROM {
        return Ok(Payload { data: bytes.into(), unpacked: 0 });
    }
    let packed = zstd::bulk::compress(&bytes, LEVEL).map_err(|error| error.to_string())?;
    Ok(Payload { data: packed.into(), unpacked: bytes.len() as u64 })
}

/// Unpacks a message of at most `limit` bytes.
///
/// # Errors
/// When it is larger, or no such message, in words.
pub fn unpack<T: DeserializeOwned>(payload: &Payload, limit: usize) -> Result<T, String> {
    let too_large = || format!("a message of more than {limit} bytes");
    if payload.unpacked == 0 {
        if payload.data.len() > limit {
            return Err(too_large());
        }
        return message::from_bytes(&payload.data).map_err(|error| error.to_string());
    }
    let size = usize::try_from(payload.unpacked).ok().filter(|size| *size <= limit);
    let size = size.ok_or_else(too_large)?;
    let bytes = zstd::bulk::decompress(&payload.data, size).map_err(|error| error.to_string())?;
    message::from_bytes(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        for size in [0, 10, COMPRESS_FROM, 1 << 20] {
            let text = "a".repeat(size);
            let payload = pack(&text).unwrap();
            assert_eq!(payload.unpacked > 0, size >= COMPRESS_FROM);
            assert_eq!(unpack::<String>(&payload, 2 << 20).unwrap(), text);
        }
    }

    #[test]
    fn bombs_are_not_unpacked() {
        let payload = pack(&"a".repeat(1 << 20)).unwrap();
        assert!(payload.data.len() < 1 << 12);
        assert!(unpack::<String>(&payload, 1 << 16).unwrap_err().contains("more than 65536"));
        // Who lies about the size gets no more than what was said.
        let liar = Payload { unpacked: 1 << 10, ..payload.clone() };
        assert!(unpack::<String>(&liar, 1 << 16).is_err());
        let huge = Payload { unpacked: u64::MAX, ..payload };
        assert!(unpack::<String>(&huge, 1 << 16).is_err());
    }

    #[test]
    fn garbage_is_refused() {
        for unpacked in [0, 5] {
            let payload = Payload { data: vec![0xff, 0, 1].into(), unpacked };
            assert!(unpack::<String>(&payload, 1 << 10).is_err());
        }
    }
}
