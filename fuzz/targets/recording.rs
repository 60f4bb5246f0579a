//! A file that somebody says is a recording: read, replayed, shown, and rewritten with stand-ins.
#![no_main]

use std::io::{Cursor, sink};

use libfuzzer_sys::fuzz_target;
use tracer::export::{Format, TextOptions};
use tracer::privacy;
use tracer::record::{Reader, Target, replay, scan};

fuzz_target!(|data: &[u8]| {
    let reader = || Reader::new(Box::new(Cursor::new(data.to_vec())));
    let Ok(mut first) = reader() else { return };
    if let Ok(replay) = replay(&mut first) {
        for format in Format::ALL {
            let _ = format.render(&replay.report, &TextOptions::default());
        }
        // What can be replayed has events that can be read.
        if let Ok(mut again) = reader() {
            let each = |_| -> Result<(), tracer::record::ReadError> { Ok(()) };
            assert!(scan(&mut again, each).is_ok());
        }
    }
    if let Ok(mut again) = reader() {
        let _ = privacy::rewrite(&mut again, Target::new(sink()));
    }
});
