//! From the words that were typed to [`Args`]: settings become defaults, and
//! what cannot be understood is said in the house's two lines.
//!
//! Promises: flag before environment before settings; what is suggested is
//! listed somewhere. Tested below and by `tests/tests/cli.rs`.

use crate::args::Args;
use crate::config::Config;
use crate::help::grouped;
use crate::report::{Exit, Failure, Ui};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ColorChoice, Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use warp_flow::portals::nearest;

/// What was typed, and which settings were flags in it; or how the program
/// ends, when help was asked for or nothing could be understood.
pub(crate) fn parse(words: &[OsString], config: &mut Config) -> Result<Args, Exit> {
    let ui = Ui::before_parsing(words, config.color());
    let choice = if ui.color { ColorChoice::Auto } else { ColorChoice::Never };
    let command = grouped(config.as_defaults(Args::command())).color(choice);
    let parsed = command.clone().try_get_matches_from(words).and_then(|matches| {
        config.note_flags(&matches);
        Args::from_arg_matches(&matches)
    });
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nobody may be reading; that is no reason to fail.
            let _ = error.print();
            if error.exit_code() == 0 { Exit::Ok } else { Exit::Usage }
        }
        _ => ui.fail(&failure(&error, &command)),
    })
}

/// The command without its hidden verbs, for completions and manual: these
/// list what they are given.
pub(crate) fn visible() -> Command {
    let all = Args::command();
    let shown: Vec<Command> =
        all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let mut command = Command::new("warp").version(env!("CARGO_PKG_VERSION"));
    if let Some(about) = all.get_about() {
        command = command.about(about.clone());
    }
    let arguments: Vec<_> = all.get_arguments().cloned().collect();
    command
        .args(arguments)
        .subcommands(shown)
        .disable_help_subcommand(true)
        .subcommand_required(true)
}

/// clap's several paragraphs as a cause and a hint.
fn failure(error: &clap::Error, command: &Command) -> Failure {
    let text = error.render().to_string();
    let said = text.strip_prefix("error: ").unwrap_or(&text);
    let cause = said.split("\n\n").next().unwrap_or(said);
    // What follows lists all there is, hidden verbs too.
    let cause = cause.split("\n  [").next().unwrap_or(cause);
    let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
    let failure = Failure::new(Exit::Usage, cause);
    match suggestion(error, command) {
        Some(hint) => failure.hint(hint),
        None => failure.hint(usage(error)),
    }
}

/// What was probably meant.
fn suggestion(error: &clap::Error, command: &Command) -> Option<String> {
    if let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) {
        // clap's best is the last, and it finds likeness where there is none;
        // it names aliases, too.
        let mut meant = strings(error, ContextKind::SuggestedSubcommand);
        let verbs = looked_in(error, command).get_subcommands().filter(|verb| !verb.is_hide_set());
        let shown: Vec<String> = verbs.map(|verb| verb.get_name().to_owned()).collect();
        let is_near = |name: &String| nearest(typed, [name.clone()]).is_some();
        meant.retain(|name| shown.contains(name) && is_near(name));
        meant.reverse();
        if meant.is_empty() {
            meant.extend(shown.into_iter().filter(is_near));
        }
        // The right verb, in the wrong place.
        let group = |group: &Command| {
            let verb = group.find_subcommand(typed)?;
            (!verb.is_hide_set()).then(|| format!("{} {typed}", group.get_name()))
        };
        meant.splice(..0, command.get_subcommands().filter_map(group));
        let all = "`warp --help` lists what there is";
        return Some(if meant.is_empty() { all.into() } else { is_it(&meant, all) });
    }
    let valid = strings(error, ContextKind::ValidValue).join(", ");
    let meant = strings(error, ContextKind::SuggestedValue);
    if !meant.is_empty() {
        return Some(is_it(&meant, &format!("one of {valid}")));
    }
    let meant = strings(error, ContextKind::SuggestedArg);
    if !meant.is_empty() {
        return Some(is_it(&meant, &usage(error)));
    }
    (!valid.is_empty()).then(|| format!("one of {valid}"))
}

/// The command among whose verbs the one that was typed is not.
fn looked_in<'a>(error: &clap::Error, command: &'a Command) -> &'a Command {
    let usage = usage(error);
    let words = usage.split(' ').skip(2);
    words.map_while(|word| command.find_subcommand(word)).next().unwrap_or(command)
}

fn is_it(meant: &[String], else_hint: &str) -> String {
    let quoted: Vec<String> = meant.iter().map(|name| format!("`{name}`")).collect();
    format!("is it {}? {else_hint}", quoted.join(" or "))
}

fn strings(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(many)) => many.clone(),
        _ => Vec::new(),
    }
}

/// The line that says how the command is used.
fn usage(error: &clap::Error) -> String {
    match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => {
            let line = usage.to_string();
            let line = line.trim_start_matches("Usage:").trim();
            let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("usage: {words}")
        }
        _ => "`--help` behind the command says how it is used".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Failure {
        let command = grouped(Args::command());
        let error = command.clone().try_get_matches_from(line.split(' ')).unwrap_err();
        failure(&error, &command)
    }

    #[test]
    fn what_was_probably_meant_is_said() {
        for (line, cause, hint) in [
            ("warp umont", "unrecognized subcommand 'umont'", "is it `umount` or `mount`?"),
            ("warp statsu", "unrecognized subcommand 'statsu'", "is it `status`?"),
            ("warp mnt", "unrecognized subcommand 'mnt'", "is it `mount` or `man`?"),
            ("warp ini", "unrecognized subcommand 'ini'", "`warp --help` lists"),
            ("warp key inti", "unrecognized subcommand 'inti'", "is it `init`?"),
            ("warp -q", "requires a subcommand but one was not provided", "`warp --help`"),
            (
                "warp create x",
                "unrecognized subcommand 'create'",
                "`portal create` or `snapshot create` or `archive create`",
            ),
            ("warp xyzzy", "unrecognized subcommand 'xyzzy'", "`warp --help` lists"),
            ("warp portal lss", "unrecognized subcommand 'lss'", "is it `ls`"),
            ("warp portal crate x", "unrecognized subcommand 'crate'", "is it `create`"),
            (
                "warp mount --read-olny a b",
                "unexpected argument '--read-olny'",
                "is it `--read-only`",
            ),
            ("warp mount a", "not provided: <DIR>", "usage: warp mount "),
            ("warp --color alwys status", "invalid value 'alwys'", "is it `always`"),
            ("warp archive create --level 99 a b", "99 is not in 0..=19", "--help"),
        ] {
            let failure = of(line);
            assert!(failure.cause.contains(cause), "{line}: {}", failure.cause);
            let said = failure.hint.unwrap_or_default();
            assert!(said.contains(hint), "{line}: {said}");
            assert_eq!(failure.exit, Exit::Usage);
        }
    }

    #[test]
    fn a_hidden_verb_is_never_suggested() {
        for typed in ["demon", "deamon", "daemn", "unmout"] {
            let hint = of(&format!("warp {typed}")).hint.unwrap_or_default();
            for hidden in ["daemon", "`unmount`"] {
                assert!(!hint.contains(hidden), "{typed}: {hint}");
            }
        }
    }
}
