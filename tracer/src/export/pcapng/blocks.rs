//! Blocks of the file format, little endian (draft-ietf-opsawg-pcapng).

use std::io::{self, Write};
use std::net::IpAddr;

use crate::model::Mac;

/// Type of the section header block, and its byte-order magic.
const SECTION: u32 = 0x0a0d_0d0a;
const MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const NAMES: u32 = 4;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// LINKTYPE_ETHERNET
pub(super) const ETHERNET: u16 = 1;
/// LINKTYPE_RAW: begins with an IP header.
pub(super) const RAW: u16 = 101;

/// Option codes.
pub(super) mod option {
    /// Of every block.
    pub const COMMENT: u16 = 1;
    pub const SHB_OS: u16 = 3;
    pub const SHB_APPLICATION: u16 = 4;
    pub const IF_NAME: u16 = 2;
    pub const IF_DESCRIPTION: u16 = 3;
    pub const IF_IPV4: u16 = 4;
    pub const IF_IPV6: u16 = 5;
    pub const IF_MAC: u16 = 6;
    pub const IF_TSRESOL: u16 = 9;
    pub const IF_OS: u16 = 12;
    pub const EPB_FLAGS: u16 = 2;
    pub const EPB_PACKETID: u16 = 5;
    pub const EPB_VERDICT: u16 = 7;
    pub const ISB_STARTTIME: u16 = 2;
    pub const ISB_ENDTIME: u16 = 3;
    pub const ISB_IFRECV: u16 = 4;
    pub const ISB_IFDROP: u16 = 5;
}

/// The longest text of an option; a longer one is cut.
const TEXT: usize = 8192;

/// A block in the making.
pub(super) struct Block {
    kind: u32,
    body: Vec<u8>,
}

impl Block {
    fn new(kind: u32) -> Self {
        Self { kind, body: Vec::new() }
    }

    fn u16(mut self, value: u16) -> Self {
        self.body.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.body.extend(value.to_le_bytes());
        self
    }

    fn time(self, ns: u64) -> Self {
        self.u32((ns >> 32) as u32).u32(ns as u32)
    }

    fn padded(mut self, bytes: &[u8]) -> Self {
        self.body.extend_from_slice(bytes);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
        self
    }

    /// The start of a section; of unknown length.
    pub fn section() -> Self {
        let block = Self::new(SECTION).u32(MAGIC).u16(1).u16(0);
        block.u32(u32::MAX).u32(u32::MAX)
    }

    /// An interface.
    pub fn interface(link_type: u16) -> Self {
        Self::new(INTERFACE).u16(link_type).u16(0).u32(0)
    }

    /// A captured frame.
    pub fn packet(interface: u32, ns: u64, data: &[u8], len: u32) -> Self {
        let captured = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let len = len.max(captured);
        Self::new(PACKET).u32(interface).time(ns).u32(captured).u32(len).padded(data)
    }

    /// Counts of an interface.
    pub fn statistics(interface: u32, ns: u64) -> Self {
        Self::new(STATISTICS).u32(interface).time(ns)
    }

    /// Names of addresses.
    pub fn names<'a>(names: impl Iterator<Item = (&'a IpAddr, &'a String)>) -> Self {
        let mut block = Self::new(NAMES);
        for (ip, name) in names {
            let (kind, mut value) = match ip {
                IpAddr::V4(ip) => (1, ip.octets().to_vec()),
                IpAddr::V6(ip) => (2, ip.octets().to_vec()),
            };
            value.extend_from_slice(cut(name).as_bytes());
            value.push(0);
            let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
            block = block.u16(kind).u16(len).padded(&value);
        }
        // nrb_record_end; the option list after it is empty.
        block.u32(0)
    }

    /// Adds an option.
    pub fn option(self, code: u16, value: &[u8]) -> Self {
        let Ok(len) = u16::try_from(value.len()) else { return self };
        self.u16(code).u16(len).padded(value)
    }

    /// Adds a text as an option; an empty one is left out.
    pub fn text(self, code: u16, text: &str) -> Self {
        // Zero bytes end texts in some readers.
        let text = text.replace('\0', "\u{fffd}");
        if text.is_empty() { self } else { self.option(code, cut(&text).as_bytes()) }
    }

    /// Adds a hardware address as an option.
    pub fn mac(self, code: u16, mac: Mac) -> Self {
        self.option(code, &mac.0)
    }

    /// Writes it.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        // opt_endofopt; harmless where there is no option.
        let Self { kind, body } = if self.kind == NAMES { self } else { self.u32(0) };
        let len = u32::try_from(body.len() + 12).map_err(|_| io::ErrorKind::InvalidData)?;
        out.write_all(&kind.to_le_bytes())?;
        out.write_all(&len.to_le_bytes())?;
        out.write_all(&body)?;
        out.write_all(&len.to_le_bytes())
    }
}

/// At most [`TEXT`] bytes of a text.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_padded_and_say_their_length_twice() {
        for block in [
            Block::section().text(option::SHB_OS, "abc"),
            Block::interface(ETHERNET).mac(option::IF_MAC, Mac([1; 6])),
            Block::packet(1, 5 << 32 | 7, b"12345", 3),
            Block::names([(&IpAddr::from([10, 0, 0, 1]), &"a".to_owned())].into_iter()),
        ] {
            let mut bytes = Vec::new();
            block.write(&mut bytes).unwrap();
            assert_eq!(bytes.len() % 4, 0);
            let len = (bytes.len() as u32).to_le_bytes();
            assert_eq!((&bytes[4..8], &bytes[bytes.len() - 4..]), (&len[..], &len[..]));
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(TEXT)).len(), TEXT);
        assert_eq!(cut(&format!("x{}", "ä".repeat(TEXT))).len(), TEXT - 1);
    }
}
