//! `warp archive`: needs no identity, no daemon and no network, and leaves no
//! state behind.

pub(super) mod create;
pub(super) mod diff;
pub(super) mod extract;
pub(super) mod ls;
pub(super) mod verify;

use crate::args::PassphraseArg;
use crate::passphrase;
use crate::report::{Failure, Result};
use std::cell::RefCell;
use std::path::Path;
use warp_flow::FlowError;
use warp_flow::archive::{ArchiveFile, ReadKeys};
use warp_flow::reader::TreeReader;

/// An archive, open for reading.
pub(crate) type OpenArchive = TreeReader<ArchiveFile>;

/// Opens an archive; asks for its passphrase if it is sealed.
pub(crate) fn open(path: &Path, passphrase: &PassphraseArg) -> Result<OpenArchive> {
    let file = ArchiveFile::open(path)?;
    let root = file.footer().root;
    let header = file.footer().header.clone();
    let keys = with_passphrase(path, passphrase, |ask| ReadKeys::unlock(&header, path, ask))?;
    Ok(TreeReader::new(file, keys, root))
}

/// Calls `unlock` with a function that asks for the passphrase of `path`. The
/// library knows no terminal, so a failure to ask is kept here meanwhile.
pub(crate) fn with_passphrase<T>(
    path: &Path,
    passphrase: &PassphraseArg,
    unlock: impl FnOnce(warp_flow::archive::AskPassphrase<'_>) -> warp_flow::Result<T>,
) -> Result<T> {
    let failure: RefCell<Option<Failure>> = RefCell::new(None);
    let ask = || {
        passphrase::ask(passphrase, &path.display().to_string()).map_err(|f| {
            *failure.borrow_mut() = Some(f);
            FlowError::Corrupt(warp_format::FormatError::Locked)
        })
    };
    let result = unlock(&ask);
    match failure.into_inner() {
        Some(failure) => Err(failure),
        None => Ok(result?),
    }
}
