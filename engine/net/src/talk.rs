//! What is said on a control stream, and what follows from it.
//!
//! Neighbours: `link` reads the frames one at a time; `roll` carries out what
//! concerns the daemon. Promises: nothing of a portal is said before both
//! sides have proved its access key on this very connection and the other is a
//! member; unknown portal, non-member and former member get the same answer at
//! the same time; what a peer sends is handled before its next frame is read,
//! so it cannot pile up. Never: trusts a number, a key or an order of frames.
//! Tested by `tests/sessions.rs`, `tests/refusals.rs`.

use crate::error::{NetError, Result};
use crate::limits::{REFUSAL, REFUSALS_MAX, SESSIONS_MAX};
use crate::link::{Fault, Link};
use crate::service::{Joiner, News, Service, Welcome};
use crate::session::Session;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use warp_format::wire::{Denied, Frame, Redeem, Role, is_proof, proof};
use warp_format::{PortalId, Secret};

/// A `Hello` of ours that waits for its answer.
pub(crate) struct Asked {
    portal: PortalId,
    access: Secret,
    done: oneshot::Sender<Result<Session>>,
    /// The peer has been shown the members, or has shown them: once is enough.
    is_second: bool,
    /// The peer accepted and is to show the members, by which we may know it.
    is_learning: bool,
}

/// The state of one control stream.
pub(crate) struct Talk {
    /// The next number for a session that this side opens.
    next: u32,
    /// The last number that the other side has used.
    heard: Option<u32>,
    asked: HashMap<u32, Asked>,
    open: HashMap<u32, Session>,
    /// Sessions whose opener is to show the members.
    strangers: HashMap<u32, PortalId>,
    redeeming: Option<oneshot::Sender<Result<Welcome>>>,
    refusals: u32,
}

/// What a number of a session stands for.
enum Number {
    Open(Session),
    Stranger(PortalId),
    Learning(PortalId),
    /// It meant something, or soon will.
    Stale,
}

/// What an opener is answered.
enum Verdict {
    Member(PortalId, [u8; 32]),
    Stranger(PortalId, [u8; 32]),
    Refused,
}

impl Talk {
    pub(crate) fn new(dialled: bool) -> Self {
        Self {
            next: u32::from(!dialled),
            heard: None,
            asked: HashMap::new(),
            open: HashMap::new(),
            strangers: HashMap::new(),
            redeeming: None,
            refusals: 0,
        }
    }

    /// Whether someone waits for something on this connection, or has it.
    pub(crate) fn is_in_use(&self) -> bool {
        !self.open.is_empty()
            || self.asked.values().any(|asked| !asked.done.is_closed())
            || self.redeeming.as_ref().is_some_and(|done| !done.is_closed())
    }

    fn is_full(&self) -> bool {
        self.open.len() + self.asked.len() + self.strangers.len() >= SESSIONS_MAX
    }

    /// Whether a number is one of this side's.
    fn is_ours(&self, number: u32) -> bool {
        number % 2 == self.next % 2
    }

    /// The session behind a number, as requests name it. `Err(true)`: it may
    /// be about to begin.
    pub(crate) fn session(&self, number: u32) -> Result<Session, bool> {
        self.open.get(&number).cloned().ok_or_else(|| self.asked.contains_key(&number))
    }

    fn number(&self, number: u32) -> Result<Number, Fault> {
        if let Some(session) = self.open.get(&number) {
            return Ok(Number::Open(session.clone()));
        }
        if let Some(portal) = self.strangers.get(&number) {
            return Ok(Number::Stranger(*portal));
        }
        if let Some(asked) = self.asked.get(&number).filter(|asked| asked.is_learning) {
            return Ok(Number::Learning(asked.portal));
        }
        let was_used = if self.is_ours(number) {
            number < self.next
        } else {
            self.heard.is_some_and(|last| number <= last)
        };
        if was_used {
            Ok(Number::Stale)
        } else {
            Err(Fault::Unexpected("a session that never was"))
        }
    }

    /// Takes all numbers of a session away.
    pub(crate) fn forget(&mut self, session: &Session) {
        self.open.retain(|_, other| !other.is_same(session));
    }

    /// The connection is over: answers everyone, and gives the sessions there were.
    pub(crate) fn end(&mut self, error: &NetError) -> Vec<Session> {
        for (_, asked) in self.asked.drain() {
            let _ = asked.done.send(Err(error.clone()));
        }
        if let Some(done) = self.redeeming.take() {
            let _ = done.send(Err(error.clone()));
        }
        self.strangers.clear();
        self.open.drain().map(|(_, session)| session).collect()
    }
}

