//! Reading a trace file, whoever wrote it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::format::Record;
use super::{SCHEMA, limits};

/// What a zstd frame begins with (RFC 8878 section 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not opened.
    #[error("cannot read {name}: {source}")]
    Open {
        /// File.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Something else.
    #[error("this is not a podtrace recording: {0}")]
    Foreign(String),
    /// From a version to come.
    #[error(
        "this recording has the schema {found:?}; this podtrace reads {SCHEMA}: use a newer one"
    )]
    Newer {
        /// What it says.
        found: String,
    },
    /// A record that is wrong.
    #[error("record {number} of the recording is wrong: {reason}")]
    Record {
        /// Which, from 1.
        number: u64,
        /// Why.
        reason: String,
    },
}

/// What comes next.
#[derive(Debug)]
pub enum Next<'a> {
    /// A record.
    Record(Record<'a>),
    /// Nothing: the file ends where a record does.
    Finished,
    /// Nothing: the file ends in the middle, or is damaged from here on.
    Cut(String),
}

/// Reads records one by one; keeps no more than one.
pub struct Reader {
    input: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    number: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be opened, or is nothing of the kind.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        if path == Path::new("-") {
            return Self::new(Box::new(io::stdin()));
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| ReadError::Open { name, source })?;
        Self::new(Box::new(file))
    }

    /// Reads from anywhere, compressed or not.
    ///
    /// # Errors
    /// When it is nothing of the kind.
    pub fn new(input: Box<dyn Read + Send>) -> Result<Self, ReadError> {
        let mut input = BufReader::new(input);
        // A pipe may give its first bytes one by one; a recording has more than four.
        let mut magic = [0; 4];
        let mut got = 0;
        while got < magic.len() {
            match input.read(&mut magic[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ReadError::Foreign(e.to_string())),
            }
        }
        let magic = magic[..got].to_vec();
        let plain: Box<dyn Read + Send> = match magic.first() {
            None => return Err(ReadError::Foreign("it is empty".into())),
            Some(b'{') => Box::new(io::Cursor::new(magic).chain(input)),
            Some(_) if magic == ZSTD => {
                let whole = BufReader::new(io::Cursor::new(magic).chain(input));
                let decoder = zstd::Decoder::with_buffer(whole).and_then(|mut decoder| {
                    decoder.window_log_max(limits::WINDOW_LOG)?;
                    Ok(decoder)
                });
                Box::new(decoder.map_err(|e| ReadError::Foreign(e.to_string()))?)
            }
            Some(_) => return Err(ReadError::Foreign("it is neither zstd nor JSON".into())),
        };
        Ok(Self { input: BufReader::with_capacity(256 << 10, plain), line: Vec::new(), number: 0 })
    }

    /// Number of the record read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// An error about the record read last.
    pub fn wrong(&self, reason: impl Into<String>) -> ReadError {
        ReadError::Record { number: self.number, reason: reason.into() }
    }

    /// The next record.
    ///
    /// # Errors
    /// When there is one, but wrong.
    pub fn read(&mut self) -> Result<Next<'_>, ReadError> {
        self.line.clear();
        let got =
            (&mut self.input).take(limits::RECORD as u64 + 1).read_until(b'\n', &mut self.line);
        self.number += 1;
        if let Err(error) = got {
            return Ok(Next::Cut(error.to_string()));
        }
        if self.line.is_empty() {
            return Ok(Next::Finished);
        }
        if self.line.pop_if(|last| *last == b'\n').is_none() {
            return if self.line.len() > limits::RECORD {
                Err(self.wrong(format!("it is longer than {} bytes", limits::RECORD)))
            } else {
                Ok(Next::Cut("it ends in the middle of a record".into()))
            };
        }
        let (line, number) = (self.line.as_slice(), self.number);
        match serde_json::from_slice(line) {
            Ok(Record::Event(_)) if line.len() > limits::EVENT => Err(ReadError::Record {
                number,
                reason: format!("an event of more than {} bytes", limits::EVENT),
            }),
            Ok(record) => Ok(Next::Record(record)),
            Err(error) if number == 1 => {
                Err(ReadError::Foreign(format!("its first record: {error}")))
            }
            Err(error) => Err(ReadError::Record { number, reason: error.to_string() }),
        }
    }
}
