//! The command line itself: help, suggestions, completions, manual, colours,
//! and one JSON document from every command that reports.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;
use warp_tests::device::{Device, bash, fails};
use warp_tests::nasty::{mkdir, write};
use warp_tests::{Output, Warp, run};

#[test]
fn help_is_one_screen_and_nothing_typed_shows_it_too() {
    let help = Warp::new(["--help"]).ok();
    assert_eq!(help.stderr, "");
    let text = help.text();
    assert!(text.lines().count() <= 48, "{} lines", text.lines().count());
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let examples = text.lines().filter(|line| line.starts_with("  warp ")).count();
    assert_eq!(examples, 3, "{text}");
    assert!(!text.contains("daemon:") && !text.contains("  init"), "{text}");
    let alone = Warp::new([""; 0]).run().exits(2);
    assert_eq!((alone.text(), alone.stderr), (String::new(), text));
    // The fastest of some: other tests run beside this one.
    let took = (0..10).map(|_| Warp::new(["--help"]).ok().took).min().expect("ten");
    assert!(took < Duration::from_millis(50), "{took:?}");
}

#[test]
fn what_is_mistyped_is_told_with_what_was_meant() {
    let device = Device::without_key();
    for (line, cause, hint) in [
        ("umont m", "unrecognized subcommand 'umont'", "is it `umount`"),
        ("demon", "unrecognized subcommand 'demon'", "warp --help"),
        ("extract a.warp", "unrecognized subcommand 'extract'", "is it `archive extract`"),
        ("portal creat p", "unrecognized subcommand 'creat'", "is it `create`"),
        ("mount --read-olny p m", "unexpected argument '--read-olny'", "is it `--read-only`"),
        ("mount p", "not provided: <DIR>", "usage: warp mount"),
        ("--color blue status", "invalid value 'blue'", "auto, always, never"),
        ("status --watch=soon", "invalid value 'soon'", "duration"),
        ("-q", "requires a subcommand", "warp --help"),
    ] {
        let output = device.types(line);
        if line.starts_with("status") {
            // The value's own words say how it is written.
            assert!(output.stderr.contains(hint), "{}", output.stderr);
            fails(output, 2, cause, "");
        } else {
            fails(output, 2, cause, hint);
        }
    }
    let told = device.types("demon").stderr;
    assert!(!told.contains("daemon"), "{told}");
    assert!(!device.home().exists());
}

#[test]
fn hidden_aliases_do_what_people_try() {
    let device = Device::without_key();
    device.types("init --phrase-file phrase").exits(0);
    device.create("p");
    mkdir(&device.m());
    assert!(device.types("ls").exits(0).text().starts_with("p "));
    device.types("mount p m").exits(0);
    device.types("unmount m").exits(0);
}

/// The pages that `warp man --dir` writes: names of commands, with a `-` for
/// each blank.
fn pages(device: &Device) -> BTreeSet<String> {
    device.types("man --dir man").exits(0);
    let list = fs::read_dir(device.path("man")).expect("pages").map(|entry| {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        name.strip_suffix(".1").expect("section 1").to_owned()
    });
    list.collect()
}

#[test]
fn the_manual_has_a_page_for_each_command_and_the_table_of_exit_codes() {
    let device = Device::without_key();
    let pages = pages(&device);
    for page in ["warp", "warp-mount", "warp-portal-create", "warp-config-set", "warp-archive-ls"] {
        assert!(pages.contains(page), "{pages:?}");
    }
    for hidden in ["warp-daemon", "warp-init", "warp-ls", "warp-help"] {
        assert!(!pages.contains(hidden), "{pages:?}");
    }
    let first = device.types("man").exits(0).text();
    assert!(first.contains(".TH warp 1"), "{first}");
    for code in ["0 ok", "2 usage", "3 some items", "5 temporary", "11 busy", "130 interrupted"] {
        assert!(first.contains(&format!(".B {code}")), "{code}: {first}");
    }
    let mount = device.types("man mount").exits(0).text();
    assert!(mount.contains("uidmap") && mount.contains("WARP_MOUNT_OPTIONS"), "{mount}");
    assert_eq!(fs::read_to_string(device.path("man/warp-mount.1")).expect("a page"), mount);
    fails(device.types("man bogus"), 4, "no page", "warp --help");
}

