//! Where the report goes.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Usage;
use super::args::{ColorArg, Look};
use crate::export::text::TextOptions;
use crate::tui;

/// Columns without a terminal.
const DEFAULT_WIDTH: usize = 80;

/// Standard output, or a file that appears whole or not at all.
#[derive(Debug)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// What is there and is no plain file: a device, a named pipe. Never to be replaced.
    Special {
        /// As given.
        path: PathBuf,
        /// Open for writing.
        file: File,
    },
    /// A file, written beside its place first.
    File {
        /// Where it is to be.
        path: PathBuf,
        /// The temporary file, open.
        file: File,
        /// Its path.
        temporary: PathBuf,
    },
}

impl Sink {
    /// Opens the sink for `--output`; `-` is standard output.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path.filter(|p| *p != Path::new("-")) else { return Ok(Sink::Stdout) };
        // Through symbolic links: what they point to is meant.
        if std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            let open = OpenOptions::new().write(true).open(path);
            let file = open.with_context(|| format!("cannot write {}", path.display()))?;
            return Ok(Sink::Special { path: path.to_owned(), file });
        }
        let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut name = path
            .file_name()
            .with_context(|| format!("{}: not a file name", path.display()))?
            .to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(name);
        let file =
            File::create(&temporary).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Sink::File { path: path.to_owned(), file, temporary })
    }

    /// Whether a person looks at it now.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Sink::Stdout) && std::io::stdout().is_terminal()
    }

    /// Takes parts of what is to be written; [`Sink::finish`] ends it.
    pub fn stream(&mut self) -> Box<dyn Write + '_> {
        match self {
            Sink::Stdout => Box::new(std::io::stdout().lock()),
            Sink::Special { file, .. } | Sink::File { file, .. } => Box::new(file),
        }
    }

    /// What was streamed is whole.
    ///
    /// # Errors
    /// When it cannot be put into its place.
    pub fn finish(self) -> Result<()> {
        if let Sink::File { path, temporary, .. } = &self {
            std::fs::rename(temporary, path)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes everything. A closed pipe is the reader's choice and no error.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(mut self, text: &str) -> Result<()> {
        let unless_closed = |result: std::io::Result<()>| match result {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        };
        match &mut self {
            Sink::Stdout => {
                let mut out = std::io::stdout().lock();
                unless_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
                    .context("cannot write to standard output")
            }
            Sink::Special { path, file } => unless_closed(file.write_all(text.as_bytes()))
                .with_context(|| format!("cannot write {}", path.display())),
            Sink::File { path, file, temporary } => file
                .write_all(text.as_bytes())
                .and_then(|()| std::fs::rename(temporary, &path))
                .with_context(|| format!("cannot write {}", path.display())),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Sink::File { temporary, .. } = self {
            // Gone already when it was renamed.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// How text is to look where it goes.
pub fn options(look: Look, sink: &Sink) -> TextOptions {
    let terminal = sink.is_terminal();
    let color = match look.color {
        ColorArg::Always => true,
        ColorArg::Never => false,
        ColorArg::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    };
    let width = if terminal { terminal_width() } else { None }.unwrap_or(DEFAULT_WIDTH);
    TextOptions { color, width, verbose: look.verbose > 0, unicode: unicode() }
}

/// How screens are to look.
///
/// # Errors
/// When standard output is no terminal.
pub fn screen(look: Look) -> Result<tui::Look> {
    if !std::io::stdout().is_terminal() {
        return Err(Usage("--tui needs a terminal to draw on".to_owned()).into());
    }
    let options = options(look, &Sink::Stdout);
    Ok(tui::Look { color: options.color, unicode: options.unicode })
}

/// Whether the locale can show more than ASCII. Without any setting (a pipe, cron) it is assumed.
fn unicode() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .is_none_or(|value| {
            let value = value.to_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        })
}

nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);

fn terminal_width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a struct winsize to the pointer, which is one.
    unsafe { window_size(libc::STDOUT_FILENO, &mut size) }.ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::FileTypeExt;

    #[test]
    fn what_is_no_plain_file_is_written_to_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Both ends, so that opening it does not wait.
        let mut reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        Sink::open(Some(&pipe)).unwrap().write("text").unwrap();
        let mut read = [0; 4];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"text");
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        Sink::open(Some(&link)).unwrap().write("new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert!(link.is_symlink());
    }
}
