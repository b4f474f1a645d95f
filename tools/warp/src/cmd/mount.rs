//! `warp mount`.
//!
//! A portal is mounted by the daemon. An archive needs none: the foreground
//! form does the work. The other starts it as a process of its own, in a
//! session of its own, waits until it says that the directory is usable, and
//! passes on what it says if it fails.

use crate::args::Mount as MountArgs;
use crate::client::{Daemon, failure_of};
use crate::daemon::wire::{
    MountPortal, MountRow, OfMount, PortalRow, Status, Unmount, Unmounted, WirePath,
};
use crate::mount_options::{self, Typed};
use crate::places::Source;
use crate::report::{Exit, Failure, Result, Ui};
use crate::{mount_helper, passphrase, show, signals};
use hyper::Method;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use warp_flow::archive::{ArchiveFile, ReadKeys};
use warp_flow::home::Home;
use warp_flow::reader::TreeReader;
use warp_flow::volume::ArchiveVolume;
use warp_fs::kernel::{MountError, absolute};
use warp_fs::{Caching, IdMap, Mount, MountOptions};
use zeroize::Zeroizing;

/// Set for the background process: the passphrase comes on standard input.
const CHILD: &str = "WARP_MOUNT_CHILD";

/// How long a daemon that has nothing to do may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);

pub(crate) fn run(mut args: MountArgs, ui: &Ui) -> Result<Exit> {
    let typed = Typed::of(&args)?;
    args.passphrase.passphrase_file = typed.passphrase_file.clone();
    if args.fstab {
        return fstab(&args, &typed, ui);
    }
    match Source::parse(&args.source) {
        Source::Portal { name, path } if !is_mistaken(&args, &name)? => {
            check_key(&name)?;
            portal(&args, &typed, &name, &path, ui)
        }
        _ => mount_archive(&args, &typed, ui),
    }
}

/// `warp archive mount`.
pub(crate) fn archive(mut args: MountArgs, ui: &Ui) -> Result<Exit> {
    let typed = Typed::of(&args)?;
    args.passphrase.passphrase_file = typed.passphrase_file.clone();
    if args.fstab { fstab(&args, &typed, ui) } else { mount_archive(&args, &typed, ui) }
}

