//! The answering side of requests.
//!
//! Between `link`, whose streams it accepts, and [`Service::chunk`]. Promises:
//! only sealed chunks leave, and only to a member (asked again for every
//! batch); what is held for one peer and for all peers is bounded, whatever
//! they ask and however slowly they read; requests of a peer are answered in
//! their order, urgent ones first and small ones before those; slices leave in a fair order when the rate is
//! limited. Never: reads ahead of a peer by more than its batches.
//! Tested by `tests/chunks.rs`, `tests/bounds.rs`, `tests/rates.rs`.
//!
//! [`Service::chunk`]: crate::Service::chunk

use crate::frames::{self, NoFrame};
use crate::limits::{ANSWER, BATCH_BYTES, BATCH_TIME, SMALL_BYTES, STALL, WAITING_MAX};
use crate::link::{Fault, Link};
use crate::roll::Shared;
use crate::service::Service;
use crate::session::Session;
use quinn::{RecvStream, SendStream, VarInt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use warp_format::wire::{Answer, Change, Frame, Request};
use warp_format::{ChunkId, FormatError, SealedChunk};

/// The session is over, or never was.
pub(crate) const RESET_REFUSED: VarInt = VarInt::from_u32(1);
/// Priority of what somebody waits for, less its turn: above all that is asked
/// ahead, and below answers that are small.
const URGENT: i32 = 1 << 30;
/// The peer took nothing for too long, or something failed here.
const RESET_GIVEN_UP: VarInt = VarInt::from_u32(2);

/// Why a stream is not answered to its end.
enum Cut {
    /// The peer does not want it any more, or is gone.
    Unwanted,
    /// It is reset with this code.
    Reset(VarInt),
    /// The peer broke the protocol.
    Fault(Fault),
}

/// Answers requests as they come.
pub(crate) async fn accept(link: Arc<Link>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            stream = link.connection.accept_bi() => match stream {
                // The transport bounds how many there are.
                Ok((send, receive)) => {
                    tasks.spawn(answer(link.clone(), send, receive));
                }
                Err(_) => return,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn answer(link: Arc<Link>, mut send: SendStream, receive: RecvStream) {
    let _ = send.set_priority(-turn(&send));
    let stopped = send.stopped();
    let cut = tokio::select! {
        done = answer_all(&link, &mut send, receive) => done.err(),
        _ = stopped => Some(Cut::Unwanted),
    };
    match cut {
        None => {}
        Some(Cut::Unwanted) => {
            let _ = send.reset(0u32.into());
        }
        Some(Cut::Reset(code)) => {
            let _ = send.reset(code);
        }
        Some(Cut::Fault(fault)) => link.blame(fault),
    }
}

/// Who asked first is answered first. Side by side, each answer takes as long as
/// all of them, and who asks reckons with one after the other.
fn turn(send: &SendStream) -> i32 {
    i32::try_from(send.id().index()).unwrap_or(URGENT).min(URGENT)
}

async fn answer_all(link: &Link, send: &mut SendStream, receive: RecvStream) -> Result<(), Cut> {
    let question = tokio::time::timeout(ANSWER, read_question(receive));
    let question = question.await.map_err(|_| Cut::Reset(RESET_GIVEN_UP))??;
    match question {
        Question::Chunks(request) => answer_chunks(link, send, request).await?,
        Question::List(number, after) => {
            let answer = move |service: &dyn Service, session: &Session| {
                Frame::Listed(service.list(&session.portal, after))
            };
            answer_one(link, send, number, answer).await?;
        }
        Question::Change(number, change) => {
            let answer = move |service: &dyn Service, session: &Session| {
                Frame::Changed(service.change(&session.portal, &session.link.peer, change))
            };
            answer_one(link, send, number, answer).await?;
        }
    }
    send.finish().map_err(|_| Cut::Unwanted)
}

/// What a stream asks.
enum Question {
    Chunks(Request),
    List(u32, u64),
    Change(u32, Change),
}

async fn answer_chunks(link: &Link, send: &mut SendStream, request: Request) -> Result<(), Cut> {
    let session = session_of(link, request.session).await?;
    let count = request.ids.len();
    let waiting = Waiting { link, count };
    if link.waiting.fetch_add(count, Ordering::Relaxed) + count > WAITING_MAX {
        tracing::debug!(peer = %link.peer, count, "busy");
        let busy: Vec<u8> = request.ids.iter().flat_map(|_| Answer::Busy.encode()).collect();
        write(send, &busy).await?;
    } else {
        answer_found(link, &session, send, request).await?;
    }
    drop(waiting);
    Ok(())
}

/// Answers with one frame, of which as many are in memory as of batches.
async fn answer_one(
    link: &Link,
    send: &mut SendStream,
    number: u32,
    answer: impl FnOnce(&dyn Service, &Session) -> Frame + Send + 'static,
) -> Result<(), Cut> {
    let session = session_of(link, number).await?;
    let shared = &link.shared;
    let gone = |_| Cut::Unwanted;
    let _own = link.batches.acquire().await.map_err(gone)?;
    let _common = shared.batches.acquire().await.map_err(gone)?;
    let work = shared.clone();
    let made = tokio::task::spawn_blocking(move || {
        let is_member = !session.is_closed() && work.is_admitted(&session);
        is_member.then(|| answer(&*work.service, &session))
    });
    let frame = made.await.map_err(|error| {
        tracing::error!(%error, "a call of the service failed");
        Cut::Reset(RESET_GIVEN_UP)
    })?;
    let frame = frame.ok_or(Cut::Reset(RESET_REFUSED))?;
    let bytes = frame.encode().map_err(|error| {
        tracing::error!(%error, "an answer does not fit its frame");
        Cut::Reset(RESET_GIVEN_UP)
    })?;
    write(send, &bytes).await
}

/// Chunks that a peer waits for are counted as long as this lives.
struct Waiting<'a> {
    link: &'a Link,
    count: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.waiting.fetch_sub(self.count, Ordering::Relaxed);
    }
}

async fn read_question(mut receive: RecvStream) -> Result<Question, Cut> {
    let malformed = |error| Cut::Fault(Fault::Malformed(error));
    let question = match frames::read(&mut receive).await {
        Ok(Frame::Request(request)) => Question::Chunks(request),
        Ok(Frame::List { session, after }) => Question::List(session, after),
        Ok(Frame::Change { session, change }) => Question::Change(session, change),
        Ok(_) => return Err(Cut::Fault(Fault::Unexpected("a control frame instead of a request"))),
        Err(NoFrame::Gone) => return Err(Cut::Unwanted),
        Err(NoFrame::End) => return Err(malformed(FormatError::Truncated { at: "request frame" })),
        Err(NoFrame::Malformed(error)) => return Err(malformed(error)),
    };
    match receive.read(&mut [0]).await {
        Ok(None) => Ok(question),
        Ok(Some(_)) => Err(malformed(FormatError::Invalid { at: "after the request" })),
        Err(_) => Err(Cut::Unwanted),
    }
}

/// The session that a request names. Streams and the control stream are not
/// ordered among each other: it may begin in a moment.
async fn session_of(link: &Link, number: u32) -> Result<Session, Cut> {
    let began = tokio::time::Instant::now();
    loop {
        match link.talk().session(number) {
            Ok(session) => return Ok(session),
            Err(may_begin) if may_begin && began.elapsed() < ANSWER => {}
            Err(_) => return Err(Cut::Reset(RESET_REFUSED)),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn answer_found(
    link: &Link,
    session: &Session,
    send: &mut SendStream,
    request: Request,
) -> Result<(), Cut> {
    let shared = &link.shared;
    let mut own = &link.batches;
    if request.urgent {
        let _ = send.set_priority(URGENT - turn(send));
        own = &link.urgent_batches;
    }
    let mut ids = request.ids.into_iter().peekable();
    let mut is_first = true;
    while ids.peek().is_some() {
        // In this order, so that a slow peer waits for its own batches and
        // not with one of those that all share.
        let gone = |_| Cut::Unwanted;
        let _own = own.acquire().await.map_err(gone)?;
        let _common = shared.batches.acquire().await.map_err(gone)?;
        let (work, of) = (shared.clone(), session.clone());
        let load = tokio::task::spawn_blocking(move || {
            let batch = load(&work, &of, &mut ids);
            (batch, ids)
        });
        let (batch, mut left) = load.await.map_err(|error| {
            tracing::error!(%error, "a call of the service failed");
            Cut::Reset(RESET_GIVEN_UP)
        })?;
        let is_all = is_first && left.peek().is_none();
        (ids, is_first) = (left, false);
        let batch = batch.ok_or(Cut::Reset(RESET_REFUSED))?;
        let bytes: usize = batch.iter().flatten().map(|chunk| chunk.bytes().len()).sum();
        if is_all && bytes <= SMALL_BYTES {
            // Behind what is asked ahead, somebody would wait for little.
            let _ = send.set_priority(i32::MAX);
        }
        for found in batch {
            match found {
                Some(chunk) => send_chunk(link, send, &chunk).await?,
                None => write(send, &Answer::NotFound.encode()).await?,
            }
        }
    }
    Ok(())
}

/// The next chunks, until they are enough for a batch; `None` if the peer is
/// no longer a member.
fn load(
    shared: &Shared,
    session: &Session,
    ids: &mut impl Iterator<Item = ChunkId>,
) -> Option<Vec<Option<SealedChunk>>> {
    if session.is_closed() || !shared.is_admitted(session) {
        return None;
    }
    let mut batch = Vec::new();
    let mut bytes = 0;
    // What has been found is sent before more is looked for on a slow disk.
    let began = std::time::Instant::now();
    while bytes < BATCH_BYTES && began.elapsed() < BATCH_TIME {
        let Some(id) = ids.next() else { break };
        let found = shared.service.chunk(&session.portal, &id);
        if let Some(chunk) = &found {
            assert_eq!(chunk.id(), id, "the store gives the chunk that was asked for");
            bytes += chunk.bytes().len();
        }
        batch.push(found);
    }
    Some(batch)
}

async fn send_chunk(link: &Link, send: &mut SendStream, chunk: &SealedChunk) -> Result<(), Cut> {
    let pacer = &link.shared.send;
    let len = u32::try_from(chunk.bytes().len()).map_err(|_| Cut::Reset(RESET_GIVEN_UP))?;
    write(send, &Answer::Found { len }.encode()).await?;
    for slice in chunk.bytes().chunks(pacer.slice()) {
        pacer.turn(link.peer, slice.len()).await;
        write(send, slice).await?;
    }
    Ok(())
}

/// Writes all of it, as long as some of it is taken now and then.
async fn write(send: &mut SendStream, mut bytes: &[u8]) -> Result<(), Cut> {
    while !bytes.is_empty() {
        match tokio::time::timeout(STALL, send.write(bytes)).await {
            Ok(Ok(written)) => bytes = bytes.get(written..).unwrap_or_default(),
            Ok(Err(_)) => return Err(Cut::Unwanted),
            Err(_) => return Err(Cut::Reset(RESET_GIVEN_UP)),
        }
    }
    Ok(())
}
