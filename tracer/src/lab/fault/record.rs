//! A lab's record of its faults: what it was before the first, and what undoes each.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::error::{Context, Result};
use super::super::identity::Identity;
use super::super::image::Image;
use super::super::state;

/// The record; there is none while the lab has no fault.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Everything that was configured.
    pub(super) pristine: Image,
    /// Hardware addresses and names.
    pub(super) identity: Identity,
    /// Faults, in the order in which they were made.
    pub(super) active: Vec<Active>,
}

/// A fault that the lab has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Active {
    pub(super) name: String,
    /// Targets and commands that undo it; empty: everything is built anew.
    pub(super) mend: Vec<(String, String)>,
    /// Processes started for it.
    pub(super) processes: Vec<u32>,
}

fn path(lab: &str) -> PathBuf {
    state::directory(lab).join(state::FAULT_FILE)
}

impl Record {
    /// Reads it; `None` when there is none, or none that this version can read.
    pub(super) fn load(lab: &str) -> Result<Option<Self>> {
        let path = path(lab);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(serde_json::from_str(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("read {}", path.display())),
        }
    }

    /// Writes it.
    pub(super) fn save(&self, lab: &str) -> Result<()> {
        let text = serde_json::to_string(self)
            .map_err(io::Error::other)
            .context(|| "write the record of faults")?;
        state::write(&path(lab), &text)
    }

    /// Removes it.
    pub(super) fn remove(lab: &str) -> Result<()> {
        let path = path(lab);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}