fn mount_archive(args: &MountArgs, typed: &Typed, ui: &Ui) -> Result<Exit> {
    let options = options(args, typed)?;
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
        return in_background(args, typed, passphrase, ui);
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

/// Mounts a portal through the daemon.
fn portal(args: &MountArgs, typed: &Typed, name: &str, path: &Path, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let ask = MountPortal {
        portal: name.to_owned(),
        path: path.into(),
        directory: absolute(&args.directory).as_path().into(),
        read_only: typed.read_only,
        allow_other: typed.allow_other,
        nonempty: typed.nonempty,
        no_exec: typed.no_exec,
        write_through: typed.cache == Some(Caching::WriteThrough),
        users: triples(&typed.users),
        groups: triples(&typed.groups),
        offline: typed.offline,
        cache_bytes: typed.cache_size,
    };
    let mut daemon = Daemon::started(&home)?;
    let row: MountRow = daemon.ask_unlocked(&args.passphrase, Method::POST, "/v1/mounts", &ask)?;
    if row.read_only && !typed.read_only {
        ui.summary(&format!("portal {name} is written on another device; here it is read"));
    }
    if args.foreground {
        return stay(&args.directory, &home, daemon, row, ui);
    }
    tell(&format!("portal {name}"), &args.source, &args.directory, row.read_only, ui)
}

/// Says that it is mounted.
fn tell(what: &str, source: &Path, directory: &Path, read_only: bool, ui: &Ui) -> Result<Exit> {
    if ui.json {
        let document = json!({
            "source": source.to_string_lossy(),
            "directory": absolute(directory).to_string_lossy(),
            "read_only": read_only,
        });
        ui.print(&document.to_string())?;
    }
    let how = if read_only { " read-only" } else { "" };
    let (shown, typed) = (directory.display(), show::word(directory));
    ui.summary(&format!("{what} is mounted{how} on {shown}.  Unmount: warp umount {typed}"));
    Ok(Exit::Ok)
}

fn triples(map: &IdMap) -> Vec<(u32, u32, u32)> {
    map.ranges().map(|range| (range.from, range.to, range.count)).collect()
}

/// `--fstab`: the line for this mount. `mount.warp` understands it.
fn fstab(args: &MountArgs, typed: &Typed, ui: &Ui) -> Result<Exit> {
    let source = match Source::parse(&args.source) {
        Source::Portal { .. } => args.source.clone(),
        Source::Archive(path) => absolute(&path),
    };
    let mut options = vec![if typed.read_only { "ro" } else { "rw" }.to_owned()];
    if matches!(Source::parse(&args.source), Source::Portal { .. }) {
        options.push(format!("home={}", Home::from_environment()?.data().display()));
    }
    options.extend(typed.to_list());
    options.extend(typed.ignored().iter().cloned());
    if typed.ignored().is_empty() {
        // A machine whose portal cannot be mounted starts all the same.
        options.push("nofail".into());
    }
    let options = options.join(",");
    let (source, directory) = (source.to_string_lossy(), absolute(&args.directory));
    let fields = [&source, "warp", &options, &directory.to_string_lossy()];
    if ui.json {
        let document = json!({
            "source": source, "directory": directory.to_string_lossy(),
            "type": "warp", "options": options,
        });
        ui.print(&document.to_string())?;
        return Ok(Exit::Ok);
    }
    let [source, kind, options, directory] = fields.map(fstab_field);
    ui.print(&format!("{source} {directory} {kind} {options} 0 0"))?;
    if mount_helper::installed().is_none() {
        ui.summary(&format!("mount(8) finds warp after: {HELPER_FIX}"));
    }
    Ok(Exit::Ok)
}

/// Blanks separate the fields, and are written in octal.
fn fstab_field(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            ' ' | '\t' | '\n' | '\\' | '#' => out.push_str(&format!("\\{:03o}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Waits until it is unmounted; a signal unmounts it.
fn stay(typed: &Path, home: &Home, mut daemon: Daemon, row: MountRow, ui: &Ui) -> Result<Exit> {
    let (of_home, directory) = (home.clone(), row.directory.clone());
    signals::on_signal(move || unmount_by_signal(&of_home, &directory))?;
    ui.print(&format!("ready {}", typed.display()))?;
    let ask = OfMount { directory: row.directory };
    daemon.ask::<()>(Method::POST, "/v1/mounts/wait", &ask)?;
    let status: Status = daemon.ask(Method::GET, "/v1/status", &())?;
    if status.mounts.is_empty() && !status.stays {
        daemon.wait_for_end(END_WITHIN);
    }
    Ok(signals::received().unwrap_or(Exit::Ok))
}

/// What fails here leaves the mount as it is; the next signal ends this
/// process and not the mount.
fn unmount_by_signal(home: &Home, directory: &WirePath) {
    for lazy in [false, true] {
        let Ok(Some(mut daemon)) = Daemon::running(home) else { return };
        let ask = Unmount { directory: directory.clone(), lazy, flush: true };
        if daemon.ask::<Unmounted>(Method::DELETE, "/v1/mounts", &ask).is_ok() {
            return;
        }
    }
}

/// True if the portal of a name is not what was meant: a directory lies
/// there, and no portal has that name.
fn is_mistaken(args: &MountArgs, name: &str) -> Result<bool> {
    if !args.source.is_dir() {
        return Ok(false);
    }
    let home = Home::from_environment()?;
    if home.read_keyring()?.is_none() {
        return Ok(true);
    }
    let portals: Vec<PortalRow> =
        Daemon::started(&home)?.ask_unlocked(&args.passphrase, Method::GET, "/v1/portals", &())?;
    Ok(portals.iter().all(|portal| portal.name != name))
}

/// Without a key there is no portal, and no need for a daemon to say so.
fn check_key(name: &str) -> Result<()> {
    let home = Home::from_environment()?;
    if home.read_keyring()?.is_some() {
        return Ok(());
    }
    if home.has_portals() {
        return Err(lost_keyring(&home));
    }
    let cause = format!("{name}: no such archive, and this device has no portal");
    Err(Failure::new(Exit::NotFound, cause).hint(format!(
        "`warp portal create {}` makes one; an archive is named FILE.warp",
        show::word(Path::new(name))
    )))
}

/// There are portals, and nothing to open them with.
pub(super) fn lost_keyring(home: &Home) -> Failure {
    let path = home.keyring_path();
    Failure::new(Exit::NotFound, format!("{}: the keyring is missing", path.display()))
        .hint("bring the file back, or `warp key recover` makes one from the recovery phrase")
}

fn options(args: &MountArgs, typed: &Typed) -> Result<MountOptions> {
    let source = std::path::absolute(&args.source).unwrap_or_else(|_| args.source.clone());
    if typed.writable {
        return Err(Failure::new(Exit::Usage, "an archive is read-only")
            .hint("`warp archive extract` gives files that can be changed"));
    }
    if typed.offline || typed.cache_size.is_some() {
        return Err(Failure::new(Exit::Usage, "an archive comes from this disk alone")
            .hint("leave out `--offline` and `--cache-size`"));
    }
    if typed.cache.is_some() {
        return Err(mount_options::nothing_written());
    }
    let mut options = MountOptions::new(args.directory.clone(), &source.to_string_lossy());
    options.allow_other = typed.allow_other;
    options.nonempty = typed.nonempty;
    options.no_exec = typed.no_exec;
    (options.users, options.groups) = (typed.users, typed.groups);
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
    typed: &Typed,
    passphrase: Option<Zeroizing<Vec<u8>>>,
    ui: &Ui,
) -> Result<Exit> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("background process: {e}"));
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(failed);
    let mut command = Command::new("/proc/self/exe");
    command.args(["mount", "--foreground", "--quiet", "--color", "never"]);
    // All that was said, so that it can be read in the list of processes; and
    // nothing but that: what it says is for this process to pass on.
    // `defaults` keeps the settings from adding to that.
    command.args(["-o", "defaults"]);
    for option in typed.to_list() {
        command.args(["-o", &option]);
    }
    for variable in ["WARP_PASSPHRASE", "WARP_JSON", "WARP_VERBOSE", "WARP_MOUNT_OPTIONS"] {
        command.env_remove(variable);
    }
    command.arg("--").arg(absolute(&args.source)?).arg(absolute(&args.directory)?);
    // Not the directory that this was typed in: it would stay busy.
    command.current_dir("/").env(CHILD, "1");
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
        let what = args.source.display().to_string();
        return tell(&what, &args.source, &args.directory, true, ui);
    }
    // It failed, and has said why in the words of this program.
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Err(failure_of(&text, code.max(1))),
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
                (Exit::NotFound, Some(format!("mkdir -p {}", show::word(path))))
            }
            MountError::NotADirectory(_) => (Exit::Usage, Some("name an empty directory".into())),
            MountError::NotEmpty(_) => {
                (Exit::Usage, Some("name an empty directory, or give `-o nonempty`".into()))
            }
            MountError::Busy { path, .. } => {
                (Exit::Busy, Some(format!("warp umount {}", show::word(path))))
            }
            MountError::NoDevice => (Exit::Failed, Some(NO_DEVICE_FIX.into())),
            MountError::DeviceClosed(_) => (Exit::Failed, Some(CLOSED_DEVICE_FIX.into())),
            MountError::Mapped => {
                let hint = "leave it out: your own mount shows everything as yours";
                (Exit::Usage, Some(hint.into()))
            }
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
pub(super) const ALLOW_OTHER_FIX: &str = "echo user_allow_other | sudo tee -a /etc/fuse.conf";
pub(super) const HELPER_FIX: &str = "sudo ln -s \"$(command -v warp)\" /sbin/mount.warp";
