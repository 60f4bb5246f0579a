//! Kernel symbols: from an address in a stack to the function it lies in.

use std::collections::BTreeMap;

/// Addresses and names of the kernel's functions.
#[derive(Clone, Debug, Default)]
pub struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// A table from addresses (zero means unknown and is left out) and names.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u64, String)>) -> Self {
        Self(pairs.into_iter().filter(|(address, _)| *address != 0).collect())
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
}