#[test]
fn completions_complete() {
    let device = Device::without_key();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = device.types(&format!("completions {shell}")).exits(0).text();
        assert!(script.contains("umount") && script.contains("read-only"), "{shell}");
        assert!(!script.contains("daemon)"), "{shell}");
    }
    let script = "source <(\"$WARP_BIN\" completions bash)
        try() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _warp warp \"${@: -1}\" \"${@: -2:1}\" || true; echo \"${COMPREPLY[*]}\"; }
        try warp umo; try warp portal st; try warp mount --read; try warp daem; try warp ini";
    let said = bash(&device.path(""), script).exits(0).text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, ["umount", "status", "--read-only", "", ""]);
    fails(device.types("completions tcsh"), 2, "invalid value 'tcsh'", "bash");
}

/// One document on standard output, and nothing else there.
#[track_caller]
fn one_document(device: &Device, output: &Output) {
    assert_eq!(device.json(output, "type(d).__name__"), "dict", "{}", output.what);
}

#[test]
fn every_command_prints_one_json_document_with_mounts_and_without() {
    let device = Device::without_key();
    write(&mkdir(&device.path("t")).join("f"), b"x");
    mkdir(&device.m());
    // In this order; what comes before the line's end is the code.
    let lines = [
        "key init --phrase-file phrase",
        "key show",
        "key export",
        "key recover --dry-run --phrase-file phrase",
        "portal create p",
        "portal ls",
        "portal status p",
        "peers",
        "peers ls",
        "status",
        "up",
        "mount p m",
        "sync m",
        "status m",
        "info m",
        "umount m",
        "snapshot create p first --tag x",
        "snapshot ls p",
        "restore -n p -C back",
        "restore p -C back",
        "snapshot rm p first",
        "check p",
        "repair -n p",
        "repair p",
        "mount --fstab p m",
        "down",
        "portal leave --yes p",
        "archive create a.warp t",
        "archive create -n b.warp t",
        "archive ls a.warp",
        "archive verify a.warp",
        "archive verify --proof t/f a.warp",
        "archive verify --keyless a.warp",
        "archive diff a.warp a.warp",
        "archive extract -C out a.warp",
        "archive extract --salvage -C out2 a.warp",
        "archive mount a.warp m",
        "umount m",
        "info",
        "info a.warp",
        "doctor",
        "config ls",
        "config get color",
        "config set level 5",
        "config unset level",
        "config path",
        "man --dir man",
    ];
    let mut tried = BTreeSet::new();
    for line in lines {
        let output = device.types(&format!("{line} --json")).exits(0);
        one_document(&device, &output);
        assert_eq!(output.stderr, "", "{line}");
        let words: Vec<&str> = line.split(' ').collect();
        tried.extend((1..=words.len().min(2)).map(|n| format!("warp-{}", words[..n].join("-"))));
    }
    // These take another device: `peers.rs` has them.
    let others = ["warp-portal-invite", "warp-portal-join", "warp-portal-expire", "warp-warmup"];
    tried.extend(others.map(str::to_owned));
    // What is given to a shell or an editor is no report.
    tried.extend(["warp", "warp-completions", "warp-man", "warp-config-edit"].map(str::to_owned));
    let all = pages(&device);
    let missed: Vec<_> = all.difference(&tried).collect();
    assert_eq!(missed, [""; 0], "commands without a line in this test");
}

