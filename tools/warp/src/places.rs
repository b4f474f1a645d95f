//! Places as they are typed, and which mount a path is in.

use crate::report::{Exit, Failure};
use crate::show;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use warp_fs::Mounted;
use warp_fs::kernel::{absolute, is_dead, mounts};

/// What `warp mount` mounts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Archive(PathBuf),
    Portal {
        name: String,
        /// The directory in the portal that is shown, from its root.
        path: PathBuf,
    },
}

impl Source {
    /// An archive is a path with a `/`, a name that ends in `.warp`, or a
    /// file that is there; what else is typed is a portal, and after `:` a
    /// path in it.
    pub(crate) fn parse(typed: &Path) -> Self {
        Self::with_files(typed, |path| path.is_file())
    }

    fn with_files(typed: &Path, is_file: impl Fn(&Path) -> bool) -> Self {
        let Some(text) = typed.to_str() else { return Self::Archive(typed.into()) };
        let (name, below) = text.split_once(':').unwrap_or((text, ""));
        let in_portal = below.starts_with('/');
        let archive =
            name.contains('/') || name.is_empty() || text.ends_with(".warp") && !in_portal;
        if archive || is_file(typed) {
            return Self::Archive(typed.into());
        }
        Self::Portal { name: name.to_owned(), path: Path::new("/").join(below) }
    }
}

/// The mount of ours that a path lies in: the deepest, or none if another
/// filesystem's is deeper.
pub(crate) fn mount_of(path: &Path) -> io::Result<Option<Mounted>> {
    let path = std::fs::canonicalize(path)?;
    Ok(innermost(mounts(), &path))
}

/// The mount that a path is in, or was, if nobody serves it any more. Such a
/// path cannot be looked at.
pub(crate) fn dead_mount_of(path: &Path) -> Option<Mounted> {
    innermost(mounts(), &absolute(path)).filter(|mount| is_dead(&mount.directory))
}

fn innermost(table: Vec<Mounted>, path: &Path) -> Option<Mounted> {
    // Of two on the same directory, the later one is seen.
    let depth = |mount: &Mounted| mount.directory.as_os_str().as_bytes().len();
    let over = table.iter().filter(|mount| path.starts_with(&mount.directory));
    let found = over.max_by_key(|mount| depth(mount)).filter(|mount| mount.is_ours())?.clone();
    // The same filesystem may be bound to other places; its own is the first.
    table.into_iter().find(|mount| mount.device == found.device)
}

/// True for a mount of an archive: its source is the archive's path, that of
/// a portal begins with the portal's name.
pub(crate) fn is_archive_mount(mount: &Mounted) -> bool {
    mount.source.starts_with('/')
}

/// Why a directory could not be unmounted.
pub(crate) fn unmount_failure(directory: &Path, error: &io::Error) -> Failure {
    let path = directory.display();
    let typed = show::word(directory);
    match error.kind() {
        io::ErrorKind::ResourceBusy => {
            Failure::new(Exit::Busy, format!("{path}: is in use")).hint(format!(
                "leave it (`fuser -vm {typed}` says who is there), or `warp umount --lazy {typed}`"
            ))
        }
        _ => Failure::new(Exit::Failed, format!("{path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(typed: &str) -> Source {
        Source::with_files(Path::new(typed), |path| path == Path::new("a-file"))
    }

    #[test]
    fn what_is_typed_is_an_archive_or_a_portal() {
        let archives =
            ["x.warp", "./x", "/a/b", "dir/x:y", "a-file", "a:b.warp", "./photos:/x", ":x", ""];
        for typed in archives {
            assert_eq!(parse(typed), Source::Archive(typed.into()), "{typed}");
        }
        let portals = [
            ("photos", "photos", "/"),
            ("photos:", "photos", "/"),
            ("photos:/", "photos", "/"),
            ("photos:/2019/a:b", "photos", "/2019/a:b"),
            ("photos:2019", "photos", "/2019"),
            ("photos:/old.warp", "photos", "/old.warp"),
        ];
        for (typed, name, path) in portals {
            let portal = Source::Portal { name: name.into(), path: path.into() };
            assert_eq!(parse(typed), portal, "{typed}");
        }
    }

    #[test]
    fn the_deepest_mount_over_a_path_counts() {
        let mount = |directory: &str, device: &str, fs_type: &str| Mounted {
            directory: directory.into(),
            device: device.into(),
            fs_type: fs_type.into(),
            source: "x".into(),
        };
        let table = || {
            vec![
                mount("/", "8:1", "ext4"),
                mount("/m", "0:50", "fuse.warp"),
                mount("/m/in", "0:51", "tmpfs"),
                mount("/bound", "0:50", "fuse.warp"),
            ]
        };
        let at = |path: &str| innermost(table(), Path::new(path)).map(|m| m.directory);
        assert_eq!(at("/m/a/b"), Some("/m".into()));
        assert_eq!(at("/m"), Some("/m".into()));
        assert_eq!(at("/bound/a"), Some("/m".into()));
        assert_eq!(at("/m/in/a"), None);
        assert_eq!(at("/mm"), None);
        assert_eq!(at("/"), None);
    }
}
