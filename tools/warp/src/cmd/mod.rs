//! One module for each verb.

mod archive;
mod check;
mod completions;
mod config;
mod doctor;
mod info;
mod key;
mod man;
mod mount;
mod portal;
mod repair;
mod restore;
mod sharing;
mod snapshot;
mod status;
mod sync;
mod umount;
mod up;
mod warmup;

pub(crate) use up::named;

use crate::args::{Archive, Command, Key, Portal, Snapshot};
use crate::config::Config;
use crate::report::{Exit, Result, Ui};

/// Runs what was typed.
pub(crate) fn run(command: Command, config: &Config, ui: &Ui) -> Result<Exit> {
    config.check_for(&command)?;
    match command {
        Command::Archive(verb) => match verb {
            Archive::Create(args) => archive::create::run(args, ui),
            Archive::Ls(args) => archive::ls::run(&args, ui),
            Archive::Extract(args) => archive::extract::run(args, ui),
            Archive::Verify(args) => archive::verify::run(&args, ui),
            Archive::Diff(args) => archive::diff::run(&args, ui),
            Archive::Mount(args) => mount::archive(args, ui),
        },
        Command::Mount(args) => mount::run(args, ui),
        Command::Key(verb) => key::run(verb, ui),
        Command::Umount(args) => umount::run(&args, ui),
        Command::Doctor => doctor::run(config, ui),
        Command::Status(args) => status::run(&args, ui),
        Command::Peers(args) => sharing::peers(&args, ui),
        Command::Portal(verb) => portal::run(verb, ui),
        Command::Snapshot(verb) => snapshot::run(verb, ui),
        Command::Restore(args) => restore::run(&args, ui),
        Command::Sync(args) => sync::run(&args, ui),
        Command::Check(args) => check::run(&args, ui),
        Command::Repair(args) => repair::run(&args, ui),
        Command::Warmup(args) => warmup::run(&args, ui),
        Command::Up(args) => up::up(&args, ui),
        Command::Down => up::down(ui),
        Command::Info(args) => info::run(&args, ui),
        Command::Config(verb) => config::run(&verb, config, ui),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args, ui),
        Command::Init(args) => key::run(Key::Init(args), ui),
        Command::Ls(args) => portal::run(Portal::Ls(args), ui),
        Command::Snapshots(args) => snapshot::run(Snapshot::Ls(args), ui),
    }
}
