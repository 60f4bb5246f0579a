//! Starts other programs: with a clean environment, with progress, and so that Ctrl-C leaves
//! nothing behind.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::ui::Progress;

/// How long a program may take to end once it was asked to.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often waiting looks whether something has happened.
const POLL: Duration = Duration::from_millis(20);
/// How long output is waited for that a program's children still hold open after its end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Lines of output shown of a program that failed.
const LINES_SHOWN: usize = 400;

/// The directory of the workspace.
pub fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where Cargo puts what it builds for this workspace.
pub fn target_dir() -> PathBuf {
    // Relative to where the caller is, as Cargo has it.
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The Cargo that runs this program, in the workspace, without what it told this program alone.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    for (name, _) in env::vars_os() {
        if is_told_to_one_crate(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.env("PATH", path_with_sbin());
    set_library_path(&mut command);
    command
}

/// As [`cargo`], for another toolchain's: nothing of this one may reach it.
pub fn foreign_cargo(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if is_told_to_one_crate(&text) || is_of_one_toolchain(&text) {
            command.env_remove(name);
        }
    }
    set_library_path(&mut command);
    command
}

/// Set by `cargo run` for the program that it runs.
fn is_told_to_one_crate(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_"].iter().any(|p| variable.starts_with(p))
        || matches!(variable, "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
}

/// Selects or tunes a compiler.
fn is_of_one_toolchain(variable: &str) -> bool {
    ["CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PROFILE_", "CARGO_UNSTABLE_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
        || matches!(
            variable,
            "CARGO"
                | "CARGO_ENCODED_RUSTFLAGS"
                | "CARGO_INCREMENTAL"
                | "CLIPPY_ARGS"
                | "CLIPPY_CONF_DIR"
                | "RUSTC"
                | "RUSTC_BOOTSTRAP"
                | "RUSTC_WORKSPACE_WRAPPER"
                | "RUSTC_WRAPPER"
                | "RUSTDOC"
                | "RUSTDOCFLAGS"
                | "RUSTFLAGS"
                | "RUSTUP_TOOLCHAIN"
                | "RUST_RECURSION_COUNT"
        )
}

/// `cargo run` puts its toolchain's libraries first; another compiler must not find them.
fn set_library_path(command: &mut Command) {
    const VARIABLE: &str = "LD_LIBRARY_PATH";
    let Some(value) = env::var_os(VARIABLE) else { return };
    let added_by_cargo = |dir: &Path| {
        dir.starts_with(target_dir()) || dir.components().any(|c| c.as_os_str() == "toolchains")
    };
    let kept: Vec<PathBuf> = env::split_paths(&value)
        .filter(|dir| !added_by_cargo(dir) && dir != Path::new(""))
        .collect();
    match env::join_paths(kept) {
        Ok(kept) if !kept.is_empty() => command.env(VARIABLE, kept),
        _ => command.env_remove(VARIABLE),
    };
}

/// The command line, as a person would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs a step that may take long: shows that it goes on, and its output only when it fails.
///
/// # Errors
/// When it cannot be started, fails, or Ctrl-C ends it.
pub fn run_step(what: &str, command: &mut Command) -> Result<()> {
    run_step_into(what, command, None)
}

/// As [`run_step`]; standard output goes to `stdout` if there is one.
///
/// # Errors
/// As there.
pub fn run_step_into(what: &str, command: &mut Command, stdout: Option<Stdio>) -> Result<()> {
    let mut progress = Progress::start(what);
    let mut output = VecDeque::new();
    let status = run_lines(command, stdout, |line| {
        let Some(line) = line else {
            progress.tick();
            return Ok(());
        };
        progress.last_line(line);
        if output.len() == LINES_SHOWN {
            output.pop_front();
        }
        output.push_back(line.to_owned());
        Ok(())
    })?;
    if status.success() {
        progress.done();
        return Ok(());
    }
    progress.failed();
    for line in &output {
        eprintln!("    {line}");
    }
    bail!("{what}: `{}` failed ({status})", line(command));
}

/// Runs a program and gives `each` its output line by line, and `None` every 100 ms in which it
/// says nothing. Standard output goes to `stdout` if there is one, and is not seen then.
///
/// # Errors
/// When it cannot be started, `each` fails, or Ctrl-C ends it: it is killed then. Its own failure
/// is in the status.
pub fn run_lines(
    command: &mut Command,
    stdout: Option<Stdio>,
    mut each: impl FnMut(Option<&str>) -> Result<()>,
) -> Result<ExitStatus> {
    let (reader, writer) = io::pipe().context("make a pipe")?;
    let stdout = match stdout {
        Some(stdout) => stdout,
        None => writer.try_clone().context("make a pipe")?.into(),
    };
    command.stdin(Stdio::null()).stdout(stdout).stderr(writer);
    let mut child = Running::start(command)?;
    // The command holds the pipe's other end; it must go, or reading would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for bytes in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&bytes).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let mut ended = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => each(Some(&line))?,
            Err(RecvTimeoutError::Timeout) => each(None)?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        check_interrupt()?;
        // What it has left running may hold the pipe for ever.
        if ended.is_none() && child.has_ended()?.is_some() {
            ended = Some(Instant::now());
        }
        if ended.is_some_and(|time| time.elapsed() > LAST_WORDS) {
            break;
        }
    }
    child.wait()
}

/// Runs a program that shows its own output.
///
/// # Errors
/// When it cannot be started, or Ctrl-C ends it. Its failure is in the status.
pub fn run_shown(command: &mut Command) -> Result<ExitStatus> {
    let child = command.spawn().with_context(|| format!("cannot start {}", line(command)))?;
    let status = Running(child).wait()?;
    check_interrupt()?;
    Ok(status)
}

/// Runs a program and gives its standard output; what it complains of is shown.
///
/// # Errors
/// When it cannot be started, fails, or Ctrl-C ends it.
pub fn output_of(command: &mut Command) -> Result<Vec<u8>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child =
        Running(command.spawn().with_context(|| format!("cannot start {}", line(command)))?);
    let mut output = Vec::new();
    if let Some(mut stdout) = child.0.stdout.take() {
        io::Read::read_to_end(&mut stdout, &mut output)
            .with_context(|| format!("read the output of {}", line(command)))?;
    }
    let status = child.wait()?;
    check_interrupt()?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(output)
}

/// A program that ends when this value does.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {}", line(command)))?;
        Ok(Self(child))
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it ends. After Ctrl-C it gets [`PATIENCE`]; a terminal has told it too.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut deadline = None;
        loop {
            if let Some(status) = self.0.try_wait().context("wait for a program")? {
                return Ok(status);
            }
            match (deadline, interrupted()) {
                (None, Some(signal)) => {
                    deadline = Some(Instant::now() + PATIENCE);
                    // Ctrl-C reaches the whole process group; a signal to this process alone
                    // does not.
                    if signal != Signal::SIGINT {
                        self.signal(signal);
                    }
                }
                (Some(time), _) if time < Instant::now() => {
                    // It may have ended just now: then there is nothing to kill.
                    let _ = self.0.kill();
                }
                _ => {}
            }
            thread::sleep(POLL);
        }
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("wait for a program")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // Not yet waited for, so the id is still its own; it may have ended already.
        if let Ok(id) = i32::try_from(self.id()) {
            let _ = kill(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From here on Ctrl-C, SIGTERM and SIGHUP make the functions of this module fail, so that the
/// caller can put things back, instead of ending this process at once.
///
/// # Errors
/// When no handler can be installed.
pub fn catch_signals() -> Result<()> {
    let flag = SIGNAL.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let value = usize::try_from(signal).context("signal number")?;
        signal_hook::flag::register_usize(signal, Arc::clone(flag), value)
            .context("install a signal handler")?;
    }
    Ok(())
}

/// Forgets a signal that has come: what puts things back must not stop halfway.
pub fn forget_interrupt() {
    if let Some(flag) = SIGNAL.get() {
        flag.store(0, Ordering::Relaxed);
    }
}

fn interrupted() -> Option<Signal> {
    let number = i32::try_from(SIGNAL.get()?.load(Ordering::Relaxed)).ok()?;
    Signal::try_from(number).ok()
}

/// # Errors
/// When a signal has come.
pub fn check_interrupt() -> Result<()> {
    match interrupted() {
        Some(signal) => bail!("ended by {signal}"),
        None => Ok(()),
    }
}

/// PATH with the sbin directories, which root's lacks after Debian's plain `su`.
pub fn path_with_sbin() -> OsString {
    let mut path: Vec<PathBuf> =
        env::var_os("PATH").map_or_else(Vec::new, |p| env::split_paths(&p).collect());
    for dir in ["/usr/local/sbin", "/usr/sbin", "/sbin"] {
        if !path.iter().any(|p| p == Path::new(dir)) {
            path.push(dir.into());
        }
    }
    env::join_paths(path).unwrap_or_else(|_| env::var_os("PATH").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_command_as_it_would_be_typed() {
        let mut command = Command::new("ip");
        command.args(["route", "add", "10.0.0.0/8", "it's", ""]);
        assert_eq!(line(&command), r"ip route add 10.0.0.0/8 'it'\''s' ''");
    }

    #[test]
    fn a_step_that_fails_names_its_command_and_status() {
        run_step("succeed", Command::new("sh").args(["-c", "echo fine"])).unwrap();
        let error = run_step("fail", Command::new("sh").args(["-c", "echo bad >&2; exit 3"]));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("sh -c 'echo bad >&2; exit 3'"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        let error = run_step("miss", &mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(error.to_string().contains("cannot start /nonexistent/program"), "{error}");
    }

    #[test]
    fn what_a_program_leaves_running_is_not_waited_for() {
        let script = "sleep 30 & echo $!";
        let mut first = None;
        let began = Instant::now();
        let status = run_lines(Command::new("sh").args(["-c", script]), None, |line| {
            first = first.take().or(line.map(str::to_owned));
            Ok(())
        });
        assert!(status.unwrap().success());
        let pid: i32 = first.unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn another_toolchain_inherits_nothing_of_this_one() {
        for variable in ["RUSTC", "CARGO", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"] {
            assert!(is_of_one_toolchain(variable), "{variable}");
        }
        for variable in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "HOME"] {
            assert!(!is_of_one_toolchain(variable) && !is_told_to_one_crate(variable));
        }
    }
}
