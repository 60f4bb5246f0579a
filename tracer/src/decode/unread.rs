//! Events that could not be read. The kernel side let them through, so packets of the flow may have been
//! there: they are counted where they happened, and nothing is called lost beside them.

use std::collections::BTreeMap;

use crate::model::Loss;

/// Events that could not be read, by the node at which they happened.
#[derive(Clone, Debug, Default)]
pub struct Unread {
    by_node: BTreeMap<String, u64>,
    /// Nobody knows where.
    somewhere: u64,
}

impl Unread {
    /// Counts one; `node`: where it happened, where that is known.
    pub fn count(&mut self, node: Option<&str>) {
        match node {
            None => self.somewhere += 1,
            Some(node) => match self.by_node.get_mut(node) {
                Some(count) => *count += 1,
                None => drop(self.by_node.insert(node.to_owned(), 1)),
            },
        }
    }

    /// Adds them to what else was lost at each node; those of which nobody knows where they happened
    /// to the last.
    pub fn add_to(&self, losses: &mut Vec<(String, Loss)>) {
        for (node, count) in &self.by_node {
            match losses.iter_mut().find(|(known, _)| known == node) {
                Some((_, loss)) => loss.undecodable += count,
                None => {
                    let loss = Loss { undecodable: *count, ..Loss::default() };
                    losses.insert(0, (node.clone(), loss));
                }
            }
        }
        if let Some((_, loss)) = losses.last_mut() {
            loss.undecodable += self.somewhere;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_at_its_node() {
        let mut unread = Unread::default();
        for node in [Some("A"), Some("B"), Some("A"), None] {
            unread.count(node);
        }
        let mut losses = vec![("A".to_owned(), Loss { late: 1, ..Loss::default() })];
        unread.add_to(&mut losses);
        let told = losses.iter().map(|(node, loss)| (node.as_str(), loss.undecodable, loss.late));
        assert_eq!(told.collect::<Vec<_>>(), [("B", 1, 0), ("A", 3, 1)]);
    }
}
