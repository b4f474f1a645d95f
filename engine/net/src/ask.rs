//! The asking side of a question that one frame answers.
//!
//! Neighbours: `session`, whose questions these are; `serve` answers. Promises:
//! an answer that breaks the protocol ends the connection; a question is given
//! up after a while. Never: judges what an answer says. Tested by
//! `tests/chunks.rs`.

use crate::error::{NetError, Result};
use crate::fetch::{Asking, closed_or_stopped, refused};
use crate::frames::{self, NoFrame};
use crate::limits::{ANSWER, STALL};
use crate::link::Fault;
use crate::session::Session;
use warp_format::FormatError;
use warp_format::wire::Frame;

/// Asks on a stream of its own; gives the one frame that is answered.
pub(crate) async fn run(session: &Session, question: &Frame) -> Result<Frame> {
    let link = &session.link;
    let frame =
        question.encode().map_err(|source| NetError::TooMuch { what: "question", source })?;
    if session.is_closed() {
        return Err(if link.is_closed() { link.error() } else { refused(link) });
    }
    let answered = async {
        let (send, mut receive) = link.connection.open_bi().await.map_err(|_| link.error())?;
        Asking::new(send).finish(&frame).await.map_err(|()| closed_or_stopped(link))?;
        let answer = frames::read(&mut receive).await;
        let fault = match (answer, receive.read(&mut [0]).await) {
            (Ok(answer), Ok(None)) => return Ok(answer),
            (Ok(_), Ok(Some(_))) => FormatError::Invalid { at: "after the answer" },
            (Err(NoFrame::Malformed(error)), _) => error,
            (Err(NoFrame::End), _) => FormatError::Truncated { at: "answer" },
            (Err(NoFrame::Gone), _) | (Ok(_), Err(_)) => {
                return Err(if link.is_closed() { link.error() } else { refused(link) });
            }
        };
        link.blame(Fault::Malformed(fault));
        Err(link.error())
    };
    tokio::time::timeout(ANSWER + STALL, answered)
        .await
        .unwrap_or(Err(NetError::Stopped { peer: link.peer }))
}

/// The answer was one to another question.
pub(crate) fn unexpected(session: &Session) -> NetError {
    session.link.blame(Fault::Unexpected("an answer to another question"));
    session.link.error()
}
