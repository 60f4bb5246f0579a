//! The running kernel's BTF: byte offsets of struct members, names of enum values, argument counts.
//!
//! Format: Documentation/bpf/btf.rst and include/uapi/linux/btf.h (Linux 6.18). Only what the loader
//! asks for is decoded; a file that is not what it should be is an error, never a panic.

use std::collections::HashMap;
use std::path::Path;

/// Where the kernel shows its own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

// BTF_KIND_* (include/uapi/linux/btf.h)
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FWD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// How deep anonymous members and modifiers are followed before the file is called broken.
const MAX_DEPTH: u32 = 32;

/// Why BTF cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("cannot read kernel type information {path}: {source}")]
    Read {
        /// File.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not BTF.
    #[error("kernel type information is malformed: {0}")]
    Malformed(&'static str),
    /// The kernel has no such member.
    #[error("this kernel has no {0}")]
    Missing(String),
}

/// Parsed BTF.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    strings: std::ops::Range<usize>,
    /// Offset of each type's record, by type id; id 0 is void.
    types: Vec<usize>,
    by_name: HashMap<(u32, String), u32>,
}

impl Btf {
    /// Reads and parses a BTF file (about 10 ms for vmlinux).
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let bytes = std::fs::read(path)
            .map_err(|source| BtfError::Read { path: path.display().to_string(), source })?;
        Self::parse(bytes)
    }

    /// Parses raw BTF in host byte order.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let short = BtfError::Malformed("truncated");
        let magic = bytes.get(0..2).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        if magic != Some(MAGIC) {
            return Err(BtfError::Malformed("wrong magic number"));
        }
        let word = |at: usize| read_u32(&bytes, at);
        let (Some(header), Some(type_off), Some(type_len), Some(str_off), Some(str_len)) =
            (word(4), word(8), word(12), word(16), word(20))
        else {
            return Err(short);
        };
        let place = |off: usize, len: usize| {
            let start = header.checked_add(off)?;
            let end = start.checked_add(len)?;
            (end <= bytes.len()).then_some(start..end)
        };
        let (Some(types_at), Some(strings)) = (place(type_off, type_len), place(str_off, str_len))
        else {
            return Err(short);
        };
        let mut btf = Self { bytes, strings, types: vec![0], by_name: HashMap::new() };
        let mut at = types_at.start;
        while at < types_at.end {
            let (kind, count, _) = btf.info_at(at).ok_or(BtfError::Malformed("truncated type"))?;
            let extra = match kind {
                INT | VAR | DECL_TAG => 4,
                ARRAY => 12,
                STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
                ENUM | FUNC_PROTO => 8 * count,
                PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
                _ => return Err(BtfError::Malformed("unknown kind of type")),
            };
            let id = u32::try_from(btf.types.len()).map_err(|_| BtfError::Malformed("too long"))?;
            btf.types.push(at);
            if matches!(kind, STRUCT | UNION | ENUM | ENUM64 | TYPEDEF)
                && let Some(name) = read_u32(&btf.bytes, at).and_then(|n| btf.string(n))
                && !name.is_empty()
            {
                let key = (kind, name.to_owned());
                btf.by_name.entry(key).or_insert(id);
            }
            at += 12 + extra;
        }
        Ok(btf)
    }

    /// Kind, number of members, and the kind flag of the type record at a byte offset.
    fn info_at(&self, at: usize) -> Option<(u32, usize, bool)> {
        let info = u32::try_from(read_u32(&self.bytes, at + 4)?).ok()?;
        Some(((info >> 24) & 0x1f, (info & 0xffff) as usize, info >> 31 != 0))
    }

    fn at(&self, id: usize) -> Option<usize> {
        (id != 0).then(|| self.types.get(id).copied()).flatten()
    }

    fn string(&self, offset: usize) -> Option<&str> {
        let all = self.bytes.get(self.strings.clone())?;
        let from = all.get(offset..)?;
        let end = from.iter().position(|b| *b == 0)?;
        std::str::from_utf8(&from[..end]).ok()
    }

    /// Through typedefs and qualifiers to the type itself.
    fn strip(&self, mut id: usize) -> Option<usize> {
        for _ in 0..MAX_DEPTH {
            let at = self.at(id)?;
            match self.info_at(at)?.0 {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => {
                    id = read_u32(&self.bytes, at + 8)?;
                }
                _ => return Some(id),
            }
        }
        None
    }

    /// Bit offset and type of a member, descending into anonymous structs and unions.
    fn member(&self, id: usize, name: &str, depth: u32) -> Option<(usize, usize)> {
        let at = self.at(id)?;
        let (kind, count, with_bitfields) = self.info_at(at)?;
        if !matches!(kind, STRUCT | UNION) || depth > MAX_DEPTH {
            return None;
        }
        for i in 0..count {
            let m = at + 12 + 12 * i;
            let offset = read_u32(&self.bytes, m + 8)?;
            let bits = if with_bitfields { offset & 0xff_ffff } else { offset };
            let of_type = read_u32(&self.bytes, m + 4)?;
            let member_name = self.string(read_u32(&self.bytes, m)?)?;
            if member_name == name {
                return Some((bits, of_type));
            }
            if member_name.is_empty()
                && let Some(inner) = self.strip(of_type)
                && let Some((below, t)) = self.member(inner, name, depth + 1)
            {
                return Some((bits + below, t));
            }
        }
        None
    }

    /// Byte offset of a member by dotted path, e.g. `offset("net", "ns.inum")`.
    ///
    /// # Errors
    /// When the kernel has no such struct or member, or it is a bit field.
    pub fn offset(&self, of: &str, path: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::Missing(format!("struct {of}.{path}"));
        let mut id = *self.by_name.get(&(STRUCT, of.to_owned())).ok_or_else(missing)? as usize;
        let mut bits = 0;
        for name in path.split('.') {
            let (b, t) =
                self.strip(id).and_then(|id| self.member(id, name, 0)).ok_or_else(missing)?;
            bits += b;
            id = t;
        }
        if bits % 8 != 0 {
            return Err(missing());
        }
        u32::try_from(bits / 8).map_err(|_| missing())
    }

    /// Values and names of an enum; empty when the kernel has no such enum.
    pub fn enum_names(&self, name: &str) -> HashMap<u32, String> {
        let mut names = HashMap::new();
        if let Some(&id) = self.by_name.get(&(ENUM, name.to_owned()))
            && let Some(at) = self.at(id as usize)
            && let Some((_, count, _)) = self.info_at(at)
        {
            for i in 0..count {
                let m = at + 12 + 8 * i;
                if let (Some(value), Some(text)) = (
                    read_u32(&self.bytes, m + 4),
                    read_u32(&self.bytes, m).and_then(|n| self.string(n)),
                ) && let Ok(value) = u32::try_from(value)
                {
                    names.insert(value, text.to_owned());
                }
            }
        }
        names
    }

    /// Whether a BTF tracepoint of this name exists (its type is `typedef btf_trace_NAME`).
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.by_name.contains_key(&(TYPEDEF, format!("btf_trace_{name}")))
    }

    /// Arguments of a BTF tracepoint, without the leading context pointer.
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let id = *self.by_name.get(&(TYPEDEF, format!("btf_trace_{name}")))?;
        let pointer = self.at(self.strip(id as usize)?)?;
        if self.info_at(pointer)?.0 != PTR {
            return None;
        }
        let proto = self.at(read_u32(&self.bytes, pointer + 8)?)?;
        let (kind, count, _) = self.info_at(proto)?;
        (kind == FUNC_PROTO).then(|| count.saturating_sub(1))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<usize> {
    let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_ne_bytes(word) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF file with `types` (words) and `strings`.
    fn file(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut out = Vec::new();
        out.extend(MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(types);
        out.extend(strings);
        out
    }

    #[test]
    fn finds_members_through_anonymous_unions() {
        // 1: int; 2: union { int inner } anonymous; 3: struct s { int first; <2> }
        let strings = b"\0int\0inner\0s\0first\0";
        let types = [
            1,
            INT << 24,
            4,
            32, // int
            0,
            UNION << 24 | 1,
            4,
            5,
            1,
            0, // union
            11,
            STRUCT << 24 | 2,
            8,
            13,
            1,
            0,
            0,
            2,
            32, // struct s
        ];
        let btf = Btf::parse(file(&types, strings)).unwrap();
        assert_eq!(btf.offset("s", "first").unwrap(), 0);
        assert_eq!(btf.offset("s", "inner").unwrap(), 4);
        assert_eq!(
            btf.offset("s", "gone").unwrap_err().to_string(),
            "this kernel has no struct s.gone"
        );
    }

    #[test]
    fn refuses_what_is_not_btf() {
        assert!(Btf::parse(vec![]).is_err());
        assert!(Btf::parse(vec![0; 64]).is_err());
        // A type that refers to itself must not hang.
        let types = [1, TYPEDEF << 24, 1, 1, STRUCT << 24 | 1, 4, 0, 2, 0];
        let btf = Btf::parse(file(&types, b"\0s\0")).unwrap();
        assert!(btf.offset("s", "x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            if bytes.len() > 24 {
                bytes[..2].copy_from_slice(&MAGIC.to_ne_bytes());
                bytes[4..8].copy_from_slice(&24u32.to_ne_bytes());
                for word in [8, 12, 16, 20] {
                    bytes[word + 1..word + 4].fill(0);
                }
            }
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = btf.offset("s", "x.y");
                let _ = btf.enum_names("s");
                let _ = btf.tracepoint_args("s");
            }
        }
    }
}
