//! Frames on a stream.
//!
//! Promises: nothing is reserved before the header is checked against the limit
//! of its kind, and then no more than twice what has come. Tested by `tests/refusals.rs`.

use quinn::{ReadExactError, RecvStream};
use warp_format::FormatError;
use warp_format::wire::{Frame, Header};

/// What is reserved for the first bytes of anything.
const STEP_BYTES: usize = 64 << 10;

/// Why there is no frame.
pub(crate) enum NoFrame {
    /// The stream ended where a frame might have begun.
    End,
    /// The stream or its connection is gone.
    Gone,
    /// What came is no frame.
    Malformed(FormatError),
}

/// The next frame of a stream.
pub(crate) async fn read(stream: &mut RecvStream) -> Result<Frame, NoFrame> {
    let mut header = [0; Header::LEN];
    fill(stream, &mut header, true).await?;
    let header = Header::decode(&header).map_err(NoFrame::Malformed)?;
    let mut rest = Vec::new();
    while rest.len() < header.rest() {
        let got = rest.len();
        rest.resize(grown(got, header.rest()), 0);
        let Some(room) = rest.get_mut(got..) else { break };
        fill(stream, room, false).await?;
    }
    Frame::decode(header, &rest).map_err(NoFrame::Malformed)
}

/// How large a buffer becomes that holds `got` bytes of `whole`: at most
/// twice what has come, so that a length alone reserves nothing.
pub(crate) fn grown(got: usize, whole: usize) -> usize {
    whole.min(got + got.max(STEP_BYTES))
}

async fn fill(stream: &mut RecvStream, into: &mut [u8], may_end: bool) -> Result<(), NoFrame> {
    match stream.read_exact(into).await {
        Ok(()) => Ok(()),
        Err(ReadExactError::FinishedEarly(0)) if may_end => Err(NoFrame::End),
        Err(ReadExactError::FinishedEarly(_)) => {
            Err(NoFrame::Malformed(FormatError::Truncated { at: "frame" }))
        }
        Err(ReadExactError::ReadError(_)) => Err(NoFrame::Gone),
    }
}
