//! `warp doctor`: what a mount needs, each with the command that mends it.

use super::mount::{ALLOW_OTHER_FIX, CLOSED_DEVICE_FIX, NO_DEVICE_FIX};
use crate::client::Daemon;
use crate::daemon::lock::RunDir;
use crate::places::is_archive_mount;
use crate::report::{Exit, Result, Ui};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use warp_flow::home::Home;
use warp_format::Keyring;
use warp_fs::kernel::{MountError, check_device, is_dead, mounts};

enum Verdict {
    Fine,
    /// Works, but something is worth knowing.
    Note,
    Broken,
}

struct Finding {
    what: &'static str,
    verdict: Verdict,
    says: String,
    fix: Option<String>,
}

pub(crate) fn run(ui: &Ui) -> Result<Exit> {
    let mut findings = vec![device(), helper(), allow_other()];
    match Home::from_environment() {
        Ok(home) => findings.extend([keyring(&home), daemon(&home)]),
        Err(e) => findings.push(Finding {
            what: "home",
            verdict: Verdict::Note,
            says: e.to_string(),
            fix: Some("export WARP_HOME=DIR".into()),
        }),
    }
    findings.extend([swap(), dead_mounts()]);
    let broken = findings.iter().any(|f| matches!(f.verdict, Verdict::Broken));
    if ui.json {
        let rows: Vec<_> = findings
            .iter()
            .map(|f| {
                let verdict = match f.verdict {
                    Verdict::Fine => "ok",
                    Verdict::Note => "note",
                    Verdict::Broken => "broken",
                };
                json!({"check": f.what, "verdict": verdict, "says": f.says, "fix": f.fix})
            })
            .collect();
        ui.print(&json!({ "ok": !broken, "checks": rows }).to_string())?;
    } else {
        for f in &findings {
            let mark = match f.verdict {
                Verdict::Fine => "ok    ",
                Verdict::Note => "note  ",
                Verdict::Broken => "BROKEN",
            };
            ui.print(&format!("{mark} {}: {}", f.what, f.says))?;
            if let Some(fix) = &f.fix {
                ui.print(&format!("       fix: {fix}"))?;
            }
        }
    }
    Ok(if broken { Exit::Failed } else { Exit::Ok })
}

fn device() -> Finding {
    let (verdict, says, fix) = match check_device() {
        Ok(()) => (Verdict::Fine, "can be opened".to_owned(), None),
        Err(MountError::NoDevice) => {
            (Verdict::Broken, "does not exist".to_owned(), Some(NO_DEVICE_FIX.to_owned()))
        }
        Err(e) => (Verdict::Broken, e.to_string(), Some(CLOSED_DEVICE_FIX.to_owned())),
    };
    Finding { what: "/dev/fuse", verdict, says, fix }
}

fn helper() -> Finding {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join("fusermount3"))
        .find(|path| path.is_file());
    let root = rustix::process::geteuid().is_root();
    let (verdict, says, fix) = match (found, root) {
        (Some(path), _) => (Verdict::Fine, path.display().to_string(), None),
        (None, true) => (Verdict::Fine, "not there, and root does not need it".to_owned(), None),
        (None, false) => (
            Verdict::Broken,
            "not found: an ordinary user mounts through it".to_owned(),
            Some("sudo apt-get install fuse3".to_owned()),
        ),
    };
    Finding { what: "fusermount3", verdict, says, fix }
}

fn allow_other() -> Finding {
    let allowed = std::fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"));
    let what = "--allow-other";
    if allowed || rustix::process::geteuid().is_root() {
        Finding { what, verdict: Verdict::Fine, says: "is allowed".into(), fix: None }
    } else {
        let says = "only root may use it on this machine".into();
        Finding { what, verdict: Verdict::Note, says, fix: Some(ALLOW_OTHER_FIX.into()) }
    }
}

