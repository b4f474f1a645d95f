//! What is typed of other devices and the network.

use super::PassphraseArg;
use crate::units;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;
use warp_format::members::Capability;

#[derive(Debug, ClapArgs)]
pub(crate) struct PortalInvite {
    /// The portal
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Who joins may never write: the same as `--role reader`
    #[arg(long, env = "WARP_READ_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) read_only: bool,
    /// What who joins may do; each may do what those before it may: a custodian keeps and serves sealed chunks and can read nothing
    #[arg(
        long,
        env = "WARP_ROLE",
        value_enum,
        default_value = "writer",
        conflicts_with = "read_only"
    )]
    pub(crate) role: Role,
    /// Who joins may invite others to what it may do itself (an admin always may)
    #[arg(long, env = "WARP_MAY_INVITE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) may_invite: bool,
    /// How long the ticket is good, like 24h or 7d
    #[arg(long, env = "WARP_EXPIRES", value_name = "DURATION", default_value = "24h", value_parser = units::duration)]
    pub(crate) expires: Duration,
    /// How many devices may join with it
    #[arg(long, env = "WARP_USES", value_name = "COUNT", default_value_t = NonZeroU32::MIN)]
    pub(crate) uses: NonZeroU32,
    /// Show it as a QR code, too
    #[arg(long, env = "WARP_QR", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

/// A capability, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Custodian,
    Reader,
    Writer,
    Admin,
}

impl PortalInvite {
    /// What who joins may do.
    pub(crate) fn capability(&self) -> Capability {
        match self.role {
            _ if self.read_only => Capability::Reader,
            Role::Custodian => Capability::Custodian,
            Role::Reader => Capability::Reader,
            Role::Writer => Capability::Writer,
            Role::Admin => Capability::Admin,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PortalJoin {
    /// What `warp portal invite` printed; `-` reads it from standard input
    #[arg(value_name = "TICKET", env = "WARP_TICKET", hide_env_values = true)]
    pub(crate) ticket: String,
    /// Its name on this device (default: what it is called where it comes from)
    #[arg(long = "as", env = "WARP_AS", value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["member", "invites"]))]
pub(crate) struct PortalExpire {
    /// The portal
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// This device is a member no more: its name or the start of its id
    #[arg(long, env = "WARP_MEMBER", value_name = "PEER")]
    pub(crate) member: Option<String>,
    /// No ticket that was printed so far is good any more
    #[arg(long, env = "WARP_INVITES", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) invites: bool,
    /// Not now, but after this long, like 24h or 7d
    #[arg(long = "in", env = "WARP_IN", value_name = "DURATION", value_parser = units::duration, conflicts_with = "invites")]
    pub(crate) after: Option<Duration>,
    /// Not now, but at this time (UTC), like 2027-01-31 (its end) or 2027-01-31T18:30
    #[arg(long, env = "WARP_AT", value_name = "TIME", conflicts_with_all = ["invites", "after"])]
    pub(crate) at: Option<String>,
    /// Not at all: it is a member for good again
    #[arg(long, env = "WARP_NEVER", value_parser = clap::builder::FalseyValueParser::new(), conflicts_with_all = ["invites", "after", "at"])]
    pub(crate) never: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

/// How the daemon uses the network. It does so only for portals that other
/// devices have joined, or are invited to.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Network {
    /// Where peers reach it (default: all addresses, and a port of its own
    /// that stays the same)
    #[arg(long, env = "WARP_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Find the members' devices on the local network by multicast
    #[arg(
        long,
        env = "WARP_MDNS",
        value_enum,
        default_value = "on",
        hide_default_value = true,
        value_name = "on|off",
        hide_possible_values = true
    )]
    pub(crate) mdns: Switch,
    /// Most bytes a second that are sent to all peers together, and received from them, like 500K or 10M
    #[arg(long, env = "WARP_LIMIT", value_name = "RATE", value_parser = rate)]
    pub(crate) limit: Option<NonZeroU64>,
    /// The same to and from each peer
    #[arg(long, env = "WARP_LIMIT_PER_PEER", value_name = "RATE", value_parser = rate)]
    pub(crate) limit_per_peer: Option<NonZeroU64>,
    /// Serve what is counted at http://ADDR:PORT/metrics, on a loopback address
    #[arg(long, env = "WARP_METRICS", value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Peers {
    #[command(subcommand)]
    pub(crate) verb: Option<PeersVerb>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeersVerb {
    /// List them
    Ls,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Warmup {
    /// Files, and directories with all below them, in a mount
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Fetch nothing: say how much is here
    #[arg(long, env = "WARP_CHECK", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) check: bool,
    /// Say of each chunk that comes which peers could give it, when each was
    /// expected to, who was asked, and who gave it
    #[arg(long, env = "WARP_EXPLAIN", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

/// `10M`, `10M/s`: bytes a second.
fn rate(text: &str) -> Result<NonZeroU64, String> {
    let bytes = units::size(text.strip_suffix("/s").unwrap_or(text))?;
    NonZeroU64::new(bytes).ok_or_else(|| "a rate is not nothing".into())
}
