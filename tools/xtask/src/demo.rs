//! `cargo xtask demo [DIR]`: from a fresh clone to a mounted archive of real
//! files.

use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs what a mount needs, builds, packs a real tree, verifies it, and
/// leaves it mounted below `dir`.
pub(crate) fn run(workspace: &Workspace, dir: Option<&str>) -> Result<()> {
    let dir = dir.map_or_else(|| std::env::temp_dir().join("warp-demo"), PathBuf::from);
    install_fuse()?;
    step("building");
    run_checked(Command::new(crate::workspace::cargo()).args([
        "build",
        "--release",
        "--package",
        "warp",
    ]))?;
    let warp = workspace.target_directory.join("release/warp");
    let (archive, mountpoint) = (dir.join("demo.warp"), dir.join("mnt"));
    // A demo that was left mounted is unmounted first.
    let _ = Command::new(&warp).arg("umount").arg(&mountpoint).output();
    std::fs::create_dir_all(&mountpoint).with_context(|| dir.display().to_string())?;
    let tree = real_tree()?;
    step(&format!("packing {}", tree.display()));
    run_checked(
        Command::new(&warp).args(["archive", "create", "--force"]).arg(&archive).arg(&tree),
    )?;
    step("verifying");
    run_checked(Command::new(&warp).args(["archive", "verify"]).arg(&archive))?;
    step("mounting");
    run_checked(Command::new(&warp).arg("mount").arg(&archive).arg(&mountpoint))?;
    let (warp, at) = (warp.display(), mountpoint.display());
    println!("\nDone. Try:\n  ls {at}\n  diff -r {} {at}/{}", tree.display(), name_of(&tree));
    println!("  {warp} archive ls -l {} | head", archive.display());
    println!("  {warp} umount {at}");
    Ok(())
}

fn name_of(tree: &Path) -> String {
    tree.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn step(what: &str) {
    println!("==> {what}");
}

fn run_checked(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// The sources of this project's dependencies: thousands of real files that
/// every build machine has.
fn real_tree() -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let tree = home.context("neither CARGO_HOME nor HOME is set")?.join("registry/src");
    if !tree.is_dir() {
        bail!("{}: not there although cargo has just built with it", tree.display());
    }
    Ok(tree)
}

/// fusermount3 for ordinary users, the device for everyone.
fn install_fuse() -> Result<()> {
    if !Path::new("/dev/fuse").exists() {
        bail!(
            "/dev/fuse does not exist: `sudo modprobe fuse`, or run the container with --device /dev/fuse"
        );
    }
    let found = |program: &str| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|dir| dir.join(program).is_file())
    };
    if found("fusermount3") && (found("cc") || found("gcc")) {
        return Ok(());
    }
    step("installing fuse3 and a C compiler (for zstd)");
    let install =
        "apt-get update -q && apt-get install -y -q --no-install-recommends fuse3 build-essential";
    let mut command = if found("sudo") { Command::new("sudo") } else { Command::new("env") };
    run_checked(command.args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", install]))
}
