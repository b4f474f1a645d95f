//! Scripts in a mount namespace of their own: there `/etc`, `/sbin` and
//! `/dev/fuse` can be what a test needs, and the machine's stay as they are.

use crate::device::Device;
use crate::nasty::mode;
use crate::run::{Output, Warp, run};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Runs a bash script beside a device's home, as root. In it `/etc` knows the
/// users and nothing else, `/sbin` holds nothing but the mount helpers, everyone may open `/dev/fuse`,
/// `$warp` is a binary that everyone may run, and `nobody CMD` runs a command
/// as user 65534.
///
/// # Panics
/// If the binary cannot be copied.
#[track_caller]
pub fn apart(device: &Device, script: &str) -> Output {
    let warp = device.path("warp");
    if !warp.exists() {
        fs::copy(Warp::binary(), &warp).expect("copied");
        mode(&warp, 0o755);
    }
    mode(&device.path(""), 0o755);
    // A daemon that has not ended yet would be in the way of other users.
    device.until_gone();
    let script = format!(
        "set -eu; cd \"$1\"; warp=$PWD/warp
        mkdir -p sbin dev; ln -sf $warp sbin/mount.warp; ln -sf $warp sbin/mount.fuse.warp
        mkdir -p etc; cp /etc/passwd /etc/group etc; ln -sfn /proc/self/mounts etc/mtab
        mount --bind etc /etc; mount --bind sbin \"$(realpath /sbin)\"
        mount -t tmpfs -o mode=0755,dev tmpfs dev
        mknod -m 0666 dev/fuse c 10 229; mount --bind dev/fuse /dev/fuse
        nobody() {{ setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"; }}
        {script}"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", &script, "bash"]);
    command.arg(device.path("")).env("WARP_HOME", device.home());
    command.env("WARP_LISTEN", "127.0.0.1:0").env("WARP_MDNS", "off");
    run(command, Duration::from_secs(60))
}
