//! Exports of recorded traces, as the programs that they are for read them.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

const PODTRACE: &str = env!("CARGO_BIN_EXE_podtrace");

/// Recordings: healthy, dropped in netfilter, lost on the wire.
const RECORDINGS: [&str; 3] = ["healthy", "forward-drop", "wire-loss"];

fn recording(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.podtrace"))
}

fn export(name: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(PODTRACE)
        .arg("export")
        .arg(recording(name))
        .args(args)
        .output()
        .expect("start podtrace");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    output.stdout
}

fn text(name: &str, format: &str) -> String {
    String::from_utf8(export(name, &["--format", format])).expect("UTF-8")
}

/// A pcapng export and what tshark makes of it.
struct Capture {
    _dir: tempfile::TempDir,
    file: PathBuf,
}

impl Capture {
    /// `None` where there is no tshark (`cargo xtask setup` installs it).
    fn of(name: &str, args: &[&str]) -> Option<Self> {
        if Command::new("tshark").arg("--version").output().is_err() {
            eprintln!("SKIP: no tshark");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.pcapng");
        let path = file.to_str().expect("UTF-8");
        export(name, &[&["--format", "pcapng", "-o", path], args].concat());
        Some(Self { _dir: dir, file })
    }

    /// The fields of every packet that `filter` selects; several values of one are joined by `|`.
    fn fields(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.file).args(["-Y", filter, "-T", "fields", "-E"]);
        command.args(["aggregator=|", "-d", "udp.port==8472,vxlan"]);
        fields.iter().for_each(|f| _ = command.args(["-e", f]));
        let output = command.output().expect("start tshark");
        let errors = String::from_utf8_lossy(&output.stderr);
        let complaint = errors.lines().find(|l| !l.contains("Running as user"));
        assert!(output.status.success() && complaint.is_none(), "{errors}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|l| l.split('\t').map(str::to_owned).collect()).collect()
    }
}

#[test]
fn tshark_follows_a_packet_by_its_number_over_every_interface() {
    let Some(capture) = Capture::of("healthy", &[]) else { return };
    let hops = capture.fields(
        "frame.packet_id == 1",
        &["frame.interface_name", "frame.packet_flags_direction", "vxlan.vni", "icmp.type"],
    );
    let interfaces: Vec<&str> = hops.iter().map(|hop| hop[0].as_str()).collect();
    assert_eq!(interfaces.len(), 12, "{hops:?}");
    assert_eq!((interfaces[0], interfaces[11]), ("A.a.eth0", "B.b.eth0"));
    assert_eq!(
        interfaces[2..9],
        ["A.cni0", "A.flannel.1", "A.ens33", "wire.u1", "wire.u2", "B.ens33", "B.flannel.1"]
    );
    // Out of the pod, into the node; wrapped from ens33 to ens33.
    assert_eq!((hops[0][1].as_str(), hops[1][1].as_str()), ("0x00000002", "0x00000001"));
    let wrapped: Vec<usize> = (0..12).filter(|i| hops[*i][2] == "1").collect();
    assert_eq!(wrapped, [4, 5, 6, 7]);
    assert!(hops.iter().all(|hop| hop[3] == "8"), "the same echo request everywhere");
    assert_eq!(
        capture.fields("frame.comment && frame.packet_id <= 6", &["frame.comment"]).len(),
        0
    );
}

#[test]
fn tshark_shows_why_and_where_a_packet_was_dropped() {
    let Some(capture) = Capture::of("forward-drop", &[]) else { return };
    let drops = capture.fields(
        "frame.verdict.ebpf_tc == 2 && frame.packet_id",
        &["frame.interface_name", "frame.packet_id", "frame.comment"],
    );
    assert_eq!(drops.len(), 3, "{drops:?}");
    for (drop, id) in drops.iter().zip(["1", "2", "3"]) {
        assert_eq!((drop[0].as_str(), drop[1].as_str()), ("A.cni0", id));
        let comment = &drop[2];
        assert!(
            comment.contains("NETFILTER_DROP") && comment.contains("hook FORWARD"),
            "{comment}"
        );
        assert!(comment.contains("nft_do_chain"), "{comment}");
    }
}

#[test]
fn tshark_shows_where_a_lost_packet_was_last_seen() {
    let Some(capture) = Capture::of("wire-loss", &[]) else { return };
    let last = capture.fields(
        "frame.comment contains \"last seen here\"",
        &["frame.interface_name", "frame.packet_id", "frame.comment"],
    );
    assert_eq!(last.len(), 3, "{last:?}");
    assert!(last.iter().all(|l| l[0] == "wire.u1" && l[2].contains("wire.u2 egress")), "{last:?}");
}

#[test]
fn tshark_resolves_the_names_and_describes_the_interfaces() {
    let Some(capture) = Capture::of("healthy", &[]) else { return };
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&capture.file).args(["-N", "nN", "-Y", "frame.packet_id == 1"]);
    let output = command.output().expect("start tshark");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("A.a.ip") && text.contains("B.b.ip"), "{text}");
    let descriptions =
        capture.fields("frame.interface_name == \"A.flannel.1\"", &["frame.interface_description"]);
    assert!(descriptions[0][0].contains("role vxlan") && descriptions[0][0].contains("VNI 1"));
    let info = Command::new("capinfos").arg(&capture.file).output().expect("start capinfos");
    let info = String::from_utf8_lossy(&info.stdout);
    assert!(
        info.contains("nanoseconds (9)") && info.contains("Number of stat entries = 1"),
        "{info}"
    );
}

