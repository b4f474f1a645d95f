//! Suites that others wrote to find out what is wrong with a filesystem, and
//! how they are run. `.ci/run` installs them; without one, the test that needs
//! it fails and says so.

use crate::device::Device;
use std::path::PathBuf;
use std::process::Command;

/// A program that `.ci/run` installs, ready for its arguments.
///
/// # Panics
/// If it is not there: a suite that does not run has shown nothing.
#[track_caller]
pub fn suite(program: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where cargo installs is in the path of a login, and not always of a test.
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    let mut places = std::env::split_paths(&path).chain(cargo.map(|dir| dir.join("bin")));
    let found = places.find_map(|dir| {
        let file = dir.join(program);
        file.is_file().then_some(file)
    });
    Command::new(found.unwrap_or_else(|| {
        panic!("{program} is not installed, and this test is nothing without it: run .ci/run")
    }))
}

/// A command as the shell of a mount namespace of its own would run it, in
/// which `/etc/passwd` and `/etc/group` know root and these users only, each
/// with a group of the same name and number. The machine's own stay as they are.
pub fn with_users(device: &Device, users: &[(&str, u32)], command: &Command) -> Command {
    let mut passwd = String::from("root:x:0:0:root:/root:/bin/sh\n");
    let mut group = String::from("root:x:0:\n");
    for (name, id) in users {
        passwd += &format!("{name}:x:{id}:{id}::/nonexistent:/usr/sbin/nologin\n");
        group += &format!("{name}:x:{id}:\n");
    }
    let (passwd_file, group_file) = (device.path("passwd"), device.path("group"));
    crate::nasty::write(&passwd_file, passwd.as_bytes());
    crate::nasty::write(&group_file, group.as_bytes());
    let script = "mount --bind \"$1\" /etc/passwd && mount --bind \"$2\" /etc/group || exit 125
        shift 2; exec \"$@\"";
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    apart.args([passwd_file, group_file]).arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        apart.current_dir(dir);
    }
    apart
}

/// The lines of a text that hold a word, for messages.
pub fn lines_with(text: &str, word: &str) -> Vec<String> {
    text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
}
