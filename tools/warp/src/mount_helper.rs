//! `mount.warp`: what mount(8) calls for `mount -t warp NAME DIR` and for a
//! line of /etc/fstab, when this program is there under that name.
//!
//! Promises: says in `warp mount`'s words what that says, and ends as
//! mount(8) wants it: 0, 1 for what was typed wrongly, 32 for the rest.
//! `-o home=DIR` names the WARP_HOME; root serves one that is not its own as
//! the user whose it is, and leaves nothing of root's in it. Tested below and
//! by `tests/tests/fstab.rs`.

use crate::mount_options::Typed;
use crate::report::{Exit, Failure, Result, Ui};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const NAMES: [&str; 2] = ["mount.warp", "mount.fuse.warp"];
/// What mount(8) calls a failed mount.
const MOUNT_FAILED: u8 = 32;
/// What mount(8) calls a wrong call.
const WRONG_CALL: u8 = 1;

/// What mount(8) passes: `SOURCE DIRECTORY [-sfnv] [-N NAMESPACE] [-o OPTIONS]
/// [-t TYPE]`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    source: OsString,
    directory: OsString,
    options: String,
    /// Options that are not known are passed over.
    sloppy: bool,
    /// Everything but the mount itself.
    fake: bool,
    verbose: bool,
}

/// True if this program was called by one of those names.
pub(crate) fn is_called(words: &[OsString]) -> bool {
    let name = words.first().map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| NAMES.iter().any(|helper| name == *helper))
}

/// Mounts.
pub(crate) fn run(words: &[OsString]) -> ExitCode {
    let ended = Call::parse(words.get(1..).unwrap_or_default()).and_then(|call| call.mount());
    ExitCode::from(match ended {
        Ok(code) => code,
        Err(failure) => match Ui::plain().fail(&failure) {
            Exit::Usage => WRONG_CALL,
            _ => MOUNT_FAILED,
        },
    })
}

impl Call {
    fn parse(words: &[OsString]) -> Result<Self> {
        let wrong = |cause: String| {
            Failure::new(Exit::Usage, cause)
                .hint("mount(8) calls this: mount -t warp PORTAL DIR -o OPTIONS")
        };
        let mut call = Self::default();
        let mut places = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let flags = word.to_str().and_then(|word| word.strip_prefix('-'));
            let Some(flags) = flags.filter(|flags| !flags.is_empty()) else {
                places.push(word.clone());
                continue;
            };
            for (at, flag) in flags.char_indices() {
                match flag {
                    's' => call.sloppy = true,
                    'f' => call.fake = true,
                    'v' => call.verbose = true,
                    // There is no list of mounts to leave it out of.
                    'n' => {}
                    'o' | 't' | 'N' => {
                        // The value is the rest of the word, or the next one.
                        let rest = flags.get(at + 1..).filter(|rest| !rest.is_empty());
                        let value = match rest {
                            Some(rest) => Some(rest.to_owned()),
                            None => words.next().and_then(|w| w.to_str()).map(str::to_owned),
                        };
                        let value =
                            value.ok_or_else(|| wrong(format!("-{flag}: needs a value")))?;
                        match flag {
                            'o' if call.options.is_empty() => call.options = value,
                            'o' => call.options = format!("{},{value}", call.options),
                            'N' => {
                                return Err(wrong("-N: another namespace is not supported".into()));
                            }
                            _ => {}
                        }
                        break;
                    }
                    other => return Err(wrong(format!("-{other}: unknown flag"))),
                }
            }
        }
        match <[OsString; 2]>::try_from(places) {
            Ok([source, directory]) => Ok(Self { source, directory, ..call }),
            Err(places) => Err(wrong(format!("{} places, and not two", places.len()))),
        }
    }

    /// Runs `warp mount` with the home and as the user that it is for.
    fn mount(self) -> Result<u8> {
        let typed = Typed::of_list(&self.options, self.sloppy)?;
        if self.fake {
            return Ok(0);
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg0("warp").arg("mount");
        if self.verbose {
            command.arg("-v");
        } else {
            command.arg("--quiet");
        }
        if typed.read_only {
            command.arg("--read-only");
        }
        // What fstab says is all: settings add nothing to it.
        command.args(["-o", "defaults"]);
        for option in typed.to_list() {
            command.arg("-o").arg(option);
        }
        command.arg("--").arg(&self.source).arg(&self.directory);
        if let Some(home) = &typed.home {
            command.env("WARP_HOME", home);
            serve_as_owner(&mut command, home)?;
        }
        let failed = |e| Failure::new(Exit::Failed, format!("warp mount: {e}"));
        let status = command.status().map_err(failed)?;
        Ok(match status.code() {
            Some(0) => 0,
            Some(code) if code == Exit::Usage as i32 => WRONG_CALL,
            _ => MOUNT_FAILED,
        })
    }
}

/// What root writes into a user's home, that user cannot read: root becomes
/// the user first.
fn serve_as_owner(command: &mut Command, home: &PathBuf) -> Result<()> {
    let there = std::fs::metadata(home).map_err(|e| {
        Failure::new(Exit::NotFound, format!("-o home={}: {e}", home.display()))
            .hint("name the WARP_HOME, or without one ~/.local/share/warp of its user")
    })?;
    let (me, owner) = (rustix::process::geteuid(), there.uid());
    if me.is_root() && owner != 0 {
        // Its own groups are not known here; those of root are let go of.
        command.uid(owner).gid(there.gid());
        command.env_remove("HOME").env_remove("XDG_RUNTIME_DIR");
    }
    Ok(())
}

/// Where mount(8) looks for the helper, and whether it is there.
pub(crate) fn installed() -> Option<PathBuf> {
    let directories = ["/sbin", "/usr/sbin", "/usr/local/sbin", "/sbin/fs.d", "/sbin/fs"];
    let path = |directory| Path::new(directory).join(OsStr::new(NAMES[0]));
    directories.into_iter().map(path).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Call> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Call::parse(&words)
    }

    #[test]
    fn what_mount_passes_is_understood() {
        let call = parse("photos /mnt/p -sv -o rw,nosuid -oro -t fuse.warp -n -f").unwrap();
        let expected = Call {
            source: "photos".into(),
            directory: "/mnt/p".into(),
            options: "rw,nosuid,ro".into(),
            sloppy: true,
            fake: true,
            verbose: true,
        };
        assert_eq!(call, expected);
        assert_eq!(parse("-o ro a.warp /m").unwrap().options, "ro");
        for bad in ["photos", "a b c", "a b -o", "a b -x", "a b -N ns"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn it_is_called_by_its_names_only() {
        for (name, is) in
            [("/sbin/mount.warp", true), ("mount.fuse.warp", true), ("warp", false), ("", false)]
        {
            assert_eq!(is_called(&[name.into()]), is, "{name}");
        }
        assert!(!is_called(&[]));
    }
}