#[test]
fn an_error_is_one_json_document_on_standard_error() {
    let device = Device::without_key();
    for (line, code) in [
        ("mount nope m", 4),
        ("portal status p", 4),
        ("archive ls nope.warp", 4),
        ("umount nope", 4),
        ("config get nope", 2),
        ("umont m", 2),
        ("mount m", 2),
    ] {
        let output = device.types(&format!("{line} --json")).exits(code);
        assert_eq!(output.text(), "", "{line}");
        let told = Output { stdout: output.stderr.clone().into(), ..output };
        let fields =
            device.json(&told, "sorted(d), d['exit'], len(d['error']) > 0, len(d['hint']) > 0");
        assert_eq!(fields, format!("['error', 'exit', 'hint'] {code} True True"), "{line}");
        assert_eq!(told.stderr.lines().count(), 1, "{line}");
    }
    write(&device.path("bad.warp"), &[7; 4096]);
    mkdir(&device.m());
    let output = device.warp(["mount", "bad.warp", "m"]).env("WARP_JSON", "1").run().exits(6);
    assert!(output.stderr.starts_with("{\"error\":"), "{}", output.stderr);
}

/// The same on a terminal: `script` makes one.
fn on_terminal(device: &Device, line: &str) -> String {
    let mut command = Command::new("script");
    command.args(["-qec", line, "/dev/null"]).current_dir(device.path(""));
    command.env("WARP_HOME", device.home()).env("TERM", "xterm");
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "WARP_COLOR"] {
        command.env_remove(name);
    }
    run::run(command, Duration::from_secs(60)).text()
}

#[test]
fn colour_is_for_terminals_unless_it_is_asked_for() {
    const ESCAPE: char = '\x1b';
    let device = Device::new();
    device.create("p");
    write(&mkdir(&device.path("t")).join("f"), &[1; 100_000]);
    let has = |output: Output| (output.text() + &output.stderr).contains(ESCAPE);
    for line in ["--help", "doctor", "portal ls", "status", "umont", "mount nope m", "mount -h"] {
        assert!(!has(device.types(line)), "{line}");
    }
    assert!(!has(device.types("archive create -f t.warp t")), "a bar in a pipe");
    for line in ["doctor", "umount nope", "--help"] {
        let forced =
            |name: &str, value: &str| has(device.warp(line.split(' ')).env(name, value).run());
        assert!(forced("CLICOLOR_FORCE", "1") || line == "--help", "{line}");
        assert!(!forced("CLICOLOR_FORCE", "0"), "{line}");
        assert!(forced("WARP_COLOR", "always") || line == "--help", "{line}");
        assert!(has(device.types(&format!("--color always {line}"))) || line == "--help", "{line}");
        let bin = Warp::binary().display().to_string();
        assert!(on_terminal(&device, &format!("{bin} {line}")).contains(ESCAPE), "{line}");
        for off in ["env NO_COLOR=1", "env WARP_COLOR=never", "env NO_COLOR=1 CLICOLOR_FORCE=1"] {
            let said = on_terminal(&device, &format!("{off} {bin} {line}"));
            assert!(!said.contains(ESCAPE), "{off} {line}: {said:?}");
        }
        let said = on_terminal(&device, &format!("{bin} --color never {line}"));
        assert!(!said.contains(ESCAPE), "{line}: {said:?}");
    }
}

#[test]
fn quiet_says_less_and_verbose_more() {
    let device = Device::new();
    device.until_gone();
    let said = |line: &str| device.types(line).exits(0).stderr;
    assert!(said("-v portal create a").contains("started a daemon"));
    device.until_gone();
    assert!(said("-vv portal create b").contains("/v1/portals"));
    assert_eq!(said("-q portal create c"), "");
    assert!(said("portal create d").starts_with("portal d is ready"));
}

#[test]
fn status_watches_mounts_as_often_as_said() {
    let device = Device::without_key();
    let script = "timeout 2 \"$WARP_BIN\" status --json --watch=300ms | wc -l";
    let lines: u32 =
        bash(&device.path(""), script).exits(0).text().trim().parse().expect("a number");
    assert!((3..=8).contains(&lines), "{lines}");
}
