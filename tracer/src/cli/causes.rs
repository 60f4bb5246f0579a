//! `podtrace causes`: what can be wrong, how it looks, and how to mend it.

use clap::Args;

use crate::causes::{self, CAUSES};

/// Arguments of `podtrace causes`.
#[derive(Args, Debug)]
pub struct CausesArgs {
    /// Code of a cause (vxlan.fdb-missing), or of an area (vxlan)
    code: Option<String>,
}

impl CausesArgs {
    /// Prints the list or a page; an unknown code is a usage error that names the nearest.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub fn run(&self) -> anyhow::Result<u8> {
        let Some(code) = self.code.as_deref() else {
            return super::lab::say(&list(|_| true));
        };
        if let Some(page) = causes::page(code) {
            return super::lab::say(page);
        }
        let area = format!("{}.", code.trim_end_matches('.'));
        if CAUSES.iter().any(|cause| cause.code.starts_with(&area)) {
            return super::lab::say(&list(|code| code.starts_with(&area)));
        }
        let nearest = causes::nearest(code);
        let hint = nearest.map_or_else(String::new, |code| format!(": did you mean {code}?"));
        Err(super::Usage(format!("{code:?} is not a cause{hint} (podtrace causes lists them)"))
            .into())
    }
}

fn list(wanted: impl Fn(&str) -> bool) -> String {
    let width = CAUSES.iter().map(|cause| cause.code.len()).max().unwrap_or(0);
    let wanted = CAUSES.iter().filter(|cause| wanted(cause.code));
    wanted.map(|cause| format!("{:width$}  {}\n", cause.code, cause.title)).collect()
}
