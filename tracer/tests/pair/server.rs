//! A server in pod b.

use crate::Pair;

/// An HTTP server on port 8080 of b; ends with this.
pub struct Server<'p> {
    pair: &'p Pair,
    pid: String,
}

impl<'p> Server<'p> {
    /// Starts it, with a file of so many bytes, and waits until it listens.
    pub fn start(pair: &'p Pair, size: u64) -> Self {
        let pid = pair.b.ok(&format!(
            "rm -rf /run/www; python3 -c 'import os
os.mkdir(\"/run/www\"); open(\"/run/www/file\", \"w\").write(\"x\" * {size})'
             ip netns exec podtrace-B-b python3 -m http.server -d /run/www --bind 10.10.1.2 8080 \
             >/run/server.log 2>&1 & echo $!
             until ip netns exec podtrace-B-b ss -Hlnt | grep -q :8080; do
                 kill -0 $! || {{ cat /run/server.log >&2; exit 1; }}; sleep 0.2
             done"
        ));
        Self { pair, pid }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.pair.b.run(&format!("kill {}", self.pid.trim()));
    }
}
