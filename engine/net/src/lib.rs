//! Peers on the wire.
#![forbid(unsafe_code)]

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
pub use session::{Event, Received, Request, Session};
pub use warp_format::wire::{Denied, Have, Held, Prints};
