//! Where a device keeps what is its own.
//!
//! `WARP_HOME` puts everything under one directory; without it the XDG
//! directories are used. Promises: directories are made with mode 0700, the
//! keyring with 0600 and replaced whole or not at all.

use crate::error::{FlowError, Result};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use warp_format::keys::ArgonCost;
use warp_format::{Keyring, KeyringRandom, Secret};
use zeroize::Zeroizing;

/// Longest keyring file that is read, in bytes.
const MAX_KEYRING_LEN: u64 = 1 << 20;

/// A device's directories.
#[derive(Debug, Clone)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    logs: PathBuf,
    run: PathBuf,
}

impl Home {
    /// From `WARP_HOME`, `XDG_DATA_HOME` or `HOME`.
    pub fn from_environment() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        // The daemon lives in another directory than the one this is typed in.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        if let Some(home) = set("WARP_HOME").map(absolute) {
            return Ok(Self::at(home));
        }
        let under = |variable: &str, default: &str| {
            set(variable).or_else(|| set("HOME").map(|home| home.join(default)))
        };
        let no_home = || FlowError::BadPath {
            path: "WARP_HOME".into(),
            why: "neither WARP_HOME nor HOME is set",
        };
        let config = under("XDG_CONFIG_HOME", ".config").ok_or_else(no_home)?.join("warp");
        let data = under("XDG_DATA_HOME", ".local/share").ok_or_else(no_home)?.join("warp");
        let logs = under("XDG_STATE_HOME", ".local/state").ok_or_else(no_home)?.join("warp/log");
        let run = set("XDG_RUNTIME_DIR").map_or_else(|| data.join("run"), |dir| dir.join("warp"));
        let [config, data, logs, run] = [config, data, logs, run].map(absolute);
        Ok(Self { config, data, logs, run })
    }

    /// Everything under one directory.
    pub fn at(home: PathBuf) -> Self {
        Self { logs: home.join("log"), run: home.join("run"), config: home.clone(), data: home }
    }

    /// Where the user's settings are.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Where keys and portals are.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where the daemon's log is.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Where the daemon's socket and lock are.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// True if there are portals, whether a keyring opens them or not.
    pub fn has_portals(&self) -> bool {
        let entries = std::fs::read_dir(self.data.join("portals")).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| !name.as_encoded_bytes().starts_with(b"."))
    }

    /// Path of the keyring.
    pub fn keyring_path(&self) -> PathBuf {
        self.data.join("keyring")
    }

    /// The keyring's bytes; `None` if there is none yet.
    pub fn read_keyring(&self) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self.keyring_path();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(FlowError::io(path, e)),
        };
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_KEYRING_LEN).read_to_end(&mut bytes).map_err(|e| FlowError::io(&path, e))?;
        Ok(Some(bytes))
    }

    /// Writes a keyring, sealed if there is a passphrase. Fails with `Exists`
    /// if there is one already.
    pub fn write_keyring(&self, keyring: &Keyring, passphrase: Option<&[u8]>) -> Result<()> {
        let path = self.keyring_path();
        let at = |e: io::Error| FlowError::io(&path, e);
        make_private_dir(&self.data).map_err(at)?;
        let bytes = match passphrase {
            None => keyring.encode(),
            Some(passphrase) => {
                let random = KeyringRandom {
                    file_key: random_secret()?,
                    salt: random_array()?,
                    nonce: random_array()?,
                };
                Zeroizing::new(keyring.seal(passphrase, ArgonCost::RECOMMENDED, &random)?)
            }
        };
        // The name appears only when the bytes are durable, and never
        // replaces another keyring.
        let temporary = self.data.join(format!(".keyring.{}.tmp", std::process::id()));
        let written =
            write_private(&temporary, &bytes).and_then(|()| std::fs::hard_link(&temporary, &path));
        let _ = std::fs::remove_file(&temporary);
        match written {
            Ok(()) => sync_dir(&self.data).map_err(at),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(FlowError::Exists { path }),
            Err(e) => Err(at(e)),
        }
    }
}

/// Makes a directory, and those above it, that only its owner can enter; what
/// was made survives a power cut.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    missing.into_iter().filter_map(Path::parent).try_for_each(sync_dir)
}

/// After it returns, the names in a directory survive a power cut.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(here)?.sync_all()
}

/// Writes a new file that only its owner can read, and makes it durable.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_dir(path.parent().unwrap_or(Path::new("")))
}

/// Fresh random bytes from the system.
pub fn random_array<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| FlowError::io("/dev/urandom", io::Error::other(e)))?;
    Ok(bytes)
}

/// A fresh random secret.
pub fn random_secret() -> Result<Secret> {
    Ok(Secret::new(random_array()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_keyring_is_private_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        assert!(home.read_keyring().unwrap().is_none());
        let keyring = Keyring::new(random_secret().unwrap(), random_secret().unwrap()).unwrap();
        home.write_keyring(&keyring, None).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&home.keyring_path()), mode(&home.data)), (0o600, 0o700));
        assert!(matches!(home.write_keyring(&keyring, None), Err(FlowError::Exists { .. })));
        assert_eq!(std::fs::read_dir(&home.data).unwrap().count(), 1);
    }
}