/// What one side says and the other checks.
impl Link {
    fn proof_here(&self, access: &Secret, role: Role) -> [u8; 32] {
        proof(access, role, &self.exporter, &self.shared.identity.device())
    }

    fn is_proof_there(&self, claimed: &[u8; 32], access: &Secret, role: Role) -> bool {
        is_proof(claimed, access, role, &self.exporter, &self.peer)
    }

    /// Asks the service on a thread that may block; `None` if it failed.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Service) -> T + Send + 'static,
    ) -> Option<T> {
        let service = self.shared.service.clone();
        let answer = tokio::task::spawn_blocking(move || question(&*service)).await;
        answer.inspect_err(|error| tracing::error!(%error, "a call of the service failed")).ok()
    }

    /// Says `Hello` for a portal; the answer comes by the receiver.
    pub(crate) fn hello(
        &self,
        portal: PortalId,
        access: Secret,
    ) -> Result<oneshot::Receiver<Result<Session>>> {
        let (done, told) = oneshot::channel();
        let asked = Asked { portal, access, done, is_second: false, is_learning: false };
        self.say_hello(asked);
        if self.is_closed() { Err(self.error()) } else { Ok(told) }
    }

    fn say_hello(&self, asked: Asked) {
        let proof = self.proof_here(&asked.access, Role::Opener);
        let mut talk = self.talk();
        let session = talk.next;
        talk.next += 2;
        talk.asked.insert(session, asked);
        // Under the lock, so that numbers leave in their order.
        self.put_small(&Frame::Hello { session, proof });
    }

    /// Sends what redeems an invite; one at a time on a connection.
    pub(crate) fn redeem(&self, redeem: Redeem) -> Result<oneshot::Receiver<Result<Welcome>>> {
        let (done, told) = oneshot::channel();
        let before = self.talk().redeeming.replace(done);
        if before.is_some_and(|before| !before.is_closed()) {
            tracing::debug!(peer = %self.peer, "an earlier redeem is given up");
        }
        self.put(&Frame::Redeem(redeem))?;
        if self.is_closed() { Err(self.error()) } else { Ok(told) }
    }

    /// Takes one frame of the control stream.
    pub(crate) async fn take(self: &Arc<Self>, frame: Frame) -> Result<(), Fault> {
        tracing::trace!(peer = %self.peer, frame = frame.name(), "heard");
        match frame {
            Frame::Hello { session, proof } => self.on_hello(session, proof).await,
            Frame::Accepted { session, proof } => self.on_accepted(session, proof).await,
            Frame::Unknown { session, proof } => self.on_unknown(session, proof).await,
            Frame::Refused { session } => self.on_over(session, true),
            Frame::Left { session } => self.on_over(session, false),
            Frame::Head { session, head } => self.on_news(session, News::Head(head)).await,
            Frame::Have { session, have } => self.on_news(session, News::Have(have)).await,
            Frame::Members { session, records } => self.on_members(session, records).await,
            Frame::AskMembers { session, from } => self.on_ask_members(session, from).await,
            Frame::Redeem(redeem) => self.on_redeem(redeem).await,
            Frame::Welcome { members } => self.on_redeemed(Ok(Welcome { members })),
            Frame::Denied { why } => {
                self.on_redeemed(Err(NetError::Denied { peer: self.peer, why }))
            }
            Frame::Request(_)
            | Frame::List { .. }
            | Frame::Listed(_)
            | Frame::Change { .. }
            | Frame::Changed(_) => Err(Fault::Unexpected("a request on the control stream")),
        }
    }

    async fn on_hello(self: &Arc<Self>, session: u32, claimed: [u8; 32]) -> Result<(), Fault> {
        let at = Instant::now();
        let is_second = {
            let mut talk = self.talk();
            let is_second = talk.strangers.remove(&session).is_some();
            if !is_second {
                if talk.is_ours(session) || talk.heard.is_some_and(|last| session <= last) {
                    return Err(Fault::Unexpected("a session number out of turn"));
                }
                if talk.is_full() {
                    return Err(Fault::Full("sessions on one connection"));
                }
                talk.heard = Some(session);
            }
            is_second
        };
        let (exporter, peer, here) = (self.exporter, self.peer, self.shared.identity.device());
        let verdict = self.ask(move |service| {
            let mut found = None;
            // All are tried, so that the time does not tell which it was.
            for (portal, access) in service.portals() {
                if is_proof(&claimed, &access, Role::Opener, &exporter, &peer) {
                    found = Some((portal, proof(&access, Role::Acceptor, &exporter, &here)));
                }
            }
            match found {
                Some((portal, proof)) if service.admits(&portal, &peer) => {
                    Verdict::Member(portal, proof)
                }
                Some((portal, proof)) if !is_second && service.is_stranger(&portal, &peer) => {
                    Verdict::Stranger(portal, proof)
                }
                _ => Verdict::Refused,
            }
        });
        match verdict.await.unwrap_or(Verdict::Refused) {
            Verdict::Member(portal, proof) => {
                let accepted = Frame::Accepted { session, proof };
                self.begin(session, portal, Some(accepted)).await;
            }
            Verdict::Stranger(portal, proof) => {
                self.talk().strangers.insert(session, portal);
                self.put_small(&Frame::Unknown { session, proof });
            }
            Verdict::Refused => self.refuse(at, Frame::Refused { session }).await?,
        }
        Ok(())
    }

    /// The one way to say no: late enough that the time tells nothing, and not
    /// too often.
    async fn refuse(&self, asked: Instant, answer: Frame) -> Result<(), Fault> {
        tokio::time::sleep_until((asked + REFUSAL).into()).await;
        tracing::info!(peer = %self.peer, answer = answer.name(), "refused");
        self.put_small(&answer);
        let mut talk = self.talk();
        talk.refusals += 1;
        let too_many = talk.refusals >= REFUSALS_MAX;
        drop(talk);
        if too_many { Err(Fault::Full("refusals on one connection")) } else { Ok(()) }
    }

    /// A session begins, from whichever side: the peer is let in, the daemon
    /// told, then the peer hears the heads.
    async fn begin(
        self: &Arc<Self>,
        number: u32,
        portal: PortalId,
        first: Option<Frame>,
    ) -> Session {
        self.open_wide();
        // The same portal may have been opened by both sides at once.
        let same = self.shared.roll.session_on(self, &portal);
        let is_new = same.is_none();
        let session = same.unwrap_or_else(|| Session::new(self.clone(), number, portal));
        self.talk().open.insert(number, session.clone());
        if let Some(frame) = first {
            self.put_small(&frame);
        }
        if is_new {
            tracing::info!(peer = %self.peer, %portal, rtt_us = self.connection.rtt().as_micros() as u64, "session");
            // An error means that the endpoint is going away.
            let _ = self.shared.begin(&session).await;
            let heads = self.ask(move |service| service.heads(&portal)).await.unwrap_or_default();
            for head in heads {
                self.put_small(&Frame::Head { session: number, head });
            }
            // The connection may have ended before its session was entered.
            if self.is_closed() {
                self.end(&session, None);
            }
        }
        session
    }

    /// Takes an `Asked` whose answer carries the acceptor's proof, if it does.
    fn proven(&self, session: u32, claimed: &[u8; 32]) -> Result<Option<PortalId>, Fault> {
        let talk = self.talk();
        let Some(asked) = talk.asked.get(&session) else {
            return talk.number(session).map(|_| None);
        };
        if asked.is_learning {
            Err(Fault::Unexpected("a second answer to one hello"))
        } else if self.is_proof_there(claimed, &asked.access, Role::Acceptor) {
            Ok(Some(asked.portal))
        } else {
            Err(Fault::Unexpected("an answer without the proof that belongs to it"))
        }
    }

    async fn on_accepted(self: &Arc<Self>, session: u32, claimed: [u8; 32]) -> Result<(), Fault> {
        let Some(portal) = self.proven(session, &claimed)? else { return Ok(()) };
        let peer = self.peer;
        let known = self.ask(move |service| {
            let admitted = service.admits(&portal, &peer);
            (admitted, !admitted && service.is_stranger(&portal, &peer))
        });
        let (admitted, is_stranger) = known.await.unwrap_or_default();
        if admitted {
            let asked = self.talk().asked.remove(&session);
            let begun = self.begin(session, portal, None).await;
            if let Some(asked) = asked {
                let _ = asked.done.send(Ok(begun));
            }
            return Ok(());
        }
        {
            let mut talk = self.talk();
            if let Some(asked) = talk.asked.get_mut(&session)
                && is_stranger
                && !asked.is_second
            {
                asked.is_learning = true;
                drop(talk);
                self.put_small(&Frame::AskMembers { session, from: 0 });
                return Ok(());
            }
        }
        self.give_up(session);
        Ok(())
    }

    /// The other side is not a member here.
    fn give_up(&self, session: u32) {
        tracing::info!(peer = %self.peer, "not a member of the portal that was to be opened");
        if let Some(asked) = self.talk().asked.remove(&session) {
            let _ = asked.done.send(Err(NetError::Refused { peer: self.peer }));
        }
        self.put_small(&Frame::Left { session });
    }

    async fn on_unknown(&self, session: u32, claimed: [u8; 32]) -> Result<(), Fault> {
        let Some(portal) = self.proven(session, &claimed)? else { return Ok(()) };
        let is_second = match self.talk().asked.get_mut(&session) {
            Some(asked) => std::mem::replace(&mut asked.is_second, true),
            None => return Ok(()),
        };
        let peer = self.peer;
        let shown = self.ask(move |service| {
            (!is_second && service.admits(&portal, &peer)).then(|| service.members(&portal, 0))
        });
        let Some(records) = shown.await.flatten() else {
            self.give_up(session);
            return Ok(());
        };
        let access = self.talk().asked.get(&session).map(|asked| asked.access.clone());
        if let Some(access) = access {
            self.put_small(&Frame::Members { session, records });
            let proof = self.proof_here(&access, Role::Opener);
            self.put_small(&Frame::Hello { session, proof });
        }
        Ok(())
    }

    fn on_over(&self, number: u32, is_refusal: bool) -> Result<(), Fault> {
        let mut talk = self.talk();
        if let Some(asked) = talk.asked.remove(&number) {
            let _ = asked.done.send(Err(NetError::Refused { peer: self.peer }));
            return Ok(());
        }
        match talk.number(number)? {
            Number::Open(session) => {
                drop(talk);
                tracing::info!(peer = %self.peer, portal = %session.portal, is_refusal, "session over");
                self.end(&session, None);
            }
            Number::Stranger(_) => {
                talk.strangers.remove(&number);
            }
            Number::Learning(_) | Number::Stale => {}
        }
        Ok(())
    }

    async fn on_news(&self, number: u32, news: News) -> Result<(), Fault> {
        let Number::Open(session) = self.talk().number(number)? else { return Ok(()) };
        let shared = self.shared.clone();
        let heard = tokio::task::spawn_blocking(move || {
            if shared.is_admitted(&session) {
                shared.service.heard(&session.portal, &session.link.peer, news);
            }
        });
        if let Err(error) = heard.await {
            tracing::error!(%error, "a call of the service failed");
        }
        Ok(())
    }

    async fn on_members(&self, number: u32, records: Vec<u8>) -> Result<(), Fault> {
        let known = self.talk().number(number)?;
        let (portal, is_learning) = match known {
            Number::Open(_) => return self.on_news(number, News::Members(records)).await,
            Number::Stranger(portal) => (portal, false),
            Number::Learning(portal) => (portal, true),
            Number::Stale => return Ok(()),
        };
        let peer = self.peer;
        self.ask(move |service| service.heard(&portal, &peer, News::Members(records))).await;
        if !is_learning {
            return Ok(());
        }
        // What the peer said since it accepted was passed over: once more. (The
        // lock is let go of before the next `Hello` takes it.)
        let asked = self.talk().asked.remove(&number);
        if let Some(mut asked) = asked {
            (asked.is_learning, asked.is_second) = (false, true);
            self.put_small(&Frame::Left { session: number });
            self.say_hello(asked);
        }
        Ok(())
    }

    async fn on_ask_members(&self, number: u32, from: u64) -> Result<(), Fault> {
        let Number::Open(session) = self.talk().number(number)? else { return Ok(()) };
        let shared = self.shared.clone();
        let records = tokio::task::spawn_blocking(move || {
            let admitted = shared.is_admitted(&session);
            admitted.then(|| shared.service.members(&session.portal, from))
        });
        if let Some(records) = records.await.ok().flatten() {
            self.put_small(&Frame::Members { session: number, records });
        }
        Ok(())
    }

    async fn on_redeem(&self, redeem: Redeem) -> Result<(), Fault> {
        let at = Instant::now();
        if redeem.verify(&self.exporter, &self.peer).is_err() {
            return self.refuse(at, Frame::Denied { why: Denied::Unknown }).await;
        }
        let Redeem { invite, wrap, name, .. } = redeem;
        let joiner = Joiner { device: self.peer, invite, wrap, name };
        match self.ask(move |service| service.redeem(joiner)).await {
            Some(Ok(welcome)) => {
                tracing::info!(peer = %self.peer, %invite, "an invite was redeemed");
                self.put_small(&Frame::Welcome { members: welcome.members });
                Ok(())
            }
            Some(Err(why)) => self.refuse(at, Frame::Denied { why }).await,
            None => self.refuse(at, Frame::Denied { why: Denied::Unknown }).await,
        }
    }

    fn on_redeemed(&self, answer: Result<Welcome>) -> Result<(), Fault> {
        let done = self.talk().redeeming.take();
        let done = done.ok_or(Fault::Unexpected("an answer to no redeem"))?;
        let _ = done.send(answer);
        Ok(())
    }
}
