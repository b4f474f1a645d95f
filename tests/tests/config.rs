//! `warp config`: which of flag, environment, files and default holds.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use warp_tests::apart::apart;
use warp_tests::device::{Device, fails};
use warp_tests::nasty::{mkdir, mode, write};

#[test]
fn flag_before_environment_before_own_file_before_the_machines_before_default() {
    let device = Device::without_key();
    let script = "mkdir etc/warp h; get() { \"$@\" config get --origin level; }
        ls() { \"$@\" archive create --dry-run x.warp /dev/null; }
        get $warp
        echo 'level = 5' > /etc/warp/config.toml; get $warp
        echo 'level = 7' > h/config.toml; get $warp; get env WARP_LEVEL=9 $warp
        unset WARP_HOME; mkdir -p home/.config/warp xdg/warp
        echo 'level = 11' > home/.config/warp/config.toml; get env HOME=$PWD/home $warp
        echo 'level = 13' > xdg/warp/config.toml
        get env HOME=$PWD/home XDG_CONFIG_HOME=$PWD/xdg $warp
        get env -u HOME $warp";
    let said = apart(&device, script).exits(0).text();
    let dir = device.path("").display().to_string();
    let dir = dir.trim_end_matches('/');
    let expected = format!(
        "3 default\n5 /etc/warp/config.toml\n7 {dir}/h/config.toml\n9 WARP_LEVEL\n\
         11 {dir}/home/.config/warp/config.toml\n13 {dir}/xdg/warp/config.toml\n\
         5 /etc/warp/config.toml\n"
    );
    assert_eq!(said, expected);
    let shown = device.types("--color never config ls --json").exits(0);
    let color = "[(s['value'], s['origin']) for s in d['settings'] if s['key'] == 'color']";
    assert_eq!(device.json(&shown, color), "[('(as typed)', 'flag')]");
}

#[test]
fn settings_change_what_commands_do_and_flags_go_before_them() {
    let device = Device::without_key();
    write(&mkdir(&device.path("t")).join("f.o"), b"x");
    device.types("config set long true").exits(0);
    device.types("config set exclude *.o,*.tmp").exits(0);
    device.types("archive create t.warp t").exits(0);
    let listed = device.types("archive ls t.warp").exits(0).text();
    assert!(listed.starts_with("drwx") && !listed.contains("f.o"), "{listed}");
    device.types("archive create -f -x none t.warp t").exits(0);
    let listed = device.warp(["archive", "ls", "t.warp"]).env("WARP_LONG", "0").ok().text();
    assert_eq!(listed, "t\nt/f.o\n");
}

#[test]
fn default_mount_options_hold_until_others_are_given() {
    let device = Device::with_portal();
    device.types("config set mount_options ro,noexec").exits(0);
    device.types("mount p m").exits(0);
    let line = device.table_line("m").expect("mounted");
    assert!(line.contains(" ro,") && line.contains("noexec"), "{line}");
    device.umount();
    device.types("mount -o rw p m").exits(0);
    let line = device.table_line("m").expect("mounted");
    assert!(line.contains(" rw,") && !line.contains("noexec"), "{line}");
    device.umount();
    // The process behind an archive's mount is told all, and adds nothing.
    mkdir(&device.path("t"));
    device.types("archive create t.warp t").exits(0);
    device.types("mount -o nosuid t.warp m").exits(0);
    assert!(!device.table_line("m").expect("mounted").contains("noexec"));
    device.types("umount m").exits(0);
}

#[test]
fn a_file_that_cannot_be_meant_so_is_refused_by_all_but_what_mends_it() {
    let device = Device::with_portal();
    let file = device.home().join("config.toml");
    device.mount();
    for (text, cause, hint) in [
        ("# mine\ncolour = \"never\"\n", "config.toml:2: colour: no such key", "is it `color`"),
        ("level = 99\n", "config.toml:1: level: \"99\" is not", "zstd"),
        ("level = \n", "config.toml:1: ", "is written like"),
    ] {
        write(&file, text.as_bytes());
        for line in ["status", "portal ls", "config ls", "config get level", "config set level 4"] {
            fails(device.types(line), 2, cause, hint);
        }
        for line in ["--help", "config path", "completions bash", "man"] {
            device.types(line).exits(0);
        }
        let doctor = device.types("doctor").exits(1).text();
        assert!(doctor.contains(cause) && doctor.contains("warp config edit"), "{doctor}");
        assert_eq!(fs::read_to_string(&file).expect("kept"), text);
    }
    device.umount();
    let editor = device.path("an editor");
    write(&editor, b"#!/bin/sh\ntest \"$1\" = --wait && echo 'level = 6' > \"$2\"\n");
    mode(&editor, 0o755);
    let edit = |script: &str| device.warp(["config", "edit"]).env("VISUAL", script).run();
    edit(&format!("'{}' --wait", editor.display())).exits(0);
    assert_eq!(device.types("config get level").exits(0).text(), "6\n");
    fails(edit("false"), 1, "false: exit status: 1", "export EDITOR=");
    fails(edit("echo oops >"), 2, "config.toml:1: ", "is written like");
}

#[test]
fn set_and_unset_keep_comments_links_and_modes() {
    let device = Device::without_key();
    let file = device.home().join("config.toml");
    device.types("config set color never").exits(0);
    assert_eq!(fs::read_to_string(&file).expect("made"), "color = \"never\"\n");
    fs::remove_file(&file).expect("removed");
    let real = device.path("dotfiles.toml");
    write(&real, b"# mine\nlevel = 3 # fast\n");
    mode(&real, 0o640);
    symlink(&real, &file).expect("linked");
    device.types("config set level 19").exits(0);
    device.types("config set allow-other yes").exits(0);
    device.types("config unset quiet").exits(0);
    let text = "# mine\nlevel = 19 # fast\nallow_other = true\n";
    assert_eq!(fs::read_to_string(&real).expect("there"), text);
    let meta = fs::symlink_metadata(&real).expect("there");
    assert_eq!(meta.permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&file).expect("there").is_symlink());
    device.types("config unset allow_other").exits(0);
    assert_eq!(device.types("config get allow_other").exits(0).text(), "false\n");
    for (line, cause, hint) in [
        ("config set lvel 3", "lvel: no such key", "is it `level`"),
        ("config set level 20", "\"20\" is not", "zstd"),
        ("config set quiet maybe", "neither true nor false", "config set quiet true"),
        ("config set force true", "force: no such key", "warp config ls"),
        ("config get x", "x: no such key", "warp config ls"),
    ] {
        fails(device.types(line), 2, cause, hint);
    }
}
