//! What `-o` says: a list as mount(8) and /etc/fstab have it.
//!
//! Promises: an option does what it says, or is refused with the nearest
//! name; only those that say something to mount(8) alone are passed over.
//! Every flag of `warp mount` can be given as an option too, so that a line of
//! fstab can say all that a command line can. Tested below and by
//! `tests/tests/fstab.rs`.

use crate::args::Mount as MountArgs;
use crate::report::{Exit, Failure, Result};
use crate::units;
use std::path::PathBuf;
use warp_flow::portals::nearest;
use warp_fs::{Caching, IdMap};

/// Options that take no value.
const PLAIN: [&str; 11] = [
    "allow_other",
    "default_permissions",
    "noatime",
    "nodev",
    "noexec",
    "nonempty",
    "nosuid",
    "offline",
    "read_only",
    "ro",
    "rw",
];
/// Options with a value.
const VALUED: [&str; 6] = ["cache", "cache_size", "gidmap", "home", "passphrase_file", "uidmap"];
/// Options that mount(8) and fstab mean for themselves, or that hold for
/// every mount: with `=VALUE` behind them, or without.
const IGNORED: [&str; 16] = [
    "_netdev", "async", "auto", "comment", "defaults", "exec", "group", "noauto", "nofail",
    "nogroup", "noowner", "nouser", "owner", "user", "users", "nousers",
];
/// Options that a mount of ours cannot have, and why.
const NEVER: [(&str, &str); 8] = [
    ("suid", "a mount of warp is always nosuid"),
    ("dev", "a mount of warp is always nodev"),
    ("atime", "a mount of warp is always noatime"),
    ("relatime", "a mount of warp is always noatime"),
    ("strictatime", "a mount of warp is always noatime"),
    ("sync", "programs make their files durable with fsync, and `warp sync DIR` all of them"),
    ("remount", "a mount of warp cannot be changed; unmount it and mount it again"),
    ("bind", "`mount --bind` is the kernel's: call it without `-t warp`"),
];

/// What `cache=` may say.
const CACHES: [(&str, Caching); 2] =
    [("writeback", Caching::WriteBack), ("writethrough", Caching::WriteThrough)];

/// What `-o` and the flags of the same meaning say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) read_only: bool,
    /// `rw` was asked for.
    pub(crate) writable: bool,
    pub(crate) nonempty: bool,
    pub(crate) allow_other: bool,
    pub(crate) no_exec: bool,
    /// Stored owners, and who is shown in their place.
    pub(crate) users: IdMap,
    pub(crate) groups: IdMap,
    /// If one was asked for.
    pub(crate) cache: Option<Caching>,
    /// No peer is asked.
    pub(crate) offline: bool,
    /// Most bytes of chunks that are kept because they came once.
    pub(crate) cache_size: Option<u64>,
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Of `mount.warp`: whose portals they are.
    pub(crate) home: Option<PathBuf>,
    /// What was passed over.
    ignored: Vec<String>,
}

impl Typed {
    /// Flags and options of a command line.
    pub(crate) fn of(args: &MountArgs) -> Result<Self> {
        let mut typed = Self {
            read_only: args.read_only,
            allow_other: args.allow_other,
            offline: args.offline,
            cache_size: args.cache_size,
            passphrase_file: args.passphrase.passphrase_file.clone(),
            ..Self::default()
        };
        for option in &args.options {
            typed.take(option)?;
        }
        if typed.home.is_some() {
            return Err(Failure::new(Exit::Usage, "-o home=: is for mount.warp and fstab")
                .hint("`export WARP_HOME=DIR` says the same here"));
        }
        typed.agree()
    }

    /// The options that mount(8) passes; `sloppy` passes over what is unknown.
    pub(crate) fn of_list(list: &str, sloppy: bool) -> Result<Self> {
        let mut typed = Self::default();
        for option in list.split(',').filter(|option| !option.is_empty()) {
            match typed.take(option) {
                Err(_) if sloppy && !is_known(option) => {}
                taken => taken?,
            }
        }
        // mount(8) says `rw` where nothing was said, and the last one holds.
        typed.writable &= !typed.read_only;
        typed.agree()
    }

    fn agree(self) -> Result<Self> {
        if self.read_only && self.writable {
            return Err(Failure::new(Exit::Usage, "a mount is either read-only or not")
                .hint("leave out `-o rw`, or `--read-only`"));
        }
        if self.read_only && self.cache.is_some() {
            return Err(nothing_written());
        }
        Ok(self)
    }

