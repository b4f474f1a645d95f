//! Peers on the wire: one QUIC endpoint for each device, sessions for the
//! portals that two devices share, requests for chunks, and finding each other
//! on the local network.
//!
//! Between `flow`, which implements [`Service`] and decides whom to ask for
//! what, and the network. Promises: the other end of a [`Session`] is the
//! device that was dialled and a member of the portal; bytes from a peer become
//! a `SealedChunk` only through [`Received::verify`]; everything that a peer
//! can make this device hold is bounded. Never: knows a store or a plan, reads
//! a head or a membership record, keeps addresses, retries a chunk.
//! Tested by `tests/*.rs` with real endpoints on the loopback interface.
//!
//! The steps: [`Endpoint`] dials or is dialled, `tls` says with whom, `link`
//! keeps the connection, `talk` its control stream, `roll` who is connected;
//! `fetch` and `ask` ask and `serve` answers, chunks at the pace of `pace`.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use warp_format::{ChunkId, DeviceId, PortalId, Secret};
//! # use warp_net::{Endpoint, Event, Rates, Service};
//! # async fn example(
//! #     seed: Secret, service: Arc<dyn Service>, peer: DeviceId, portal: PortalId, id: ChunkId,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let listen = "127.0.0.1:0".parse()?;
//! let endpoint = Endpoint::bind(&seed, listen, Rates::default(), service).await?;
//! let session = endpoint.open(peer, &["127.0.0.1:4711".parse()?], portal).await?;
//! let (tell, mut events) = tokio::sync::mpsc::unbounded_channel();
//! let request = session.request(1, vec![id], tell);
//! while let Some(event) = events.recv().await {
//!     if let Event::Chunk { id, bytes, .. } = event {
//!         let chunk = bytes.verify(id)?;
//!         println!("{} bytes", chunk.bytes().len());
//!     }
//! }
//! # drop(request);
//! # Ok(())
//! # }
//! ```
//!
#![doc = include_str!("../../../docs/protocol.md")]
#![forbid(unsafe_code)]

mod ask;
mod close;
mod discovery;
mod endpoint;
mod error;
mod fetch;
mod frames;
mod limits;
mod link;
mod outbox;
mod pace;
mod roll;
mod serve;
mod service;
mod session;
mod talk;
mod tls;
mod transport;

pub use close::Close;
pub use discovery::{Discovery, Found, Record, Scope};
pub use endpoint::{Endpoint, Rates};
pub use error::{NetError, Reach, Result};
pub use service::{Joiner, News, Service, Welcome};
pub use session::{Event, Received, Request, Session, Wish};
pub use warp_format::wire::{Change, Changed, Denied, Have, Held, Listed, Prints, Unchanged};
