//! The asking side of a request: one stream, its answers in order.
//!
//! Between `session`, which starts it, and whoever listens to its events.
//! Promises: no chunk is longer than a sealed chunk can be, and no buffer more
//! than twice what has come; an answer that breaks the protocol ends the
//! connection; a request that is dropped stops its stream. Never: verifies a
//! chunk (that is CPU work: the listener's), retries, or waits for a listener.
//! Tested by `tests/chunks.rs`, `tests/rates.rs`.

use crate::error::{NetError, Result};
use crate::frames::grown;
use crate::link::{Fault, Link};
use crate::serve::RESET_REFUSED;
use crate::session::{Event, Received, Session, Wish};
use quinn::{ReadError, ReadExactError, RecvStream, SendStream};
use tokio::sync::mpsc::UnboundedSender;
use warp_format::wire::{Answer, Frame, Request};
use warp_format::{ChunkId, FormatError};

/// Resets the asking half if it is dropped before it is whole: a frame that
/// ends early would be a fault of ours.
pub(crate) struct Asking(Option<SendStream>);

impl Asking {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self(Some(stream))
    }

    /// Asks this and no more.
    pub(crate) async fn finish(mut self, frame: &[u8]) -> Result<(), ()> {
        if let Some(stream) = &mut self.0 {
            stream.write_all(frame).await.map_err(drop)?;
            stream.finish().map_err(drop)?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            let _ = stream.reset(0u32.into());
        }
    }
}

pub(crate) async fn run(
    session: &Session,
    number: u64,
    Wish { ids, urgent }: Wish,
    events: &UnboundedSender<Event>,
) -> Result<()> {
    let link = &session.link;
    let request = Request { session: session.number, urgent, ids };
    let frame = Frame::Request(request.clone());
    let too_much = |source| NetError::TooMuch { what: "request", source };
    if request.ids.is_empty() || request.ids.len() > warp_format::limits::MAX_REQUEST_IDS {
        return Err(too_much(FormatError::Limit {
            at: "chunks of one request",
            value: request.ids.len() as u64,
            limit: warp_format::limits::MAX_REQUEST_IDS as u64,
        }));
    }
    let frame = frame.encode().map_err(too_much)?;
    if session.is_closed() {
        return Err(if link.is_closed() { link.error() } else { refused(link) });
    }
    let (send, receive) = link.connection.open_bi().await.map_err(|_| link.error())?;
    Asking::new(send).finish(&frame).await.map_err(|()| closed_or_stopped(link))?;
    let mut answers = Answers { link, receive, number, events };
    for id in request.ids {
        answers.next(id).await?;
    }
    answers.end().await
}

pub(crate) fn refused(link: &Link) -> NetError {
    NetError::Refused { peer: link.peer }
}

pub(crate) fn closed_or_stopped(link: &Link) -> NetError {
    if link.is_closed() { link.error() } else { NetError::Stopped { peer: link.peer } }
}

struct Answers<'a> {
    link: &'a Link,
    receive: RecvStream,
    number: u64,
    events: &'a UnboundedSender<Event>,
}

impl Answers<'_> {
    fn tell(&self, event: Event) -> Result<()> {
        // Without a listener there is no one to fetch for.
        self.events.send(event).map_err(|_| NetError::Stopped { peer: self.link.peer })
    }

    fn malformed(&self, error: FormatError) -> NetError {
        self.link.blame(Fault::Malformed(error));
        self.link.error()
    }

    fn gone(&self, error: &ReadError) -> NetError {
        match error {
            ReadError::Reset(code) if *code == RESET_REFUSED => refused(self.link),
            _ => closed_or_stopped(self.link),
        }
    }

    async fn next(&mut self, id: ChunkId) -> Result<()> {
        let number = self.number;
        let mut answer = [0; Answer::LEN];
        match self.receive.read_exact(&mut answer).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(_)) => {
                return Err(self.malformed(FormatError::Truncated { at: "answer" }));
            }
            Err(ReadExactError::ReadError(error)) => return Err(self.gone(&error)),
        }
        match Answer::decode(&answer).map_err(|error| self.malformed(error))? {
            Answer::Found { len } => {
                let bytes = self.chunk(len as usize).await?;
                self.tell(Event::Chunk { number, id, bytes: Received::new(bytes) })
            }
            Answer::NotFound => self.tell(Event::NotFound { number, id }),
            Answer::Busy => self.tell(Event::Busy { number, id }),
        }
    }

    async fn chunk(&mut self, len: usize) -> Result<Vec<u8>> {
        let pacer = &self.link.shared.receive;
        let mut bytes: Vec<u8> = Vec::new();
        let mut got = 0;
        while got < len {
            if got == bytes.len() {
                bytes.resize(grown(got, len), 0);
            }
            let room = bytes.get_mut(got..).unwrap_or_default();
            let room_len = room.len().min(pacer.slice());
            let room = room.get_mut(..room_len).unwrap_or_default();
            match self.receive.read(room).await {
                Ok(Some(read)) => {
                    got += read;
                    self.tell(Event::Progress { number: self.number, bytes: read })?;
                    pacer.turn(self.link.peer, read).await;
                }
                Ok(None) => return Err(self.malformed(FormatError::Truncated { at: "chunk" })),
                Err(error) => return Err(self.gone(&error)),
            }
        }
        Ok(bytes)
    }

    /// Nothing may follow the last answer.
    async fn end(&mut self) -> Result<()> {
        match self.receive.read(&mut [0]).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(self.malformed(FormatError::Invalid { at: "after the answers" })),
            Err(error) => Err(self.gone(&error)),
        }
    }
}
