//! `warp doctor`: what a mount needs, each with the command that mends it.

use super::mount::{ALLOW_OTHER_FIX, CLOSED_DEVICE_FIX, NO_DEVICE_FIX};
use crate::report::{Exit, Result, Ui};
use serde_json::json;
use std::path::Path;
use warp_fs::kernel::{MountError, check_device, mounts};

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
    let findings = [device(), helper(), allow_other(), dead_mounts()];
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

fn dead_mounts() -> Finding {
    let dead: Vec<String> = mounts()
        .into_iter()
        .filter(|mount| mount.is_ours() && is_dead(&mount.directory))
        .map(|mount| mount.directory.display().to_string())
        .collect();
    let what = "mounts";
    if dead.is_empty() {
        return Finding { what, verdict: Verdict::Fine, says: "none is dead".into(), fix: None };
    }
    let fix = format!("warp umount --lazy {}", dead[0]);
    let says = format!("no process serves {}", dead.join(", "));
    Finding { what, verdict: Verdict::Broken, says, fix: Some(fix) }
}

fn is_dead(directory: &Path) -> bool {
    std::fs::metadata(directory).is_err_and(|e| e.kind() == std::io::ErrorKind::NotConnected)
}
