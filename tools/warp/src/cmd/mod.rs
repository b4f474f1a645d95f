//! One module for each verb.

mod archive;
mod doctor;
mod info;
mod key;
mod mount;
mod portal;
mod status;
mod sync;
mod umount;
mod up;

use crate::args::{Archive, Command};
use crate::daemon;
use crate::report::{Exit, Result, Ui};

/// Runs what was typed.
pub(crate) fn run(command: Command, ui: &Ui) -> Result<Exit> {
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
        Command::Doctor => doctor::run(ui),
        Command::Status(args) => status::run(&args, ui),
        Command::Portal(verb) => portal::run(verb, ui),
        Command::Sync(args) => sync::run(&args, ui),
        Command::Up(args) => up::up(&args, ui),
        Command::Down => up::down(ui),
        Command::Info(args) => info::run(&args, ui),
        Command::Daemon => daemon::run_detached(),
    }
}
