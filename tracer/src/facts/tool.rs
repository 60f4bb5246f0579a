//! Runs a program that is already on the machine, for what only it can tell.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Where administrators' programs are when PATH does not say.
const SYSTEM_PATH: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// A program that takes longer is stopped: facts are read before and after each trace.
const PATIENCE: Duration = Duration::from_secs(3);
/// More output than this is not read, bytes.
const MAX_OUTPUT: usize = 64 << 20;
/// Of what a program complains about, this much is told, bytes.
const MAX_COMPLAINT: u64 = 400;

/// Why a program told nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    #[error("{0} is not installed")]
    Missing(String),
    #[error("{0} cannot be run: {1}")]
    Io(String, io::Error),
    #[error("{0} did not finish in time")]
    Slow(String),
    #[error("{0} failed: {1}")]
    Failed(String, String),
}

/// Where the program is, if it is installed.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_PATH.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file()
}

/// What `name` prints; it runs in the namespace of the calling thread.
pub(super) fn output(name: &str, arguments: &[&str]) -> Result<String, ToolError> {
    let program = find(name).ok_or_else(|| ToolError::Missing(name.to_owned()))?;
    let failed = |e| ToolError::Io(name.to_owned(), e);
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let read = read_all(&mut child, Instant::now() + PATIENCE);
    if !matches!(read, Ok(Some(_))) {
        // Gone already is as good as stopped.
        let _ = child.kill();
    }
    let mut complaint = Vec::new();
    if let Some(errors) = child.stderr.take() {
        let _ = errors.take(MAX_COMPLAINT).read_to_end(&mut complaint);
    }
    let status = child.wait().map_err(failed)?;
    let bytes = read.map_err(failed)?.ok_or_else(|| ToolError::Slow(name.to_owned()))?;
    if !status.success() {
        let complaint = String::from_utf8_lossy(&complaint).trim().replace('\n', "; ");
        let why = if complaint.is_empty() { status.to_string() } else { complaint };
        return Err(ToolError::Failed(name.to_owned(), why));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Standard output to its end; `None` when that takes too long or is too much.
fn read_all(child: &mut Child, until: Instant) -> io::Result<Option<Vec<u8>>> {
    let Some(pipe) = &mut child.stdout else { return Ok(Some(Vec::new())) };
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let count = pipe.read(&mut buffer)?;
        if count == 0 {
            return Ok(Some(bytes));
        }
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if bytes.len() > MAX_OUTPUT {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_missing_rather_than_failing() {
        let error = output("podtrace-no-such-program", &[]).unwrap_err();
        assert!(matches!(error, ToolError::Missing(_)));
    }

    #[test]
    fn what_a_program_prints_and_complains_about() {
        assert_eq!(output("echo", &["a b"]).unwrap(), "a b\n");
        let error = output("ls", &["/podtrace-no-such-directory"]).unwrap_err();
        assert!(
            matches!(&error, ToolError::Failed(_, why) if why.contains("No such file")),
            "{error}"
        );
    }

    #[test]
    fn more_than_a_pipe_holds_is_read() {
        assert_eq!(output("head", &["-c", "300000", "/dev/zero"]).unwrap().len(), 300_000);
    }
}
