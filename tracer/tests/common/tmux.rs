//! podtrace's screen as a person has it: in a terminal, with keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::trace::{PATIENCE, wait_for};
use super::unique_name;

/// Runs its arguments, and then shows how they ended and how the terminal is set.
const SCRIPT: &str = r#"
pid=$1
shift
sh -c 'echo $$ >"$0"; exec "$@"' "$pid" "$@"
echo "exit status $?"
stty -a
exec sleep 600
"#;

/// A terminal with a program in it; both are gone when dropped.
pub struct Pane {
    socket: String,
    pid: PathBuf,
}

impl Pane {
    /// Starts a program in a terminal of 120 columns and 40 rows, in a directory.
    pub fn start(directory: &Path, environment: &[(&str, &str)], argv: &[&str]) -> Self {
        let pane = Self { socket: unique_name(), pid: directory.join("pid") };
        let mut command = pane.tmux();
        command.args(["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", "-c"]);
        command.arg(directory).args(["sh", "-c", SCRIPT, "sh"]).arg(&pane.pid).args(argv);
        command.envs(environment.iter().copied());
        let output = command.output().expect("start tmux");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        pane
    }

    /// tmux with a server of its own.
    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-u", "-L", &self.socket]).stdin(Stdio::null());
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX").env_remove("NO_COLOR");
        command
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.tmux().args(arguments).output().expect("ask tmux");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Presses keys, as tmux calls them.
    pub fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// What is on the screen now; lines that the terminal has broken are whole.
    pub fn text(&self) -> String {
        self.ask(&["capture-pane", "-p", "-J"])
    }

    /// Waits until the screen shows all of it; returns the screen.
    pub fn wait_for(&self, what: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.text();
            if what.iter().all(|text| shown.contains(text)) {
                return shown;
            }
            assert!(Instant::now() < deadline, "waited too long for {what:?}:\n{shown}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Scrolls to the end of what is shown, which may grow, until the screen shows all of it.
    pub fn scroll_to(&self, what: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while !what.iter().all(|text| self.text().contains(text)) {
            assert!(Instant::now() < deadline, "waited too long for {what:?}:\n{}", self.text());
            self.press(&["End"]);
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn pid(&self) -> i32 {
        let pid = fs::read_to_string(&self.pid).expect("process id");
        pid.trim().parse().expect("number")
    }

    /// Signals the program.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("send a signal");
    }

    /// Takes the terminal away, and waits until the program has ended.
    pub fn hang_up(self) {
        let status = PathBuf::from(format!("/proc/{}/stat", self.pid()));
        self.ask(&["kill-server"]);
        // Nobody may have asked for its status yet.
        let runs = || fs::read_to_string(&status).is_ok_and(|text| !text.contains(") Z "));
        wait_for("the program ends without its terminal", || !runs());
    }

    /// Waits until the program has ended with this status; checks that the terminal is as it was, and
    /// returns what is on it, from its beginning.
    pub fn ended(&self, status: i32) -> String {
        self.wait_for(&[&format!("exit status {status}\n"), " echoke"]);
        let modes = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_flag}";
        assert_eq!(self.ask(&["display-message", "-p", modes]).trim(), "0 1 0 0");
        let text = self.ask(&["capture-pane", "-p", "-J", "-S", "-"]);
        let said: Vec<&str> = text.split_whitespace().collect();
        for mode in ["icanon", "echo", "isig", "icrnl", "opost"] {
            assert!(said.contains(&mode), "{mode}: {text}");
        }
        text
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").output();
    }
}
