//! How it went: one line for the cause, one for what to do, and the exit code.

use crate::args::{Color, Global};
use clap::ValueEnum;
use rustix::io::Errno;
use serde_json::json;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use warp_flow::{FlowError, Kind, Problem};
use warp_format::FormatError;

/// The exit codes of docs and man page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Partial = 3,
    NotFound = 4,
    Temporary = 5,
    Integrity = 6,
    Refused = 7,
    Full = 8,
    Busy = 11,
    Interrupted = 130,
    Terminated = 143,
}

impl Exit {
    pub(crate) const ALL: [Self; 12] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Partial,
        Self::NotFound,
        Self::Temporary,
        Self::Integrity,
        Self::Refused,
        Self::Full,
        Self::Busy,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// In a word or two, for help and manual.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Partial => "some items unreadable",
            Self::NotFound => "not found",
            Self::Temporary => "temporary",
            Self::Integrity => "integrity",
            Self::Refused => "refused",
            Self::Full => "no space or limit",
            Self::Busy => "busy",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }

    /// In a sentence, for the manual.
    pub(crate) fn explained(self) -> &'static str {
        match self {
            Self::Ok => "All went well.",
            Self::Failed => {
                "It failed for a reason that has no code of its own; `diff --exit-code` found a difference; `doctor` found something broken."
            }
            Self::Usage => {
                "What was typed, or a settings file, cannot be meant so; nothing was done."
            }
            Self::Partial => "It was done, except for items that could not be read; each is named.",
            Self::NotFound => "A portal, path, key or mount is not there.",
            Self::Temporary => {
                "Something could not be reached or was not finished; to try again helps."
            }
            Self::Integrity => {
                "A hash, a tag or a signature does not match: data is damaged or forged."
            }
            Self::Refused => "Wrong phrase or passphrase, or none was given.",
            Self::Full => "A disk is full, or a limit is reached.",
            Self::Busy => "It is in use, or locked by another process.",
            Self::Interrupted => "Stopped by SIGINT (Ctrl-C); what was being written is as it was.",
            Self::Terminated => "Stopped by SIGTERM or SIGHUP.",
        }
    }

    /// What another process of this program ended with; of a code that is
    /// none of ours all that is known is that it failed.
    pub(crate) fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Failed)
    }

    pub(crate) fn code(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Failed => Self::Failed,
            Kind::Temporary => Self::Temporary,
            Kind::Usage => Self::Usage,
            Kind::Partial => Self::Partial,
            Kind::NotFound => Self::NotFound,
            Kind::Integrity => Self::Integrity,
            Kind::Refused => Self::Refused,
            Kind::Full => Self::Full,
            Kind::Busy => Self::Busy,
            Kind::Interrupted => Self::Interrupted,
        }
    }
}

/// Why a command failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) cause: String,
    pub(crate) hint: Option<String>,
    pub(crate) exit: Exit,
}

