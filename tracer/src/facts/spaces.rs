//! The namespaces of a path, shared by all that look at the same moment.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Space;

/// Namespaces, each once. A copy shares them until it is changed: the state of a large node is
/// looked at once for each backend of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spaces(Arc<Vec<Space>>);

impl From<Vec<Space>> for Spaces {
    fn from(spaces: Vec<Space>) -> Self {
        Self(Arc::new(spaces))
    }
}

impl FromIterator<Space> for Spaces {
    fn from_iter<I: IntoIterator<Item = Space>>(spaces: I) -> Self {
        spaces.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for Spaces {
    type Target = Vec<Space>;

    fn deref(&self) -> &Vec<Space> {
        &self.0
    }
}

impl DerefMut for Spaces {
    fn deref_mut(&mut self) -> &mut Vec<Space> {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a> IntoIterator for &'a Spaces {
    type Item = &'a Space;
    type IntoIter = std::slice::Iter<'a, Space>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a mut Spaces {
    type Item = &'a mut Space;
    type IntoIter = std::slice::IterMut<'a, Space>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}
