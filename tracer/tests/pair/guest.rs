//! A machine of the pair, asked for commands through its port.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

/// How long a machine may take until it answers for the first time.
const BOOT: Duration = Duration::from_secs(300);
/// How long a script may take in a machine that is emulated, seconds.
const SECONDS: u64 = 120;

type Waiting = Arc<Mutex<HashMap<u64, Sender<Answer>>>>;

/// What a script left.
#[derive(Debug, Deserialize)]
pub struct Answer {
    id: u64,
    /// `None` when it took too long.
    pub status: Option<i32>,
    /// Standard output.
    #[serde(default)]
    pub stdout: String,
    /// Standard error.
    #[serde(default)]
    pub stderr: String,
    monotonic_ns: Option<i64>,
}

/// A machine.
pub struct Guest {
    port: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU64,
}

/// A script that runs.
pub struct Pending {
    answer: Receiver<Answer>,
    script: String,
}

impl Pending {
    /// Waits for its end.
    pub fn wait(self) -> Answer {
        let patience = Duration::from_secs(SECONDS + 30);
        let answer = self.answer.recv_timeout(patience);
        let answer = answer.unwrap_or_else(|_| panic!("no answer to: {}", self.script));
        assert!(answer.status.is_some(), "took too long: {}\n{answer:?}", self.script);
        answer
    }
}

impl Guest {
    /// Connects to a machine, and waits until it answers.
    pub fn connect(socket: &Path) -> Self {
        let deadline = Instant::now() + BOOT;
        let port = loop {
            match UnixStream::connect(socket) {
                Ok(port) => break port,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", socket.display()),
            }
            thread::sleep(Duration::from_millis(50));
        };
        let answers = BufReader::new(port.try_clone().expect("a descriptor"));
        let waiting = Waiting::default();
        let receivers = Arc::clone(&waiting);
        thread::spawn(move || {
            for line in answers.lines().map_while(Result::ok) {
                let answer: Answer = serde_json::from_str(&line).expect("an answer");
                let receiver = receivers.lock().expect("no panic").remove(&answer.id);
                // Who asked may have given up.
                let _ = receiver.map(|receiver| receiver.send(answer));
            }
        });
        let guest = Self { port: Mutex::new(port), waiting, next: AtomicU64::new(0) };
        // What is written before anybody reads waits in the port.
        let first = guest.ask(json!({ "script": "true", "seconds": SECONDS }));
        first.recv_timeout(BOOT).expect("a machine that answers");
        guest
    }

    fn ask(&self, mut request: serde_json::Value) -> Receiver<Answer> {
        let id = self.next.fetch_add(1, Relaxed);
        request["id"] = id.into();
        let (sender, receiver) = mpsc::channel();
        self.waiting.lock().expect("no panic").insert(id, sender);
        let line = format!("{request}\n");
        self.port.lock().expect("no panic").write_all(line.as_bytes()).expect("write to the port");
        receiver
    }

    /// Starts a script for bash.
    pub fn start(&self, script: &str) -> Pending {
        let answer = self.ask(json!({ "script": script, "seconds": SECONDS }));
        Pending { answer, script: script.to_owned() }
    }

    /// Runs a script to its end.
    pub fn run(&self, script: &str) -> Answer {
        self.start(script).wait()
    }

    /// What a script writes, which must succeed.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        let answer = self.run(script);
        assert_eq!(answer.status, Some(0), "{script}: {}{}", answer.stdout, answer.stderr);
        answer.stdout
    }

    /// Waits until a script succeeds.
    #[track_caller]
    pub fn until(&self, script: &str) {
        let deadline = Instant::now() + Duration::from_secs(SECONDS);
        loop {
            let answer = self.run(script);
            if answer.status == Some(0) {
                return;
            }
            assert!(Instant::now() < deadline, "waited too long for {script}: {answer:?}");
            // The machine has other things to do, with one processor.
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The content of a file.
    pub fn read(&self, path: &str) -> Vec<u8> {
        let digits = self.ok(&format!("python3 -c 'print(open(\"{path}\", \"rb\").read().hex())'"));
        let pairs = digits.trim().as_bytes().chunks_exact(2);
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).expect("UTF-8");
            u8::from_str_radix(pair, 16).expect("hexadecimal digits")
        };
        pairs.map(byte).collect()
    }

    /// CLOCK_MONOTONIC there, ns, with the times here before and after.
    pub fn clock(&self) -> (i64, [Instant; 2]) {
        let readings = (0..20).map(|_| {
            let before = Instant::now();
            let answer = self.ask(json!({})).recv_timeout(Duration::from_secs(SECONDS));
            let time = answer.expect("an answer").monotonic_ns.expect("a time");
            (time, [before, Instant::now()])
        });
        readings.min_by_key(|(_, [before, after])| *after - *before).expect("twenty")
    }
}