impl Failure {
    pub(crate) fn new(exit: Exit, cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), hint: None, exit }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<FlowError> for Failure {
    fn from(error: FlowError) -> Self {
        if let FlowError::NoPortal { nearest: Some(nearest), .. } = &error {
            let hint = format!("is it {nearest}? `warp portal ls` lists all of them");
            return Self::new(error.kind().into(), error.to_string()).hint(hint);
        }
        if let FlowError::NoSnapshot { nearest, .. } = &error {
            let ls = "`warp snapshot ls PORTAL` lists all of them";
            let hint = nearest.as_ref().map_or(ls.into(), |near| format!("is it {near}? {ls}"));
            return Self::new(error.kind().into(), error.to_string()).hint(hint);
        }
        let hint = match &error {
            FlowError::File { source, .. } | FlowError::Corrupt(source) => match source {
                FormatError::NotA { .. } => {
                    Some("`warp archive create FILE.warp PATH…` makes an archive")
                }
                FormatError::Version { version, known, .. } if version < known => {
                    Some("the build that made it can read it: copy what is in it out with that")
                }
                FormatError::Version { .. } => Some("install a newer warp"),
                FormatError::WrongKey { .. } => {
                    Some("try again, or give the right `--passphrase-file`")
                }
                FormatError::Locked => None,
                _ => {
                    Some("`warp archive extract --salvage FILE.warp -C DIR` restores what is whole")
                }
            },
            FlowError::Missing { .. } | FlowError::Lost { .. } => {
                Some("`warp archive extract --salvage FILE.warp -C DIR` restores what is whole")
            }
            FlowError::NotFound { .. } => Some("`warp archive ls FILE.warp` lists what is in it"),
            FlowError::Exists { .. } => Some("`--force` replaces it"),
            FlowError::FounderAway => {
                Some("start warp where the portal was made (`warp up`), and try again")
            }
            FlowError::NoRight { .. } | FlowError::Unchanged { .. } => {
                Some("`warp portal status NAME --members` lists who has the right")
            }
            FlowError::NoPortal { .. } => {
                Some("`warp portal ls` lists them, `warp portal create NAME` makes one")
            }
            FlowError::BadName { .. } => {
                Some("choose another name; `warp portal ls` lists those that are taken")
            }
            FlowError::BadSnapshot { .. } => {
                Some("choose another name; `warp snapshot ls PORTAL` lists those that are taken")
            }
            FlowError::InUse { .. } => Some("`warp status` says what runs; try again later"),
            FlowError::Io { source, .. } => match (error.kind(), source.kind()) {
                (Kind::Full, _) => Some("make room, or write to another disk"),
                (Kind::NotFound, _) => Some("check how the path is written"),
                (_, io::ErrorKind::ReadOnlyFilesystem) => Some("name a place that can be written"),
                // Of the disk or the kernel, and nothing that modes are about.
                (_, io::ErrorKind::Interrupted) => Some("try again"),
                (_, _) if source.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    Some("`dmesg` says what the disk met; `warp info` shows where the log is")
                }
                _ => Some("check whose it is and who may use it: `ls -ld` shows that"),
            },
            FlowError::Store(_) | FlowError::Stalled { .. } => match error.kind() {
                Kind::Full => Some("make room on the disk that holds the portal; nothing is lost"),
                _ => None,
            },
            _ => None,
        };
        let exit = error.kind().into();
        Self { cause: error.to_string(), hint: hint.map(str::to_owned), exit }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// How to speak to the user.
pub(crate) struct Ui {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    /// How much more is said than usual.
    pub(crate) verbose: u8,
    /// On standard error.
    pub(crate) color: bool,
    /// On standard output.
    color_results: bool,
}

/// Whether a stream is coloured.
fn is_colored(when: Color, stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    match when {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let forced =
                set("CLICOLOR_FORCE") && std::env::var_os("CLICOLOR_FORCE") != Some("0".into());
            !set("NO_COLOR") && (forced || stream.is_terminal())
        }
    }
}

/// What is said with so many `-v`.
pub(crate) fn level(verbose: u8) -> tracing::Level {
    match verbose {
        0 | 1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    }
}