fn keyring(home: &Home) -> Finding {
    let what = "keyring";
    let path = home.keyring_path();
    let shown = path.display();
    let fine = |says: &str| Finding {
        what,
        verdict: Verdict::Fine,
        says: format!("{shown}: {says}"),
        fix: None,
    };
    let broken = |says: String, fix: &str| Finding {
        what,
        verdict: Verdict::Broken,
        says,
        fix: Some(fix.into()),
    };
    let mode = std::fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        let says = format!("{shown}: others may read it (mode {mode:03o})");
        return broken(says, &format!("chmod 600 {shown}"));
    }
    let bytes = match home.read_keyring() {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            let says = "there is none; a portal needs one, an archive does not".into();
            let fix = Some("warp key init".into());
            return Finding { what, verdict: Verdict::Note, says, fix };
        }
        Err(e) => return broken(e.to_string(), "make it readable for this user"),
    };
    let opened = Keyring::is_sealed(&bytes).and_then(|sealed| match sealed {
        true => Ok(true),
        false => Keyring::open(&bytes, None).map(|_| false),
    });
    match opened {
        Ok(true) => fine("sealed under a passphrase"),
        Ok(false) => fine("readable by this user only, without a passphrase"),
        Err(e) => broken(
            format!("{shown}: {e}"),
            "move the file away and bring it back with `warp key recover`",
        ),
    }
}

fn daemon(home: &Home) -> Finding {
    let what = "daemon";
    let (verdict, says, fix) = match Daemon::running(home) {
        Ok(Some(daemon)) => {
            let pid = daemon.pid().map_or("?".into(), |pid| pid.to_string());
            (Verdict::Fine, format!("runs as process {pid}"), None)
        }
        Ok(None) if RunDir::socket(home).exists() => {
            let says = "does not run; the last one was killed, and the next clears up after it";
            (Verdict::Note, says.into(), None)
        }
        Ok(None) => (Verdict::Fine, "does not run, and is started when needed".into(), None),
        Err(failure) => (Verdict::Broken, failure.cause, failure.hint),
    };
    Finding { what, verdict, says, fix }
}

/// Keys are in memory, and memory may go to a disk.
fn swap() -> Finding {
    let table = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let open: Vec<&str> = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|device| !is_encrypted(device))
        .collect();
    let what = "swap";
    if open.is_empty() {
        let says = "none, or encrypted".into();
        return Finding { what, verdict: Verdict::Fine, says, fix: None };
    }
    let says = format!("{} may hold keys in the clear", open.join(", "));
    let fix = Some("encrypt it (crypttab option `swap`), or sudo swapoff -a".into());
    Finding { what, verdict: Verdict::Note, says, fix }
}

/// True for memory that stays memory, and for a device of dm-crypt.
fn is_encrypted(device: &str) -> bool {
    let real = std::fs::canonicalize(device).unwrap_or_else(|_| device.into());
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mapped = std::fs::read_to_string(format!("/sys/block/{name}/dm/uuid"));
    name.starts_with("zram") || mapped.is_ok_and(|uuid| uuid.starts_with("CRYPT-"))
}

fn dead_mounts() -> Finding {
    let dead: Vec<_> =
        mounts().into_iter().filter(|mount| mount.is_ours() && is_dead(&mount.directory)).collect();
    let what = "mounts";
    let Some(first) = dead.first() else {
        return Finding { what, verdict: Verdict::Fine, says: "none is dead".into(), fix: None };
    };
    let named: Vec<_> = dead.iter().map(|mount| mount.directory.display().to_string()).collect();
    let directory = first.directory.display();
    let fix = if is_archive_mount(first) {
        format!("warp umount --lazy {directory}")
    } else {
        format!("warp umount {directory}, or again: warp mount {} {directory}", first.source)
    };
    let says = format!("no process serves {}", named.join(", "));
    Finding { what, verdict: Verdict::Broken, says, fix: Some(fix) }
}
