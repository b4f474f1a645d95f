//! Peers on the wire.
#![forbid(unsafe_code)]

mod close;
mod discovery;
mod endpoint;
mod error;
mod service;
mod session;

pub use close::Close;
pub use discovery::{Discovery, Found};
pub use endpoint::{Endpoint, Rates};
pub use error::{NetError, Reach, Result};
pub use service::{Joiner, News, Service, Welcome};
pub use session::{Event, Received, Request, Session};
pub use warp_format::wire::{Denied, Have, Held, Prints};
