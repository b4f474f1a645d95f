//! What was typed. Meaning is given to it in `cmd`.

mod sharing;

pub(crate) use sharing::{
    Network, Peers, PeersVerb, PortalExpire, PortalInvite, PortalJoin, Switch, Warmup,
};

use crate::units;
use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// Least that a portal can do with on the disk, in bytes.
const MIN_QUOTA: u64 = 1 << 20;

/// An encrypted, deduplicated, versioned filesystem on your own machines.
#[derive(Debug, Parser)]
#[command(name = "warp", version, disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command has.
#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// Print results as one JSON document
    #[arg(long, global = true, env = "WARP_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Print errors only: no progress, no summary
    #[arg(short, long, global = true, env = "WARP_QUIET", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) quiet: bool,
    /// Say more on standard error: what is done, with -vv every request, with
    /// -vvv every chunk; `warp up` has its log say it
    #[arg(short, long, global = true, action = ArgAction::Count, env = "WARP_VERBOSE")]
    pub(crate) verbose: u8,
    /// When to use colours: auto, always or never
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true,
        env = "WARP_COLOR",
        value_name = "WHEN"
    )]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show this device, what is mounted, and what is unpublished
    Status(StatusArgs),
    /// Make, share, join, list and leave portals
    #[command(subcommand)]
    Portal(Portal),
    /// List the other devices of this device's portals
    Peers(Peers),
    /// Mount a portal, or a .warp archive read-only, on a directory
    Mount(Mount),
    /// Make everything in a mount durable and published
    Sync(Sync),
    /// Fetch files before anybody reads them
    Warmup(Warmup),
    /// Unmount a directory
    #[command(alias = "unmount")]
    Umount(Umount),
    /// Start the daemon, and let it stay when nothing is mounted
    Up(Up),
    /// Unmount every portal, and end the daemon
    Down,
    /// Keep what a portal is now, list what was kept, and let go of it
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Bring back what a snapshot has
    Restore(Restore),
    /// Say what of a portal is damaged, and what was not read
    #[command(alias = "fsck")]
    Check(Check),
    /// Make a portal's store sound again: its index from its packs
    Repair(Repair),
    /// Make, list, extract, verify and compare .warp archives
    #[command(subcommand)]
    Archive(Archive),
    /// Make, show and bring back the owner's and this device's keys
    #[command(subcommand)]
    Key(Key),
    /// Show this machine, an archive, or the mount that a path is in
    Info(Info),
    /// Check this machine, and say how to fix what is missing
    Doctor,
    /// Show and change the defaults of flags
    #[command(subcommand)]
    Config(Config),
    /// Print a shell's completion script
    Completions(Completions),
    /// Show the manual
    Man(Man),
    /// The same as `key init`
    #[command(hide = true)]
    Init(KeyInit),
    /// The same as `portal ls`
    #[command(hide = true)]
    Ls(PortalLs),
    /// The same as `snapshot ls`
    #[command(hide = true)]
    Snapshots(SnapshotLs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print what a key is set to
    Get(ConfigGet),
    /// Set a key in your own file
    Set(ConfigSet),
    /// Take a key out of your own file
    Unset(ConfigUnset),
    /// List all keys and what they are set to
    Ls(ConfigLs),
    /// Open your own file in an editor, and check it
    Edit,
    /// Print where your own file is
    Path,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigGet {
    /// `warp config ls` lists them
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Say where the value comes from, too
    #[arg(long, env = "WARP_ORIGIN", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) origin: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigSet {
    /// `warp config ls` lists them
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// As the flag takes it; true or false for a flag without a value
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) value: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigUnset {
    /// `warp config ls` lists them
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigLs {
    /// Say where each value comes from, too
    #[arg(long, env = "WARP_ORIGIN", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) origin: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Completions {
    /// Your shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Man {
    /// The page of this command, as in `warp man archive create`
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands into DIR (made if missing)
    #[arg(long, value_name = "DIR", env = "WARP_DIR", conflicts_with = "command")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Portal {
    /// Make a portal on this device
    Create(PortalCreate),
    /// List the portals of this device
    Ls(PortalLs),
    /// Show how far a portal is
    Status(PortalStatus),
    /// Print a ticket with which another device joins a portal
    Invite(PortalInvite),
    /// Join a portal with a ticket
    Join(PortalJoin),
    /// End a device's membership, or the tickets that are still open
    Expire(PortalExpire),
    /// Take a portal off this device
    Leave(PortalLeave),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PortalCreate {
    /// Its name on this device
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Most bytes that it may take on this disk, like 500M or 10G
    #[arg(long, env = "WARP_QUOTA", value_name = "SIZE", value_parser = quota)]
    pub(crate) quota: Option<NonZeroU64>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

fn quota(text: &str) -> Result<NonZeroU64, String> {
    let bytes = units::size(text)?;
    if bytes < MIN_QUOTA {
        return Err(format!("a quota is at least 1M, and {text} is less"));
    }
    NonZeroU64::new(bytes).ok_or_else(|| "a quota is not nothing".into())
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PortalLs {
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PortalStatus {
    /// The portal
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// List its members instead: who they are, and what they may do
    #[arg(long, env = "WARP_MEMBERS", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) members: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PortalLeave {
    /// The portal
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Move its sealed data aside instead of deleting it
    #[arg(long, env = "WARP_KEEP_DATA", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) keep_data: bool,
    /// Do not ask
    #[arg(short, long, env = "WARP_YES", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Publish a portal, and keep what it is now under a name
    Create(SnapshotCreate),
    /// List the snapshots of a portal
    Ls(SnapshotLs),
    /// Take snapshots away; what only they had leaves the disk
    Rm(SnapshotRm),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SnapshotCreate {
    /// The portal
    #[arg(value_name = "PORTAL")]
    pub(crate) portal: String,
    /// Its name, and that of its directory below .snapshots (default: the time, in UTC)
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A word to find it by; may be given several times
    #[arg(long = "tag", value_name = "TAG", action = ArgAction::Append, env = "WARP_TAG", value_delimiter = ',')]
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SnapshotLs {
    /// The portal
    #[arg(value_name = "PORTAL")]
    pub(crate) portal: String,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SnapshotRm {
    /// The portal
    #[arg(value_name = "PORTAL")]
    pub(crate) portal: String,
    /// `warp snapshot ls` lists them
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Restore {
    /// A path in a mounted portal, there or deleted; or a portal, or PORTAL:/path
    #[arg(value_name = "PATH|PORTAL[:/path]")]
    pub(crate) what: PathBuf,
    /// The snapshot's name, or a time: the last one made by then (default: the last one)
    ///
    /// A time is 2026-11-25 or 2026-11-25T18:30 (to their end) or 2026-11-25T18:30:00Z, all in UTC, or how long
    /// ago, like 2h or 7d.
    #[arg(long, value_name = "SNAPSHOT|TIME", env = "WARP_AT")]
    pub(crate) at: Option<String>,
    /// Restore below DIR (made if missing; default: back where PATH was)
    #[arg(short = 'C', long, value_name = "DIR", env = "WARP_DIRECTORY")]
    pub(crate) directory: Option<PathBuf>,
    /// Only say how much it is, and what is in the way
    #[arg(short = 'n', long, env = "WARP_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) dry_run: bool,
    /// Replace files that exist
    #[arg(long, env = "WARP_OVERWRITE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// Only the mount that DIR is in
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Show it again, every second or as often as said
    #[arg(short, long, env = "WARP_WATCH", value_name = "EVERY", value_parser = units::duration,
          num_args = 0..=1, require_equals = true, default_missing_value = "1s")]
    pub(crate) watch: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sync {
    /// The mount, or anything in it
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    /// The portal; it may be mounted and in use
    #[arg(value_name = "PORTAL")]
    pub(crate) portal: String,
    /// Read every byte of every pack, and compare it
    #[arg(long, env = "WARP_READ_DATA", conflicts_with = "sample", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) read_data: bool,
    /// Read this share of the data, chosen at random (names and attributes are always read)
    #[arg(long, value_name = "PERCENT", env = "WARP_SAMPLE", value_parser = percent)]
    pub(crate) sample: Option<f64>,
    /// Choose the same sample as the check that said this number
    #[arg(long, value_name = "NUMBER", env = "WARP_SEED", requires = "sample")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Repair {
    /// The portal; it must not be mounted
    #[arg(value_name = "PORTAL")]
    pub(crate) portal: String,
    /// Only say what would be done
    #[arg(short = 'n', long, env = "WARP_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Up {
    /// Stay in the foreground
    #[arg(short, long, env = "WARP_FOREGROUND", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) foreground: bool,
    #[command(flatten)]
    pub(crate) network: Network,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Info {
    /// An archive, or a path in a mount (default: this machine)
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Archive {
    /// Pack files and directories into an archive
    Create(Create),
    /// List what is in an archive
    Ls(Ls),
    /// Restore files from an archive
    Extract(Extract),
    /// Read and check an archive, and say what was checked
    Verify(Verify),
    /// Show what differs between two archives
    Diff(Diff),
    /// Mount an archive (the same as `warp mount`)
    Mount(Mount),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make the owner's recovery phrase (24 words, shown once) and this device's key
    Init(KeyInit),
    /// Bring the owner back from the recovery phrase, with a new device key
    Recover(KeyRecover),
    /// Show the public keys of owner and device
    Show(KeyShow),
    /// Print the owner's public key, or the recovery phrase
    Export(KeyExport),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KeyInit {
    /// Write the phrase to FILE (new, mode 0600) instead of the terminal
    #[arg(long, value_name = "FILE", env = "WARP_PHRASE_FILE")]
    pub(crate) phrase_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KeyRecover {
    /// Read the phrase from FILE
    #[arg(long, value_name = "FILE", env = "WARP_PHRASE_FILE")]
    pub(crate) phrase_file: Option<PathBuf>,
    /// Read the phrase from standard input
    #[arg(long, env = "WARP_STDIN", conflicts_with = "phrase_file", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) stdin: bool,
    /// Only check the phrase and show whose it is
    #[arg(short = 'n', long, env = "WARP_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KeyShow {
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KeyExport {
    /// The owner's public key (the default)
    #[arg(long, env = "WARP_PUBLIC", conflicts_with = "phrase", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) public: bool,
    /// The recovery phrase, on a terminal
    #[arg(long, env = "WARP_PHRASE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) phrase: bool,
    /// Let the phrase go to a pipe or a file
    #[arg(long, env = "WARP_STDIN", requires = "phrase", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) stdin: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PassphraseArg {
    /// Read the passphrase from the first line of FILE (else WARP_PASSPHRASE, else the terminal)
    #[arg(long, value_name = "FILE", env = "WARP_PASSPHRASE_FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Create {
    /// The archive to make; `-` writes it to standard output
    #[arg(value_name = "FILE.warp")]
    pub(crate) file: PathBuf,
    /// What to put in: relative paths are stored as they are, of an absolute path the last name
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Take relative paths from DIR
    #[arg(short = 'C', long, value_name = "DIR", env = "WARP_DIRECTORY")]
    pub(crate) directory: Option<PathBuf>,
    /// Leave out what matches: a name, or with a `/` in it a whole stored path
    #[arg(short = 'x', long, value_name = "GLOB", action = ArgAction::Append, env = "WARP_EXCLUDE", value_delimiter = ',')]
    pub(crate) exclude: Vec<String>,
    /// Compression: 0 is LZ4, 1 to 19 are zstd's levels
    #[arg(long, value_name = "LEVEL", default_value_t = 3, env = "WARP_LEVEL",
          value_parser = clap::value_parser!(u8).range(0..=19))]
    pub(crate) level: u8,
    /// Smallest size, slower random reads
    #[arg(long, env = "WARP_SOLID", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) solid: bool,
    /// Seal the archive under a passphrase: contents, names and attributes
    #[arg(long, env = "WARP_ENCRYPT", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) encrypt: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
    /// Sign the archive with this device's key (`warp key init` makes one)
    #[arg(long, env = "WARP_SIGN", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) sign: bool,
    /// Read the keyring's passphrase, if it has one, from the first line of FILE
    #[arg(long, value_name = "FILE", env = "WARP_KEY_PASSPHRASE_FILE", requires = "sign")]
    pub(crate) key_passphrase_file: Option<PathBuf>,
    /// Replace FILE.warp if it exists
    #[arg(short, long, env = "WARP_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) force: bool,
    /// Only count what would go in
    #[arg(short = 'n', long, env = "WARP_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Sort {
    Name,
    Size,
    Time,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Ls {
    /// The archive
    #[arg(value_name = "FILE.warp")]
    pub(crate) file: PathBuf,
    /// Only these paths and what is below them
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Type, mode, owner, size and time of each
    #[arg(short, long, env = "WARP_LONG", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) long: bool,
    /// Order: names as a tree, or largest or newest first
    #[arg(long, value_enum, default_value = "name", env = "WARP_SORT")]
    pub(crate) sort: Sort,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Extract {
    /// The archive
    #[arg(value_name = "FILE.warp")]
    pub(crate) file: PathBuf,
    /// Only these paths and what is below them
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Extract into DIR (made if missing; default: the current directory)
    #[arg(short = 'C', long, value_name = "DIR", env = "WARP_DIRECTORY")]
    pub(crate) directory: Option<PathBuf>,
    /// Restore every file that is whole from a damaged or truncated archive, and name the rest
    #[arg(long, env = "WARP_SALVAGE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) salvage: bool,
    /// Replace files that exist
    #[arg(short, long, env = "WARP_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// The archive
    #[arg(value_name = "FILE.warp")]
    pub(crate) file: PathBuf,
    /// Read only this share of the data chunks, chosen at random (all tree nodes are always read)
    #[arg(long, value_name = "PERCENT", env = "WARP_SAMPLE", value_parser = percent, conflicts_with_all = ["proof", "keyless"])]
    pub(crate) sample: Option<f64>,
    /// Check one file's way to the root and its content, and print it
    #[arg(long, value_name = "PATH", env = "WARP_PROOF", conflicts_with = "keyless")]
    pub(crate) proof: Option<PathBuf>,
    /// Fail unless the archive is signed by this device (64 hexadecimal digits, as `warp key show` prints)
    #[arg(long, value_name = "ID", env = "WARP_SIGNER")]
    pub(crate) signer: Option<String>,
    /// Check a sealed archive without its passphrase: every chunk against its id, not what is in it
    #[arg(long, env = "WARP_KEYLESS", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) keyless: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Diff {
    /// The older archive
    #[arg(value_name = "A.warp")]
    pub(crate) a: PathBuf,
    /// The newer archive
    #[arg(value_name = "B.warp")]
    pub(crate) b: PathBuf,
    /// Exit with 1 if something differs
    #[arg(long, env = "WARP_EXIT_CODE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) exit_code: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Mount {
    /// A portal, a directory in one, or an archive
    #[arg(value_name = "PORTAL[:/PATH]|FILE.warp")]
    pub(crate) source: PathBuf,
    /// An empty directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Stay in the foreground and print `ready DIR` when usable
    #[arg(short, long, env = "WARP_FOREGROUND", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) foreground: bool,
    /// Mount options, separated by commas, as in /etc/fstab
    ///
    /// ro, rw, noexec; nonempty (hide what is in DIR); allow_other; cache=writeback (what is written is gathered: the
    /// default) or cache=writethrough (the daemon has each write before it returns); `uidmap=FROM:TO[:COUNT]` and
    /// `gidmap=FROM:TO[:COUNT]` (root only: who is stored as FROM is shown as TO, and stored as FROM again);
    /// read_only, offline, cache_size=SIZE and passphrase_file=FILE, as the flags. A mount is nosuid, nodev, noatime and default_permissions
    /// in any case. What concerns mount(8) alone is passed over: defaults, auto, nofail, _netdev, user, x-…
    #[arg(short, value_name = "OPTS", value_delimiter = ',', env = "WARP_MOUNT_OPTIONS")]
    pub(crate) options: Vec<String>,
    /// Let other users in, as the files' modes allow
    ///
    /// An ordinary user needs a line `user_allow_other` in /etc/fuse.conf.
    #[arg(long, env = "WARP_ALLOW_OTHER", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) allow_other: bool,
    /// Mount read-only (archives always are)
    #[arg(long, env = "WARP_READ_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) read_only: bool,
    /// Ask no other device: show what is here
    #[arg(long, env = "WARP_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) offline: bool,
    /// Most that is kept here of what came from other devices, like 500M or 10G (default: 10G)
    #[arg(long, env = "WARP_CACHE_SIZE", value_name = "SIZE", value_parser = units::size)]
    pub(crate) cache_size: Option<u64>,
    /// Mount nothing: print the line of /etc/fstab for it
    #[arg(long, env = "WARP_FSTAB", conflicts_with = "foreground", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) fstab: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Umount {
    /// The mounted directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Detach now, even if files in it are in use
    #[arg(long, env = "WARP_LAZY", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) lazy: bool,
    /// Do not publish: what is unpublished stays in the journal on this device
    #[arg(long, env = "WARP_NO_FLUSH", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_flush: bool,
}

/// `5`, `5%`, `0.1%`: a share between 0 and 1.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 100.0 => Ok(n / 100.0),
        _ => Err("a share is written like 5% and lies above 0% and up to 100%".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!(percent("5%"), Ok(0.05));
        assert_eq!(percent("100"), Ok(1.0));
        for bad in ["0", "101%", "x", "", "-3%", "NaN"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_flag_has_an_environment_variable_and_help() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let name = arg.get_id().as_str();
                if arg.is_positional() || matches!(name, "help" | "version") {
                    continue;
                }
                assert!(arg.get_env().is_some(), "{} {name}", command.get_name());
                assert!(arg.get_help().is_some(), "{} {name}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Args::command());
    }
}