#[test]
fn one_interface_can_be_exported_alone() {
    let Some(capture) = Capture::of("healthy", &["--hop", "A.cni0"]) else { return };
    let all = capture.fields("frame", &["frame.interface_name"]);
    assert!(!all.is_empty() && all.iter().all(|f| f[0] == "A.cni0"), "{all:?}");
    let unknown = Command::new(PODTRACE)
        .args(["export", "--format", "pcapng", "-o", "/dev/null", "--hop", "A.eth7"])
        .arg(recording("healthy"))
        .output()
        .expect("start podtrace");
    let error = String::from_utf8_lossy(&unknown.stderr);
    assert!(!unknown.status.success() && error.contains("A.cni0"), "{error}");
}

#[test]
fn json_is_the_report_and_jsonl_has_every_sighting() {
    for name in RECORDINGS {
        let report: Value = serde_json::from_str(&text(name, "json")).expect("JSON");
        assert_eq!(report["schema"], "podtrace.report/1");
        let lines = text(name, "jsonl");
        let events: Vec<Value> =
            lines.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let of_first = events.iter().filter(|e| e["packet"] == 1 && e["hook"].is_string()).count();
        assert_eq!(of_first, report["journeys"][0]["hops"].as_array().expect("hops").len());
        assert!(events.iter().all(|e| e["time_ns"].is_u64() && e["time"].is_string()));
    }
}

#[test]
fn a_timeline_has_a_track_for_each_interface_and_arrows_between() {
    let file: Value = serde_json::from_str(&text("healthy", "perfetto")).expect("JSON");
    let events = file["traceEvents"].as_array().expect("events");
    let count = |ph: &str| events.iter().filter(|e| e["ph"] == ph).count();
    assert_eq!((count("s"), count("f")), (6, 6), "an arrow for each packet");
    let tracks = events.iter().filter(|e| e["name"] == "thread_name").count();
    assert_eq!(tracks, 14, "those beside the path too");
    assert!(events.iter().all(|e| e["ph"] != "X" || e["dur"].as_f64() > Some(0.0)));
}

#[test]
fn pages_and_pictures_tell_the_verdict() {
    for (name, verdict) in RECORDINGS.into_iter().zip(["DELIVERED", "DROPPED", "LOST"]) {
        let html = text(name, "html");
        assert!(html.starts_with("<!doctype html>") && html.contains(verdict));
        assert!(html.contains("Network state before") && html.contains("10.10.0.1/24"));
        assert_eq!(text(name, "svg").contains("edge bad"), verdict != "DELIVERED");
        assert!(text(name, "markdown").starts_with(&format!("## {verdict}")));
    }
}

