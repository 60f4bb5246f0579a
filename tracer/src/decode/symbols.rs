//! Kernel symbols: from an address in a stack to the function it lies in.

use std::collections::BTreeMap;

/// Addresses and names of the kernel's functions.
#[derive(Clone, Debug, Default)]
pub struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// A table from addresses (zero means unknown and is left out) and names as /proc/kallsyms has
    /// them. Kept is what the source calls the function: not the module behind it
    /// (`vxlan_xmit\t[vxlan]`), nor what a compiler appends to a part or a variant of it
    /// (`ip_rcv_core.isra.0`), so that the same place has the same name on every kernel.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u64, String)>) -> Self {
        let known = pairs.into_iter().filter(|(address, _)| *address != 0);
        Self(
            known
                .map(|(address, mut name)| {
                    name.truncate(name.find('\t').unwrap_or(name.len()));
                    // A leading dot is the name's own.
                    let suffix = name.char_indices().skip(1).find(|(_, c)| *c == '.');
                    name.truncate(suffix.map_or(name.len(), |(at, _)| at));
                    (address, name)
                })
                .collect(),
        )
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name of the function that `address` lies in, or the address itself in hexadecimal.
    pub fn name(&self, address: u64) -> String {
        match self.0.range(..=address).next_back() {
            Some((_, name)) => name.clone(),
            None => format!("{address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_function_before_the_address() {
        let s = Symbols::from_pairs([(0x1000, "a".into()), (0x2000, "b".into())]);
        assert_eq!(s.name(0x1fff), "a");
        assert_eq!(s.name(0x2000), "b");
        assert_eq!(s.name(0x10), "0x10");
    }

    #[test]
    fn names_are_those_of_the_source() {
        let names =
            ["vxlan_xmit\t[vxlan]", "ip_rcv_core.isra.0", "icmp_rcv.part.0.cold\t[x]", ".L1"];
        let s = Symbols::from_pairs((1..).zip(names.map(str::to_owned)));
        let read: Vec<_> = (1..=4).map(|address| s.name(address)).collect();
        assert_eq!(read, ["vxlan_xmit", "ip_rcv_core", "icmp_rcv", ".L1"]);
    }
}
