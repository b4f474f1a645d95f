//! `warp key`: the owner's recovery phrase and this device's key.

use crate::args::{Key, KeyExport, KeyInit, KeyRecover, KeyShow, PassphraseArg};
use crate::daemon::edge::{corrupt_keyring, no_key};
use crate::passphrase;
use crate::report::{Exit, Failure, Result, Ui};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;
use warp_flow::FlowError;
use warp_flow::home::{Home, random_array, random_secret, write_private};
use warp_format::keys::RecoveryPhrase;
use warp_format::{FormatError, Keyring};
use zeroize::Zeroizing;

pub(super) fn run(verb: Key, ui: &Ui) -> Result<Exit> {
    match verb {
        Key::Init(args) => init(&args, ui),
        Key::Recover(args) => recover(&args, ui),
        Key::Show(args) => show(&args, ui),
        Key::Export(args) => export(&args, ui),
    }
}

/// This device's keyring, opened.
pub(super) fn keyring(arg: &PassphraseArg) -> Result<Keyring> {
    let home = Home::from_environment()?;
    let path = home.keyring_path();
    let Some(bytes) = home.read_keyring()? else { return Err(no_key(&path)) };
    let bad = |source| corrupt_keyring(FlowError::File { path: path.clone(), source });
    let passphrase = if Keyring::is_sealed(&bytes).map_err(bad)? {
        Some(passphrase::ask(arg, "the keyring")?)
    } else {
        None
    };
    Keyring::open(&bytes, passphrase.as_ref().map(|p| p.as_slice())).map_err(bad)
}

/// Makes a key as `warp key init` does, if there is none.
pub(super) fn ensure(passphrase: &PassphraseArg, home: &Home, ui: &Ui) -> Result<()> {
    if home.read_keyring()?.is_some() {
        return Ok(());
    }
    if !has_terminal() {
        let cause = "this device has no key yet, and no terminal to show its recovery phrase on";
        return Err(Failure::new(Exit::Usage, cause)
            .hint("`warp key init --phrase-file FILE` makes one; then do this again"));
    }
    let init_args = KeyInit {
        phrase_file: None,
        passphrase: PassphraseArg { passphrase_file: passphrase.passphrase_file.clone() },
    };
    let sealed = make(&init_args, home, ui)?.1;
    ui.summary(&kept(home, sealed));
    Ok(())
}

fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn check_none(home: &Home) -> Result<()> {
    if home.read_keyring()?.is_none() {
        return Ok(());
    }
    let path = home.keyring_path();
    Err(Failure::new(Exit::Usage, format!("{}: there is a key already", path.display()))
        .hint("`warp key show` shows it; move the file away to start anew"))
}

fn init(args: &KeyInit, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let (keyring, sealed) = make(args, &home, ui)?;
    told(&keyring, &home, sealed, ui)
}

/// A new key, in its place; and whether it is sealed there.
fn make(args: &KeyInit, home: &Home, ui: &Ui) -> Result<(Keyring, bool)> {
    check_none(home)?;
    if args.phrase_file.is_none() && !has_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "the recovery phrase has nowhere to go: no terminal",
        )
        .hint("`--phrase-file FILE` writes it to a file that only you can read"));
    }
    let passphrase = passphrase::given(&args.passphrase)?;
    let keyring = Keyring::new(random_secret()?, random_secret()?).map_err(FlowError::from)?;
    let phrase = keyring.phrase().map_err(FlowError::from)?;
    let words: Vec<&str> = phrase.words().collect();
    match &args.phrase_file {
        Some(path) => write_phrase(path, &words)?,
        None => show_and_ask_back(&words, ui)?,
    }
    let written = home.write_keyring(&keyring, passphrase.as_ref().map(|p| p.as_slice()));
    if let (Err(_), Some(path)) = (&written, &args.phrase_file) {
        // The phrase of a key that does not exist.
        let _ = std::fs::remove_file(path);
    }
    written?;
    Ok((keyring, passphrase.is_some()))
}

fn write_phrase(path: &Path, words: &[&str]) -> Result<()> {
    let text = Zeroizing::new(words.join(" ") + "\n");
    write_private(path, text.as_bytes()).map_err(|e| {
        if e.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::new(Exit::Usage, format!("{}: exists already", path.display()))
                .hint("a phrase is never written over another file; name a new one")
        } else {
            FlowError::io(path, e).into()
        }
    })
}

/// Shows the words once and asks for two of them, so that they are on paper
/// before anything depends on them.
fn show_and_ask_back(words: &[&str], ui: &Ui) -> Result<()> {
    ui.note("Write these words down. They are shown once, and bring everything back:");
    for (i, row) in words.chunks(6).enumerate() {
        let row: Vec<String> =
            row.iter().enumerate().map(|(j, w)| format!("{:>2} {w:<9}", i * 6 + j + 1)).collect();
        ui.note(&format!("  {}", row.join(" ")));
    }
    let [a, b] = random_array::<2>()?;
    let first = usize::from(a) % words.len();
    let second = (first + 1 + usize::from(b) % (words.len() - 1)) % words.len();
    for asked in [first, second] {
        let prompt = format!("Word {}: ", asked + 1);
        let _ = write!(std::io::stderr(), "{prompt}");
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|e| Failure::new(Exit::Failed, format!("terminal: {e}")))?;
        if line.trim().to_lowercase() != words[asked] {
            return Err(Failure::new(Exit::Refused, "that is another word; no key was made")
                .hint("`warp key init` starts again with new words"));
        }
    }
    Ok(())
}