#[test]
fn a_bundle_holds_everything_and_with_privacy_no_names() {
    let dir = tempfile::tempdir().expect("a directory");
    for private in [false, true] {
        let file = dir.path().join("x.tar.zst");
        let mut command = Command::new(PODTRACE);
        command.arg("bundle").arg(recording("forward-drop")).arg("-o").arg(&file);
        if private {
            command.arg("--privacy");
        }
        assert!(command.status().expect("start podtrace").success());
        let file = std::fs::File::open(&file).expect("the bundle");
        let mut archive = tar::Archive::new(zstd::Decoder::new(file).expect("zstd"));
        let mut names = Vec::new();
        for entry in archive.entries().expect("tar") {
            let mut entry = entry.expect("tar");
            let name = entry.path().expect("a name").to_string_lossy().into_owned();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).expect("tar");
            if name.ends_with(".podtrace") {
                content = zstd::decode_all(content.as_slice()).expect("zstd");
            }
            let secret = b"podtrace-record";
            let found = content.windows(secret.len()).any(|w| w == secret);
            assert!(!private || !found, "{name}");
            names.push(name);
        }
        names.sort();
        let all = ["packets.pcapng", "report.html", "report.json", "report.md", "trace.podtrace"];
        assert_eq!(names, all.map(|name| format!("podtrace/{name}")));
    }
}

/// Width and height that a PNG states (RFC 2083 section 11.2.1).
fn png_size(png: &[u8]) -> (u32, u32) {
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

/// Pages as a browser shows them; the pictures stay in `$PODTRACE_SCREENSHOTS`, to be looked at.
#[test]
fn a_browser_shows_the_pages() {
    let browsers = ["chromium-headless-shell", "chromium", "google-chrome"];
    let there = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let Some(browser) = browsers.iter().find(there) else {
        eprintln!("SKIP: needs chromium-headless-shell, or Chromium");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let kept = std::env::var_os("PODTRACE_SCREENSHOTS").map(PathBuf::from);
    let out = kept.unwrap_or_else(|| dir.path().to_owned());
    std::fs::create_dir_all(&out).expect("a directory");
    let shoot = |page: &std::path::Path, args: &[&str], to: &std::path::Path| {
        let output = Command::new(browser)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .args(args)
            .arg(format!("file://{}", page.display()))
            .output()
            .expect("start the browser");
        std::fs::read(to).unwrap_or_else(|_| {
            panic!("{}: {}", to.display(), String::from_utf8_lossy(&output.stderr))
        })
    };
    for name in RECORDINGS {
        let page = dir.path().join(format!("{name}.html"));
        export(name, &["--format", "html", "-o", page.to_str().expect("UTF-8")]);
        let mut pictures = Vec::new();
        for (look, args) in [
            ("light", ["--window-size=1200,2400", "--blink-settings=preferredColorScheme=1"]),
            ("dark", ["--window-size=1200,2400", "--blink-settings=preferredColorScheme=0"]),
            ("narrow", ["--window-size=500,2400", "--blink-settings=preferredColorScheme=1"]),
        ] {
            let to = out.join(format!("{name}-{look}.png"));
            let shot = format!("--screenshot={}", to.display());
            let png = shoot(&page, &[args[0], args[1], &shot], &to);
            assert_eq!(png_size(&png).1, 2400, "{name} {look}");
            // A page without anything on it takes a tenth of this.
            assert!(png.len() > 50_000, "{name} {look}: {} bytes", png.len());
            pictures.push(png);
        }
        assert!(pictures[0] != pictures[1], "{name}: dark is light");
        let to = out.join(format!("{name}.pdf"));
        let print = format!("--print-to-pdf={}", to.display());
        let pdf = shoot(&page, &["--no-pdf-header-footer", &print], &to);
        assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 20_000, "{name}: {} bytes", pdf.len());
    }
}