impl Ui {
    pub(crate) fn new(global: &Global) -> Self {
        if global.verbose > 0 {
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(is_colored(global.color, &io::stderr()))
                .with_max_level(level(global.verbose))
                .with_target(false)
                .with_writer(io::stderr)
                .without_time()
                .finish();
            // Fails only if there is one already.
            let _ = tracing::subscriber::set_global_default(subscriber);
        }
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            color: is_colored(global.color, &io::stderr()),
            color_results: is_colored(global.color, &io::stdout()),
        }
    }

    /// Neither coloured nor JSON: a process talks to the one that started it.
    pub(crate) fn plain() -> Self {
        Self { json: false, quiet: false, verbose: 0, color: false, color_results: false }
    }

    /// As far as it can be known before the words are understood.
    pub(crate) fn before_parsing(words: &[OsString], setting: Option<&str>) -> Self {
        let text = |word: &OsString| word.to_str().map(str::to_owned);
        let words: Vec<String> =
            words.iter().skip(1).map_while(text).take_while(|word| word != "--").collect();
        let environment = |name| std::env::var(name).ok();
        let next = words.iter().skip_while(|word| *word != "--color").nth(1);
        let typed = words.iter().find_map(|word| word.strip_prefix("--color="));
        let when = typed.or(next.map(String::as_str)).map(str::to_owned);
        let when = when.or(environment("WARP_COLOR")).or(setting.map(str::to_owned));
        let color = when.and_then(|when| Color::from_str(&when, false).ok()).unwrap_or(Color::Auto);
        let falsey = ["", "0", "f", "false", "n", "no", "off"];
        let json = words.iter().any(|word| word == "--json")
            || environment("WARP_JSON").is_some_and(|value| !falsey.contains(&value.as_str()));
        Self {
            json,
            quiet: false,
            verbose: 0,
            color: is_colored(color, &io::stderr()),
            color_results: is_colored(color, &io::stdout()),
        }
    }

    /// Text for standard output in a colour.
    pub(crate) fn paint_result(&self, code: &str, text: &str) -> String {
        if self.color_results { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Tells the cause and the hint; gives the exit code.
    pub(crate) fn fail(&self, failure: &Failure) -> Exit {
        if self.json {
            let document = json!({
                "error": failure.cause,
                "hint": failure.hint,
                "exit": failure.exit as u8,
            });
            self.note(&document.to_string());
            return failure.exit;
        }
        let cause = one_line(&failure.cause);
        self.note(&format!("{} {cause}", self.paint("1;31", "error:")));
        if let Some(hint) = &failure.hint {
            self.note(&format!("{} {}", self.paint("36", "hint:"), one_line(hint)));
        }
        failure.exit
    }

    /// A line on standard error, even with `--quiet`.
    pub(crate) fn note(&self, line: &str) {
        // Nobody may be reading any more; that is no reason to fail.
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// Something that is wrong while the rest goes on.
    pub(crate) fn warn(&self, line: &str) {
        self.note(&format!("{} {}", self.paint("33", "warning:"), one_line(line)));
    }

    /// A line of results on standard output. Names in it are shown, not
    /// given: what lists names for programs writes their bytes itself.
    pub(crate) fn print(&self, line: &str) -> Result<()> {
        self.print_marked("", line)
    }

    /// The same behind a mark, which may be coloured.
    pub(crate) fn print_marked(&self, mark: &str, line: &str) -> Result<()> {
        let blank = if mark.is_empty() { "" } else { " " };
        match writeln!(io::stdout(), "{mark}{blank}{}", one_line(line)) {
            Ok(()) => Ok(()),
            // The reader has seen enough, as with `| head`.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(e) => Err(Failure::new(Exit::Failed, format!("standard output: {e}"))),
        }
    }

    /// A summary line for people: not with `--quiet` or `--json`.
    pub(crate) fn summary(&self, line: &str) {
        if !self.quiet && !self.json {
            self.note(&one_line(line));
        }
    }

    /// Names each problem, and gives the exit code that they make.
    pub(crate) fn problems(&self, problems: &[Problem]) -> Exit {
        let told = problems.iter().map(|p| (problem_line(p), Exit::from(p.error.kind())));
        self.tell_problems(told)
    }

    /// The same of problems that are lines already, each with its exit code.
    pub(crate) fn tell_problems(&self, problems: impl Iterator<Item = (String, Exit)>) -> Exit {
        let mut exits = Vec::new();
        for (line, exit) in problems {
            self.warn(&line);
            exits.push(exit);
        }
        let worst = [Exit::Integrity, Exit::Usage].into_iter().find(|exit| exits.contains(exit));
        worst.unwrap_or(if exits.is_empty() { Exit::Ok } else { Exit::Partial })
    }
}

/// What is said of a problem.
pub(crate) fn problem_line(problem: &Problem) -> String {
    let why = problem.error.to_string();
    let named = match &problem.error {
        // These name the path themselves, as the host has it.
        FlowError::Io { .. } | FlowError::Exists { .. } => true,
        // This names the archive, which may not be what it is about.
        FlowError::File { path, .. } => path.as_os_str().as_bytes() == problem.path,
        _ => false,
    };
    if named { why } else { format!("{}: {why}", crate::show::path(&problem.path)) }
}

/// Control characters of a hostile name must not move the cursor or forge a
/// line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [
            (Exit::Ok, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Partial, 3),
            (Exit::NotFound, 4),
            (Exit::Temporary, 5),
            (Exit::Integrity, 6),
            (Exit::Refused, 7),
            (Exit::Full, 8),
            (Exit::Busy, 11),
            (Exit::Interrupted, 130),
            (Exit::Terminated, 143),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code);
            assert_eq!(Exit::from_code(code), exit);
        }
        assert_eq!(codes.map(|(exit, _)| exit), Exit::ALL);
        assert_eq!(Exit::from_code(99), Exit::Failed);
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        assert_eq!(one_line("a\nerror: b\x1b[2J"), "a?error: b?[2J");
    }
}
