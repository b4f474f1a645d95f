//! `cargo xtask demo [DIR]`: from a fresh clone to a mounted portal with real
//! files in it.

use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs what a mount needs, builds, makes a portal below `dir`, mounts it,
/// copies a real tree into it, and leaves it mounted.
pub(crate) fn run(workspace: &Workspace, dir: Option<&str>) -> Result<()> {
    let dir = dir.map_or_else(|| std::env::temp_dir().join("warp-demo"), PathBuf::from);
    let dir = std::path::absolute(&dir)?;
    install_fuse()?;
    step("building");
    run_checked(Command::new(crate::workspace::cargo()).args([
        "build",
        "--release",
        "--package",
        "warp",
    ]))?;
    let program = workspace.target_directory.join("release/warp");
    let (home, mountpoint) = (dir.join("home"), dir.join("mnt"));
    // The demo has keys and portals of its own.
    let warp = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).env("WARP_HOME", &home);
        command
    };
    // A demo that was left mounted goes on.
    let _ = warp(&["umount"]).arg(&mountpoint).output();
    std::fs::create_dir_all(&mountpoint).with_context(|| dir.display().to_string())?;
    if !home.join("keyring").exists() {
        step("making a key and a portal");
        run_checked(warp(&["key", "init", "--phrase-file"]).arg(dir.join("phrase")))?;
        run_checked(&mut warp(&["portal", "create", "demo"]))?;
    }
    step("mounting it");
    run_checked(warp(&["mount", "demo"]).arg(&mountpoint))?;
    let tree = real_tree()?;
    step(&format!("copying {} into it", tree.display()));
    run_checked(Command::new("cp").args(["-a", "--"]).arg(&tree).arg(&mountpoint))?;
    step("publishing");
    run_checked(warp(&["sync"]).arg(&mountpoint))?;
    run_checked(&mut warp(&["portal", "status", "demo"]))?;
    let (warp, at) = (program.display(), mountpoint.display());
    println!("\nDone. {at} is a directory like any other. Try:");
    println!("  export WARP_HOME={}", home.display());
    println!("  diff -r {} {at}/{} && echo the same", tree.display(), name_of(&tree));
    println!("  cp -a {at}/{0} {at}/again && {warp} portal status demo", name_of(&tree));
    println!("  {warp} umount {at} && {warp} mount demo {at} && ls {at}");
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