    fn take(&mut self, option: &str) -> Result<()> {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        match (key, value) {
            // All of these are so in any case.
            ("nosuid" | "nodev" | "noatime" | "default_permissions", None) => {}
            ("ro" | "read_only", None) => self.read_only = true,
            ("rw", None) => self.writable = true,
            ("nonempty", None) => self.nonempty = true,
            ("allow_other", None) => self.allow_other = true,
            ("noexec", None) => self.no_exec = true,
            ("offline", None) => self.offline = true,
            ("cache_size", Some(value)) => {
                let wrong = |why| Failure::new(Exit::Usage, format!("-o {option}: {why}"));
                let size = units::size(value).map_err(wrong)?;
                self.cache_size = Some(size);
            }
            ("uidmap", Some(value)) => map(&mut self.users, option, value)?,
            ("gidmap", Some(value)) => map(&mut self.groups, option, value)?,
            ("cache", Some(value)) => self.cache = Some(caching(option, value)?),
            ("passphrase_file", Some(file)) if !file.is_empty() => {
                self.passphrase_file = Some(file.into());
            }
            ("home", Some(directory)) if !directory.is_empty() => {
                self.home = Some(directory.into());
            }
            _ if is_ignored(key) => self.ignored.push(option.to_owned()),
            _ => return Err(refusal(option, key, value)),
        }
        Ok(())
    }

    /// The list again, for another process or a line of fstab; `rw` and `ro`
    /// are left to whoever calls.
    pub(crate) fn to_list(&self) -> Vec<String> {
        let mut list = Vec::new();
        for (said, word) in [
            (self.nonempty, "nonempty"),
            (self.allow_other, "allow_other"),
            (self.no_exec, "noexec"),
            (self.offline, "offline"),
        ] {
            list.extend(said.then(|| word.to_owned()));
        }
        for (key, map) in [("uidmap", &self.users), ("gidmap", &self.groups)] {
            list.extend(map.ranges().map(|range| format!("{key}={range}")));
        }
        let cache = CACHES.iter().find(|(_, caching)| Some(*caching) == self.cache);
        list.extend(cache.map(|(word, _)| format!("cache={word}")));
        list.extend(self.cache_size.map(|bytes| format!("cache_size={bytes}")));
        let file = self.passphrase_file.as_ref();
        list.extend(file.map(|file| format!("passphrase_file={}", file.display())));
        list
    }

    /// What mount(8) means for itself, for a line of fstab.
    pub(crate) fn ignored(&self) -> &[String] {
        &self.ignored
    }
}

fn caching(option: &str, value: &str) -> Result<Caching> {
    let found = CACHES.iter().find(|(word, _)| *word == value);
    found.map(|(_, caching)| *caching).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("-o {option}: is neither of the two that there are"))
            .hint("cache=writeback (the kernel gathers writes) or cache=writethrough (it does not)")
    })
}

/// `cache=` where it would say nothing.
pub(crate) fn nothing_written() -> Failure {
    Failure::new(Exit::Usage, "-o cache=: nothing is written to a read-only mount")
        .hint("leave out `cache`")
}

/// `FROM:TO[:COUNT]`.
fn map(map: &mut IdMap, option: &str, value: &str) -> Result<()> {
    let failure = |why: &str| {
        Failure::new(Exit::Usage, format!("-o {option}: {why}")).hint(
            "written like uidmap=1000:1001 (stored as 1000, shown as 1001), or 0:100000:65536",
        )
    };
    let numbers: Option<Vec<u32>> = value.split(':').map(|text| text.parse().ok()).collect();
    let (from, to, count) = match numbers.as_deref() {
        Some([from, to]) => (*from, *to, 1),
        Some([from, to, count]) => (*from, *to, *count),
        _ => return Err(failure("is not FROM:TO or FROM:TO:COUNT")),
    };
    map.add(from, to, count).map_err(|e| failure(&e.to_string()))
}

fn is_ignored(key: &str) -> bool {
    // What begins so is a comment for other programs, as mount(8) has it.
    let comment = key.starts_with("x-") || key.starts_with("X-");
    comment || IGNORED.contains(&key)
}

fn is_known(option: &str) -> bool {
    let key = option.split('=').next().unwrap_or(option);
    let never = NEVER.iter().any(|(name, _)| *name == key);
    never || PLAIN.contains(&key) || VALUED.contains(&key)
}

