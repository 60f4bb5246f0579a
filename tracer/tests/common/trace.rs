//! Running the `podtrace` command as a user would.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracer::lab::Lab;
use tracer::model::{Direction, Role};
use tracer::report::{DirectionReport, JourneyReport, Report};

/// The binary under test.
pub const PODTRACE: &str = env!("CARGO_BIN_EXE_podtrace");

/// Long enough for anything that happens at all on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished run left.
pub struct Run {
    /// Exit status; 128 + N when killed by signal N.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// The JSON report.
    pub fn report(&self) -> Report {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}{}", self.stdout, self.stderr))
    }
}

fn command(lab: &Lab, args: &[&str]) -> Command {
    let mut command = Command::new(PODTRACE);
    command.args(args).arg("--inventory").arg(lab.inventory_path());
    command.env_remove("PODTRACE_INVENTORY").stdin(Stdio::null());
    command
}

fn status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs podtrace to its end.
pub fn podtrace(lab: &Lab, args: &[&str]) -> Run {
    let output = command(lab, args).output().expect("start podtrace");
    Run {
        status: status(output.status),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What a replay says, with its exit status.
pub fn replay(file: &Path, format: &str) -> (i32, String) {
    let output = Command::new(PODTRACE)
        .args(["replay", "--format", format])
        .arg(file)
        .output()
        .expect("start podtrace");
    (status(output.status), String::from_utf8(output.stdout).expect("UTF-8"))
}

/// A podtrace that watches while the test makes traffic.
pub struct Live {
    child: Child,
    stdout: Option<thread::JoinHandle<String>>,
    stderr: Option<thread::JoinHandle<String>>,
}

impl Live {
    /// Starts it, and waits until it says that it watches.
    pub fn start(lab: &Lab, args: &[&str]) -> Self {
        let mut child = command(lab, args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start podtrace");
        let mut stdout = child.stdout.take().expect("piped");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (ready, watching) = mpsc::channel();
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("UTF-8");
            text
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            for line in stderr.lines().map_while(Result::ok) {
                if line.starts_with("podtrace: watching ") {
                    // Nobody need be waiting any more.
                    let _ = ready.send(());
                }
                text.push_str(&line);
                text.push('\n');
            }
            text
        });
        let mut live = Self { child, stdout: Some(stdout), stderr: Some(stderr) };
        if watching.recv_timeout(PATIENCE).is_err() {
            let run = live.end(Some(Signal::SIGKILL));
            panic!("podtrace does not watch: {}{}", run.stdout, run.stderr);
        }
        live
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signal podtrace");
    }

    fn end(&mut self, signal: Option<Signal>) -> Run {
        if let Some(signal) = signal {
            self.send(signal);
        }
        let ended = self.child.wait().expect("wait for podtrace");
        let text = |t: &mut Option<thread::JoinHandle<String>>| {
            t.take().map_or_else(String::new, |t| t.join().expect("reader"))
        };
        Run {
            status: status(ended),
            stdout: text(&mut self.stdout),
            stderr: text(&mut self.stderr),
        }
    }

    /// Sends a signal and waits for the end.
    pub fn signal(mut self, signal: Signal) -> Run {
        self.end(Some(signal))
    }

    /// Ctrl-C.
    pub fn interrupt(self) -> Run {
        self.signal(Signal::SIGINT)
    }

    /// Waits until it ends of itself.
    pub fn wait(mut self) -> Run {
        self.end(None)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.stdout.is_some() {
            // A test has failed half-way: do not leave it running.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A child process that ends with the test.
pub struct Server(Child);

impl Server {
    /// Starts `argv` in a lab namespace.
    pub fn start(lab: &Lab, target: &str, argv: &[&str]) -> Self {
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(lab.spawn(target, &mut command).expect("start a server"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `condition` holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a command in the lab wrote; it must succeed.
pub fn run(lab: &Lab, target: &str, argv: &[&str]) -> String {
    let output = lab.exec(target, argv).expect("start a command");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{argv:?} in {target}: {text}{errors}");
    text
}

/// The report of one direction.
pub fn direction(report: &Report, direction: Direction) -> &DirectionReport {
    report.directions.iter().find(|d| d.direction == direction).expect("both directions")
}

/// `A.a.eth0 egress`, … of a journey's hops. The names of veths are random: `A.veth`.
pub fn hops(journey: &JourneyReport) -> Vec<String> {
    let name = |h: &tracer::report::HopReport| {
        let interface =
            if h.point.role == Role::Veth { "veth" } else { h.point.interface.as_str() };
        match &h.point.pod {
            Some(pod) => format!("{}.{pod}.{interface} {}", h.point.node, h.point.hook),
            None => format!("{}.{interface} {}", h.point.node, h.point.hook),
        }
    };
    journey.hops.iter().map(name).collect()
}

/// Journeys of a direction.
pub fn journeys(report: &Report, direction: Direction) -> Vec<&JourneyReport> {
    report.journeys.iter().filter(|j| j.direction == direction).collect()
}

/// An HTTP server in a pod with one file of `size` bytes, reachable; serves until dropped.
pub fn http_server(lab: &Lab, target: &str, port: u16, size: usize) -> (Server, tempfile::TempDir) {
    let files = tempfile::tempdir().expect("temporary directory");
    fs::write(files.path().join("file"), vec![b'x'; size]).expect("write the file");
    let directory = files.path().to_str().expect("UTF-8 path");
    let argv = [
        "python3",
        "-m",
        "http.server",
        "--directory",
        directory,
        "--bind",
        "::",
        &port.to_string(),
    ]
    .map(str::to_owned);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let server = Server::start(lab, target, &argv);
    let netns = lab.netns(target).expect("namespace");
    wait_for("the HTTP server", || {
        netns
            .run(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
            .expect("enter the namespace")
    });
    (server, files)
}

/// `ip -j addr` of a namespace.
pub struct IpSays(serde_json::Value);

impl IpSays {
    /// Asks it.
    pub fn ask(lab: &Lab, target: &str) -> Self {
        Self(serde_json::from_str(&run(lab, target, &["ip", "-j", "addr"])).expect("JSON"))
    }

    fn link(&self, name: &str) -> &serde_json::Value {
        let links = self.0.as_array().expect("links");
        links.iter().find(|l| l["ifname"] == name).unwrap_or_else(|| panic!("no link {name}"))
    }

    /// Hardware address of an interface.
    pub fn mac(&self, name: &str) -> String {
        self.link(name)["address"].as_str().expect("address").to_owned()
    }

    /// First global address of a family (`inet`, `inet6`) of an interface.
    pub fn ip(&self, name: &str, family: &str) -> String {
        let all = self.link(name)["addr_info"].as_array().expect("addresses");
        let first = all.iter().find(|a| a["family"] == family && a["scope"] == "global");
        let first = first.unwrap_or_else(|| panic!("no {family} address on {name}"));
        first["local"].as_str().expect("address").to_owned()
    }
}
