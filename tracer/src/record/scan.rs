//! The events of a recording, without any analysis.

use super::format::Record;
use super::limits;
use super::reader::{Next, ReadError, Reader};
use crate::decode::RawEvent;

/// Calls `each` with every event of a recording, up to its end or to where it is cut off.
///
/// # Errors
/// When a record is wrong, or `each` fails.
pub fn scan<E: From<ReadError>>(
    reader: &mut Reader,
    mut each: impl FnMut(RawEvent<'static>) -> Result<(), E>,
) -> Result<(), E> {
    loop {
        let number = reader.number() + 1;
        let wrong = |reason: String| ReadError::Record { number, reason };
        match reader.read()? {
            Next::Record(Record::Event(event)) => {
                let event = event.event().map_err(|reason| wrong(reason.to_owned()))?;
                limits::event(&event).map_err(wrong)?;
                each(event)?;
            }
            Next::Record(_) => {}
            Next::Finished | Next::Cut(_) => return Ok(()),
        }
    }
}
