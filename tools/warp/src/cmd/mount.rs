//! `warp mount` of an archive.
//!
//! The foreground form does the work. The other starts it as a process of its
//! own, in a session of its own, waits until it says that the directory is
//! usable, and passes on what it says if it fails.

use crate::args::Mount as MountArgs;
use crate::report::{Exit, Failure, Result, Ui};
use crate::{passphrase, signals};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use warp_flow::archive::{ArchiveFile, ReadKeys};
use warp_flow::reader::TreeReader;
use warp_flow::volume::ArchiveVolume;
use warp_fs::kernel::MountError;
use warp_fs::{Mount, MountOptions};
use zeroize::Zeroizing;

/// Set for the background process: the passphrase comes on standard input.
const CHILD: &str = "WARP_MOUNT_CHILD";

pub(crate) fn run(args: MountArgs, ui: &Ui) -> Result<Exit> {
    let options = options(&args)?;
    let file = ArchiveFile::open(&args.source).map_err(|e| about_source(e, &args.source))?;
    let child = std::env::var_os(CHILD).is_some();
    let passphrase = match (&file.footer().header.slot, child) {
        (None, _) => None,
        (Some(_), true) => Some(from_parent()?),
        (Some(_), false) => {
            Some(passphrase::ask(&args.passphrase, &args.source.display().to_string())?)
        }
    };
    if !args.foreground {
        return in_background(&args, passphrase, ui);
    }
    let header = file.footer().header.clone();
    let root = file.footer().root;
    let keys =
        ReadKeys::unlock(&header, &args.source, &|| Ok(passphrase.clone().unwrap_or_default()))?;
    let reader = TreeReader::new(file, keys, root);
    // A damaged root is told now, not as an I/O error at the first `ls`.
    reader.node(reader.root()).map_err(|e| {
        let mut failure = Failure::from(e);
        failure.cause = format!("{}: {}", args.source.display(), failure.cause);
        failure
    })?;
    let mount = Mount::new(ArchiveVolume::new(reader), &options)?;
    let directory = mount.directory().to_path_buf();
    signals::on_signal(move || {
        if warp_fs::unmount(&directory, false).is_err() {
            let _ = warp_fs::unmount(&directory, true);
        }
    })?;
    ui.print(&format!("ready {}", args.directory.display()))?;
    if child {
        detach();
    }
    mount.run()?;
    Ok(signals::received().unwrap_or(Exit::Ok))
}

fn options(args: &MountArgs) -> Result<MountOptions> {
    let source = std::path::absolute(&args.source).unwrap_or_else(|_| args.source.clone());
    let mut options = MountOptions::new(args.directory.clone(), &source.to_string_lossy());
    options.allow_other = args.allow_other;
    for option in &args.options {
        match option.as_str() {
            // All of these are so in any case.
            "ro" | "nosuid" | "nodev" | "noatime" | "default_permissions" => {}
            "nonempty" => options.nonempty = true,
            "allow_other" => options.allow_other = true,
            "rw" => {
                return Err(Failure::new(Exit::Usage, "an archive is read-only")
                    .hint("`warp archive extract` gives files that can be changed"));
            }
            other => {
                return Err(Failure::new(Exit::Usage, format!("-o {other}: unknown mount option"))
                    .hint("known options: ro, nonempty, allow_other"));
            }
        }
    }
    Ok(options)
}

fn about_source(error: warp_flow::FlowError, source: &Path) -> Failure {
    let missing = matches!(error.kind(), warp_flow::Kind::NotFound);
    let failure = Failure::from(error);
    if missing && source.extension().is_none() {
        failure.hint("give the path of a .warp archive")
    } else {
        failure
    }
}

fn in_background(
    args: &MountArgs,
    passphrase: Option<Zeroizing<Vec<u8>>>,
    ui: &Ui,
) -> Result<Exit> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("background process: {e}"));
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(failed);
    let mut command = Command::new("/proc/self/exe");
    command.args(["mount", "--foreground", "--quiet"]);
    for option in &args.options {
        command.args(["-o", option]);
    }
    if args.allow_other {
        command.arg("--allow-other");
    }
    command.arg("--").arg(absolute(&args.source)?).arg(absolute(&args.directory)?);
    // Not the directory that this was typed in: it would stay busy.
    command.current_dir("/").env(CHILD, "1").env_remove("WARP_PASSPHRASE");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(mut stdin), Some(passphrase)) = (child.stdin.take(), passphrase) {
        stdin.write_all(&passphrase).map_err(failed)?;
    }
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    if line.starts_with("ready ") {
        ui.summary(&format!(
            "{} is mounted read-only on {}.  Unmount: warp umount {}",
            args.source.display(),
            args.directory.display(),
            args.directory.display()
        ));
        return Ok(Exit::Ok);
    }
    // It failed, and has said why in the words of this program.
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    ui.note(text.trim_end());
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => std::process::exit(code.max(1).into()),
        None => Err(Failure::new(Exit::Failed, format!("the mount process ended: {status}"))),
    }
}

fn from_parent() -> Result<Zeroizing<Vec<u8>>> {
    let mut passphrase = Zeroizing::new(Vec::new());
    std::io::stdin()
        .read_to_end(&mut passphrase)
        .map_err(|e| Failure::new(Exit::Failed, format!("passphrase: {e}")))?;
    Ok(passphrase)
}

/// Leaves the terminal's session, so that its signals and its end do not
/// reach this process, and lets go of the parent's pipes.
fn detach() {
    let _ = rustix::process::setsid();
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let (exit, hint) = match &error {
            MountError::Missing(path) => {
                (Exit::NotFound, Some(format!("mkdir -p {}", path.display())))
            }
            MountError::NotADirectory(_) => (Exit::Usage, Some("name an empty directory".into())),
            MountError::NotEmpty(_) => {
                (Exit::Usage, Some("name an empty directory, or give `-o nonempty`".into()))
            }
            MountError::Busy { path, .. } => {
                (Exit::Busy, Some(format!("warp umount {}", path.display())))
            }
            MountError::NoDevice => (Exit::Failed, Some(NO_DEVICE_FIX.into())),
            MountError::DeviceClosed(_) => (Exit::Failed, Some(CLOSED_DEVICE_FIX.into())),
            MountError::AllowOther => (Exit::Failed, Some(ALLOW_OTHER_FIX.into())),
            MountError::Failed { .. } => {
                (Exit::Failed, Some("`warp doctor` checks what a mount needs".into()))
            }
        };
        Self { cause: error.to_string(), hint, exit }
    }
}

pub(super) const NO_DEVICE_FIX: &str =
    "sudo modprobe fuse (in a container: run it with --device /dev/fuse)";
pub(super) const CLOSED_DEVICE_FIX: &str = "sudo chmod 0666 /dev/fuse";
pub(super) const ALLOW_OTHER_FIX: &str = "add a line `user_allow_other` to /etc/fuse.conf";
