//! `warp doctor`: what a mount needs, each with the command that mends it.

use super::mount::{ALLOW_OTHER_FIX, CLOSED_DEVICE_FIX, HELPER_FIX, NO_DEVICE_FIX};
use crate::client::Daemon;
use crate::config::Config;
use crate::daemon::lock::RunDir;
use crate::places::is_archive_mount;
use crate::report::{Exit, Result, Ui};
use crate::{mount_helper, show};
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use warp_flow::home::Home;
use warp_format::Keyring;
use warp_fs::kernel::{MountError, check_device, is_dead, mounts};

/// With less room a portal soon stops taking writes.
const LITTLE_ROOM_BYTES: u64 = 1 << 30;
/// With less room it may not even take deletions.
const NO_ROOM_BYTES: u64 = 64 << 20;
/// 2025: no clock that is right says less.
const NOT_BEFORE: Duration = Duration::from_secs(1_735_689_600);
/// How far a file of ours may lie ahead of the clock.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3600);

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

impl Finding {
    fn fine(what: &'static str, says: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Fine, says: says.into(), fix: None }
    }

    fn note(what: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Note, says: says.into(), fix: Some(fix.into()) }
    }

    fn broken(what: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Broken, says: says.into(), fix: Some(fix.into()) }
    }
}

pub(crate) fn run(config: &Config, ui: &Ui) -> Result<Exit> {
    let mut findings = vec![device(), helper(), allow_other(), mount_warp(), settings(config)];
    match Home::from_environment() {
        Ok(home) => findings.extend([
            directory(&home),
            room(&home),
            clock(&home),
            keyring(&home),
            daemon(&home),
        ]),
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
                Verdict::Fine => ui.paint_result("32", "ok    "),
                Verdict::Note => ui.paint_result("33", "note  "),
                Verdict::Broken => ui.paint_result("1;31", "BROKEN"),
            };
            // The line is cleaned first: the colour is ours.
            ui.print_marked(&mark, &format!("{}: {}", f.what, f.says))?;
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

/// Nothing but mount(8) and fstab needs it.
fn mount_warp() -> Finding {
    let what = "mount.warp";
    match mount_helper::installed() {
        Some(path) => Finding::fine(what, format!("{}: fstab and mount(8) work", path.display())),
        None => Finding::note(what, "not installed: fstab and mount(8) need it", HELPER_FIX),
    }
}

fn settings(config: &Config) -> Finding {
    match config.check() {
        Ok(()) => Finding::fine("settings", "readable, or there are none"),
        Err(failure) => Finding::broken("settings", failure.cause, "warp config edit"),
    }
}

/// The directory with keys and portals, if it is there yet.
fn directory(home: &Home) -> Finding {
    let what = "home";
    let (path, typed) = (home.data().display(), show::word(home.data()));
    let Ok(meta) = std::fs::metadata(home.data()) else {
        return Finding::fine(what, format!("{path}: not there yet"));
    };
    let (me, mode) = (rustix::process::geteuid(), meta.permissions().mode() & 0o777);
    if meta.uid() != me.as_raw() && !me.is_root() {
        let says = format!("{path}: belongs to user {}", meta.uid());
        return Finding::broken(what, says, format!("sudo chown -R \"$(id -u)\" {typed}"));
    }
    let fix = format!("chmod 700 {typed}");
    match mode {
        _ if mode & 0o022 != 0 => {
            Finding::broken(what, format!("{path}: others may write to it (mode {mode:03o})"), fix)
        }
        _ if mode & 0o055 != 0 => {
            Finding::note(what, format!("{path}: others may look into it (mode {mode:03o})"), fix)
        }
        _ => Finding::fine(what, format!("{path}: closed to others")),
    }
}

/// Room on the disk that portals are kept on.
fn room(home: &Home) -> Finding {
    let what = "disk";
    let there = home.data().ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let path = there.display();
    let space = match rustix::fs::statvfs(there) {
        Ok(space) => space,
        Err(e) => return Finding::broken(what, format!("{path}: {e}"), "df -h"),
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let says = format!("{path}: {} free", show::size(free));
    let fix =
        format!("make room; what takes it: du -xh --max-depth=2 {} | sort -h", show::word(there));
    if free < NO_ROOM_BYTES {
        Finding::broken(what, says, fix)
    } else if free < LITTLE_ROOM_BYTES {
        Finding::note(what, says, fix)
    } else {
        Finding::fine(what, says)
    }
}

/// Times that are shown and compared come from it.
fn clock(home: &Home) -> Finding {
    let what = "clock";
    let fix = "sudo timedatectl set-ntp true (or: sudo date -s 'YYYY-MM-DD HH:MM')";
    let now = SystemTime::now();
    if now.duration_since(UNIX_EPOCH).is_ok_and(|since| since < NOT_BEFORE) {
        return Finding::broken(what, "is set to a time long past", fix);
    }
    let ours = [home.keyring_path(), home.data().join("portals"), home.logs().to_path_buf()];
    let newest = ours.iter().filter_map(|path| std::fs::metadata(path).ok()?.modified().ok()).max();
    match newest.and_then(|newest| newest.duration_since(now).ok()) {
        Some(ahead) if ahead > CLOCK_SLACK => {
            let days = ahead.as_secs() / 86_400;
            Finding::broken(what, format!("is {days} days behind files that warp wrote"), fix)
        }
        _ => Finding::fine(what, "agrees with what warp wrote"),
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
        return broken(says, &format!("chmod 600 {}", show::word(&path)));
    }
    let bytes = match home.read_keyring() {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            let says = "there is none; a portal needs one, an archive does not".into();
            let fix = Some("warp key init".into());
            return Finding { what, verdict: Verdict::Note, says, fix };
        }
        Err(e) => {
            let fix = format!("sudo chown \"$(id -u)\" {0} && chmod 600 {0}", show::word(&path));
            return broken(e.to_string(), &fix);
        }
    };
    let opened = Keyring::is_sealed(&bytes).and_then(|sealed| match sealed {
        true => Ok(true),
        false => Keyring::open(&bytes, None).map(|_| false),
    });
    match opened {
        Ok(true) => fine("sealed under a passphrase"),
        Ok(false) => fine("readable by this user only, without a passphrase"),
        Err(e) => {
            let typed = show::word(&path);
            let fix = format!("mv {typed} {typed}.damaged && warp key recover");
            broken(format!("{shown}: {e}"), &fix)
        }
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
        Err(failure) => (Verdict::Broken, failure.cause, failure.hint.or(Some("warp down".into()))),
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
    let directory = show::word(&first.directory);
    let fix = if is_archive_mount(first) {
        format!("warp umount --lazy {directory}")
    } else {
        format!(
            "warp umount {directory} (or again: warp mount {} {directory})",
            show::word(Path::new(&first.source))
        )
    };
    let says = format!("no process serves {}", named.join(", "));
    Finding { what, verdict: Verdict::Broken, says, fix: Some(fix) }
}