fn recover(args: &KeyRecover, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    if !args.dry_run {
        check_none(&home)?;
    }
    let words = match &args.phrase_file {
        Some(path) => {
            Zeroizing::new(std::fs::read_to_string(path).map_err(|e| FlowError::io(path, e))?)
        }
        None if args.stdin || std::io::stdin().is_terminal() => read_words(args.stdin)?,
        None => {
            return Err(Failure::new(Exit::Usage, "the recovery phrase is needed")
                .hint("type it on a terminal, or give `--stdin` or `--phrase-file FILE`"));
        }
    };
    let phrase = RecoveryPhrase::parse(&words).map_err(|e| match e {
        FormatError::WrongKey { .. } => {
            Failure::new(Exit::Refused, "these are not 24 words of a recovery phrase (checksum)")
                .hint("check spelling and order; each word is in the BIP-39 English list")
        }
        other => FlowError::from(other).into(),
    })?;
    let entropy = phrase.entropy().map_err(FlowError::from)?;
    let keyring = Keyring::new(entropy, random_secret()?).map_err(FlowError::from)?;
    if args.dry_run {
        let owner = keyring.owner_id().map_err(FlowError::from)?;
        if ui.json {
            ui.print(&json!({ "owner": format!("{owner:#}") }).to_string())?;
        } else {
            ui.print(&format!("owner  {owner:#}"))?;
        }
        return Ok(Exit::Ok);
    }
    let passphrase = passphrase::given(&args.passphrase)?;
    home.write_keyring(&keyring, passphrase.as_ref().map(|p| p.as_slice()))?;
    told(&keyring, &home, passphrase.is_some(), ui)
}

fn read_words(whole: bool) -> Result<Zeroizing<String>> {
    let failed = |e| Failure::new(Exit::Failed, format!("recovery phrase: {e}"));
    let mut words = Zeroizing::new(String::new());
    if whole {
        std::io::stdin().take(4096).read_to_string(&mut words).map_err(failed)?;
    } else {
        *words = rpassword::prompt_password("Recovery phrase (24 words, not shown): ")
            .map_err(failed)?;
    }
    Ok(words)
}

fn told(keyring: &Keyring, home: &Home, sealed: bool, ui: &Ui) -> Result<Exit> {
    describe(keyring, &home.keyring_path(), sealed, ui)?;
    ui.summary(&kept(home, sealed));
    Ok(Exit::Ok)
}

fn kept(home: &Home, sealed: bool) -> String {
    let how = if sealed { "sealed under your passphrase" } else { "readable by you only" };
    format!("The keyring is {how}: {}", home.keyring_path().display())
}

fn describe(keyring: &Keyring, path: &Path, sealed: bool, ui: &Ui) -> Result<()> {
    let owner = keyring.owner_id().map_err(FlowError::from)?;
    let device = keyring.device_key().device_id();
    if ui.json {
        let document = json!({
            "owner": format!("{owner:#}"),
            "device": format!("{device:#}"),
            "keyring": path.to_string_lossy(),
            "sealed": sealed,
        });
        return ui.print(&document.to_string());
    }
    ui.print(&format!("owner  {owner:#}"))?;
    ui.print(&format!("device {device:#}"))
}

fn show(args: &KeyShow, ui: &Ui) -> Result<Exit> {
    let keyring = keyring(&args.passphrase)?;
    let home = Home::from_environment()?;
    let bytes = home.read_keyring()?.unwrap_or_default();
    let sealed = Keyring::is_sealed(&bytes).map_err(FlowError::from)?;
    describe(&keyring, &home.keyring_path(), sealed, ui)?;
    Ok(Exit::Ok)
}

fn export(args: &KeyExport, ui: &Ui) -> Result<Exit> {
    let keyring = keyring(&args.passphrase)?;
    if args.phrase {
        if !std::io::stdout().is_terminal() && !args.stdin {
            return Err(Failure::new(Exit::Usage, "the phrase is shown on a terminal only")
                .hint("`--stdin` allows a pipe or a file"));
        }
        let phrase = keyring.phrase().map_err(FlowError::from)?;
        let words = Zeroizing::new(phrase.words().collect::<Vec<_>>().join(" "));
        if ui.json {
            let document = Zeroizing::new(json!({ "phrase": words.as_str() }).to_string());
            ui.print(&document)?;
        } else {
            ui.print(&words)?;
        }
        return Ok(Exit::Ok);
    }
    let owner = keyring.owner_id().map_err(FlowError::from)?;
    if ui.json {
        ui.print(&json!({ "owner": format!("{owner:#}") }).to_string())?;
    } else {
        ui.print(&format!("{owner:#}"))?;
    }
    Ok(Exit::Ok)
}
