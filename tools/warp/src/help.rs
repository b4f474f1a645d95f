//! What `warp` alone and `warp --help` show: one screen, by what one wants.
//!
//! Promises: every verb that is not hidden is there once, in a group. Tested
//! below and by `tests/tests/cli.rs`.

use crate::report::Exit;
use clap::Command;
use std::fmt::Write;

/// Verbs by what they are for. One that does not exist is passed over.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Portals", &["portal", "mount", "umount", "sync", "peers", "warmup", "status"]),
    ("Time and space", &["snapshot", "restore", "check", "repair"]),
    ("Archives", &["archive"]),
    ("This device", &["key", "up", "down", "info", "doctor"]),
    ("The command line", &["config", "completions", "man"]),
];

const EXAMPLES: &str = "\
Examples:
  warp portal create photos && warp mount photos ~/photos
  warp archive create home.warp ~/documents
  warp mount home.warp /mnt";

/// The command with this help in place of clap's list.
pub(crate) fn grouped(command: Command) -> Command {
    let template = format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{EXAMPLES}\n\n{}\nOptions of every command, and \
         of this one:\n{{options}}\n\n{}",
        groups(&command),
        exit_codes()
    );
    // One line each: that a variable goes with every flag is in the manual.
    command.mut_args(|arg| arg.hide_env(true)).help_template(template)
}

fn groups(command: &Command) -> String {
    let mut text = String::new();
    for (heading, verbs) in GROUPS {
        let known = verbs.iter().filter_map(|verb| command.find_subcommand(verb));
        let lines: Vec<String> = known
            .map(|verb| {
                let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
                format!("  {:<12} {about}\n", verb.get_name())
            })
            .collect();
        if !lines.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(text, "{heading}:\n{}", lines.concat());
        }
    }
    text
}

/// The table of exit codes in a paragraph.
fn exit_codes() -> String {
    let codes = Exit::ALL.map(|exit| format!("{} {}", exit as u8, exit.meaning()));
    let mut text = String::from("Exit codes:");
    let mut column = text.len();
    for (index, code) in codes.iter().enumerate() {
        let comma = if index + 1 < codes.len() { "," } else { "" };
        if column + code.len() + 2 > 80 {
            text.push_str("\n ");
            column = 1;
        }
        let _ = write!(text, " {code}{comma}");
        column += code.len() + 1 + comma.len();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::CommandFactory;

    #[test]
    fn every_verb_is_in_one_group() {
        let all: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
        for verb in Args::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let found = all.iter().filter(|name| **name == verb.get_name()).count();
            assert_eq!(found, 1, "{}", verb.get_name());
        }
    }

    #[test]
    fn exit_codes_fit_the_screen() {
        let text = exit_codes();
        assert!(text.starts_with("Exit codes: 0 ok, 1 failed,"), "{text}");
        assert!(text.ends_with("143 terminated"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