fn refusal(option: &str, key: &str, value: Option<&str>) -> Failure {
    let fail = |cause: String| Failure::new(Exit::Usage, format!("-o {option}: {cause}"));
    if let Some((_, why)) = NEVER.iter().find(|(name, _)| *name == key) {
        return fail((*why).into()).hint(format!("leave out `{key}`"));
    }
    if PLAIN.contains(&key) && value.is_some() {
        return fail("takes no value".into()).hint(format!("-o {key}"));
    }
    if VALUED.contains(&key) {
        return fail("needs a value".into()).hint(format!("-o {key}=…"));
    }
    let known = PLAIN.into_iter().chain(VALUED);
    let meant = nearest(&key.replace('-', "_"), known.map(str::to_owned));
    let all = "known options: ro, rw, nonempty, allow_other, noexec, offline, cache=, cache_size=, uidmap=, gidmap=, passphrase_file=";
    fail("unknown mount option".into()).hint(match meant {
        Some(meant) => format!("is it `{meant}`? {all}"),
        None => all.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::CommandFactory;

    fn of(list: &str) -> Result<Typed> {
        Typed::of_list(list, false)
    }

    #[test]
    fn every_flag_of_mount_is_an_option_too() {
        let command = Args::command();
        let mount = command.find_subcommand("mount").unwrap();
        // How it is called, not how it is mounted.
        let others = ["foreground", "fstab", "options"];
        for arg in mount.get_arguments().filter(|arg| !arg.is_positional()) {
            let id = arg.get_id().as_str();
            if !others.contains(&id) {
                assert!(is_known(id), "{id}");
                let valued = |value: &str| of(&format!("{id}={value}")).is_ok();
                assert!(of(id).is_ok() || valued("x") || valued("1M"), "{id}");
            }
        }
    }

    #[test]
    fn what_mount_passes_is_taken() {
        let typed =
            of("rw,noexec,nosuid,nodev,_netdev,user=me,x-systemd.automount,nofail").unwrap();
        assert!(typed.writable && typed.no_exec && !typed.read_only);
        assert_eq!(typed.ignored(), ["_netdev", "user=me", "x-systemd.automount", "nofail"]);
        assert!(of("defaults,ro").unwrap().read_only);
        let mapped = of("uidmap=1000:1001,uidmap=0:100000:1000,gidmap=5:6,home=/h").unwrap();
        assert_eq!(mapped.home, Some("/h".into()));
        let list = ["uidmap=1000:1001", "uidmap=0:100000:1000", "gidmap=5:6"];
        let again = of(&mapped.to_list().join(",")).unwrap();
        assert_eq!((mapped.to_list(), again.users), (list.map(str::to_owned).into(), mapped.users));
    }

    #[test]
    fn a_cache_that_is_named_is_passed_on() {
        for (word, caching) in CACHES {
            let typed = of(&format!("cache={word}")).unwrap();
            assert_eq!(
                (typed.cache, typed.to_list()),
                (Some(caching), vec![format!("cache={word}")])
            );
        }
        assert_eq!(of("rw").unwrap().cache, None);
    }

    #[test]
    fn what_is_unknown_is_refused_with_the_nearest_name() {
        for (list, cause, hint) in [
            ("allow_othr", "unknown mount option", "is it `allow_other`"),
            ("allow-other", "unknown mount option", "is it `allow_other`"),
            ("bogus", "unknown mount option", "known options"),
            ("suid", "always nosuid", "leave out"),
            ("remount", "cannot be changed", "leave out"),
            ("ro=1", "takes no value", "-o ro"),
            ("home", "needs a value", "-o home="),
            ("uidmap=a:b", "is not FROM:TO", "1000:1001"),
            ("uidmap=1:2:0", "nobody", "1000:1001"),
            ("uidmap=1:2,uidmap=1:3", "twice", "1000:1001"),
            ("gidmap=1:3,gidmap=2:3", "twice", "1000:1001"),
            ("uidmap=4294967295:1", "no user", "1000:1001"),
        ] {
            let failure = of(list).expect_err(list);
            assert!(failure.cause.contains(cause), "{list}: {}", failure.cause);
            let said = failure.hint.unwrap_or_default();
            assert!(said.contains(hint), "{list}: {said}");
        }
        for (list, cause, hint) in [
            ("cache=none", "neither of the two", "cache=writethrough"),
            ("cache", "needs a value", "-o cache="),
            ("ro,cache=writeback", "nothing is written", "leave out"),
        ] {
            let failure = of(list).expect_err(list);
            assert!(failure.cause.contains(cause), "{list}: {}", failure.cause);
            assert!(failure.hint.unwrap_or_default().contains(hint), "{list}");
        }
        // `mount -s` passes over what it does not know, and nothing else.
        assert!(Typed::of_list("bogus,ro", true).unwrap().read_only);
        assert!(Typed::of_list("suid", true).is_err());
    }
}
