//! Where a passphrase comes from: a file, `WARP_PASSPHRASE`, the terminal.
//! Never from an argument, which every process on the machine can read.

use crate::args::PassphraseArg;
use crate::report::{Exit, Failure, Result};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use zeroize::Zeroizing;

type Passphrase = Zeroizing<Vec<u8>>;

/// From file or environment, if one of them says.
pub(crate) fn given(arg: &PassphraseArg) -> Result<Option<Passphrase>> {
    if let Some(path) = &arg.passphrase_file {
        let mut bytes = Zeroizing::new(
            std::fs::read(path).map_err(|e| Failure::from(warp_flow::FlowError::io(path, e)))?,
        );
        // One line, as editors write it.
        if let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            bytes.truncate(end);
        }
        return check(bytes).map(Some);
    }
    match std::env::var_os("WARP_PASSPHRASE") {
        Some(text) if !text.is_empty() => Ok(Some(Zeroizing::new(text.into_vec()))),
        _ => Ok(None),
    }
}

/// The passphrase of an existing archive.
pub(crate) fn ask(arg: &PassphraseArg, what: &str) -> Result<Passphrase> {
    match given(arg)? {
        Some(passphrase) => Ok(passphrase),
        None => prompt(&format!("Passphrase for {what}: "), what),
    }
}

/// A new passphrase, typed twice on a terminal.
pub(crate) fn choose(arg: &PassphraseArg, what: &str) -> Result<Passphrase> {
    if let Some(passphrase) = given(arg)? {
        return Ok(passphrase);
    }
    let first = prompt(&format!("New passphrase for {what}: "), what)?;
    let again = prompt("The same again: ", what)?;
    if *first == *again {
        Ok(first)
    } else {
        Err(Failure::new(Exit::Refused, "the two passphrases differ").hint("try again"))
    }
}

fn prompt(text: &str, what: &str) -> Result<Passphrase> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Refused, format!("{what}: a passphrase is needed"))
            .hint("give `--passphrase-file FILE` or set WARP_PASSPHRASE"));
    }
    let typed = rpassword::prompt_password(text)
        .map_err(|e| Failure::new(Exit::Failed, format!("terminal: {e}")))?;
    check(Zeroizing::new(typed.into_bytes()))
}

fn check(passphrase: Passphrase) -> Result<Passphrase> {
    if passphrase.is_empty() {
        return Err(Failure::new(Exit::Refused, "the passphrase is empty")
            .hint("an empty passphrase protects nothing; choose a longer one"));
    }
    Ok(passphrase)
}
