//! Settings: defaults of flags, from files.
//!
//! `$XDG_CONFIG_HOME/warp/config.toml` (`$WARP_HOME/config.toml`) goes before
//! `/etc/warp/config.toml`; flags and the environment go before both.
//! Promises: a key is a flag's, and takes what the flag takes, because the
//! flag itself checks it; a file with anything else in it is refused, with
//! its line. Never: changes a file but for one key, whole or not at all.
//! Tested below and by `tests/tests/config.rs`.

use crate::args::{Args, Command as Verb};
use crate::report::{Exit, Failure, Result};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use toml_edit::{Document, DocumentMut, Item, Value};
use warp_flow::FlowError;
use warp_flow::home::{Home, make_private_dir, sync_dir};
use warp_flow::portals::nearest;

/// For all users of the machine.
const SYSTEM: &str = "/etc/warp/config.toml";
const FILE: &str = "config.toml";

/// The keys: KEY stands for every flag whose variable is `WARP_KEY`. Those
/// that say what a single call does (`--force`, `--dry-run`, `-C`) are none.
const KEYS: [&str; 18] = [
    "allow_other",
    "cache_size",
    "color",
    "exclude",
    "keep_data",
    "level",
    "limit",
    "limit_per_peer",
    "listen",
    "long",
    "mdns",
    "metrics",
    "mount_options",
    "no_flush",
    "quiet",
    "sign",
    "sort",
    "verbose",
];

/// What the files say, and which flags were typed.
#[derive(Default)]
pub(crate) struct Config {
    /// The user's file and the machine's, in this order, as far as they are
    /// there.
    files: Vec<Settings>,
    /// The user's file, if there can be one.
    own: Option<PathBuf>,
    /// The first file that could not be read.
    broken: Option<Failure>,
    flags: Vec<&'static str>,
}

/// One file.
struct Settings {
    path: PathBuf,
    values: BTreeMap<&'static str, Vec<String>>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Environment(String),
    File(PathBuf),
    Default,
}

impl Origin {
    /// One word for programs.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment(_) => "env",
            Self::File(path) if path == Path::new(SYSTEM) => "system",
            Self::File(_) => "user",
            Self::Default => "default",
        }
    }

    /// The variable or the file.
    pub(crate) fn place(&self) -> Option<String> {
        match self {
            Self::Environment(name) => Some(name.clone()),
            Self::File(path) => Some(path.display().to_string()),
            Self::Flag | Self::Default => None,
        }
    }
}

/// A key, what it is set to, and by what.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    pub(crate) origin: Origin,
    pub(crate) about: String,
}

impl Config {
    /// Reads both files. What is wrong with them is kept, so that the
    /// commands that mend it work.
    pub(crate) fn load() -> Self {
        let own = Home::from_environment().ok().map(|home| home.config().join(FILE));
        let mut config = Self { own, ..Self::default() };
        let paths: Vec<PathBuf> = config.own.iter().cloned().chain([SYSTEM.into()]).collect();
        for path in paths {
            match Settings::read(&path) {
                Ok(Some(settings)) => config.files.push(settings),
                Ok(None) => {}
                Err(failure) => config.broken = config.broken.take().or(Some(failure)),
            }
        }
        config
    }

    /// The command with the settings as the defaults of its flags.
    pub(crate) fn as_defaults(&self, command: Command) -> Command {
        if self.files.iter().all(|file| file.values.is_empty()) {
            return command;
        }
        let default = |arg: Arg| match key_of(&arg).and_then(|key| self.in_files(key)) {
            Some((values, _)) => arg.default_values(values.to_vec()),
            None => arg,
        };
        command.mut_args(default).mut_subcommands(|verb| self.as_defaults(verb))
    }

    /// Remembers which keys were given as flags.
    pub(crate) fn note_flags(&mut self, matches: &ArgMatches) {
        let typed = |key: &&str| {
            let known = matches.try_contains_id(key).is_ok();
            known && matches.value_source(key) == Some(ValueSource::CommandLine)
        };
        self.flags.extend(KEYS.iter().filter(|key| typed(key)));
        if let Some((_, below)) = matches.subcommand() {
            self.note_flags(below);
        }
    }

    /// Fails if a file could not be read and this verb would act on it.
    pub(crate) fn check_for(&self, verb: &Verb) -> Result<()> {
        let mends = matches!(
            verb,
            Verb::Config(_) | Verb::Completions(_) | Verb::Man(_) | Verb::Doctor | Verb::Umount(_)
        );
        if mends { Ok(()) } else { self.check() }
    }

    /// Fails if a file could not be read.
    pub(crate) fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// What the files say about colour: needed before anything is parsed.
    pub(crate) fn color(&self) -> Option<&str> {
        let (values, _) = self.in_files("color")?;
        values.first().map(String::as_str)
    }

    fn in_files(&self, key: &str) -> Option<(&[String], &Path)> {
        let found = |file: &'_ Settings| file.values.contains_key(key);
        let file = self.files.iter().find(|file| found(file))?;
        Some((file.values.get(key)?, &file.path))
    }

    /// All keys, and what they are set to.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        KEYS.iter().map(|key| self.setting(key)).collect()
    }

    /// One key.
    pub(crate) fn find(&self, typed: &str) -> Result<Setting> {
        key(typed).map(|key| self.setting(key))
    }

    fn setting(&self, key: &'static str) -> Setting {
        let arg = arg(key);
        let variable = variable(key);
        let environment = std::env::var_os(&variable).filter(|_| !self.flags.contains(&key));
        let (value, origin) = if let Some(value) = environment {
            (value.to_string_lossy().into_owned(), Origin::Environment(variable))
        } else if self.flags.contains(&key) {
            // What it was set to matters to the command that it was typed for.
            ("(as typed)".into(), Origin::Flag)
        } else if let Some((values, path)) = self.in_files(key) {
            (values.join(","), Origin::File(path.into()))
        } else {
            (built_in(&arg), Origin::Default)
        };
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        Setting { key, value, origin, about }
    }

    /// The user's file.
    pub(crate) fn own(&self) -> Result<&Path> {
        let none = || {
            Failure::new(Exit::Failed, "there is no place for settings")
                .hint("set HOME, or `export WARP_HOME=DIR`")
        };
        self.own.as_deref().ok_or_else(none)
    }

    /// Sets a key in the user's file.
    pub(crate) fn set(&self, typed: &str, text: &str) -> Result<()> {
        let key = key(typed)?;
        let mut value = value_of(key, text)?;
        self.change(|document| {
            if let Some(Item::Value(old)) = document.get(key) {
                *value.decor_mut() = old.decor().clone();
            }
            document[key] = Item::Value(value);
        })
    }

    /// Takes a key out of the user's file; false if it was not in it.
    pub(crate) fn unset(&self, typed: &str) -> Result<bool> {
        let key = key(typed)?;
        let there = self
            .files
            .iter()
            .any(|file| self.own.as_ref() == Some(&file.path) && file.values.contains_key(key));
        if there {
            self.change(|document| drop(document.remove(key)))?;
        }
        Ok(there)
    }

    /// Writes the user's file anew, with what is around the change as it was.
    fn change(&self, how: impl FnOnce(&mut DocumentMut)) -> Result<()> {
        let path = self.own()?;
        // One that cannot be read would lose what cannot be read in it.
        Settings::read(path)?;
        let text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|e| FlowError::io(path, e))?,
        };
        let mut document: DocumentMut = text.parse().map_err(|e| malformed(path, &text, &e))?;
        how(&mut document);
        replace(path, &document.to_string()).map_err(|e| FlowError::io(path, e).into())
    }
}

impl Settings {
    /// `None` if there is no file.
    fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text).map(Some),
            Err(e) if absent(&e) => Ok(None),
            Err(e) => Err(FlowError::io(path, e).into()),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let document = Document::parse(text).map_err(|e| malformed(path, text, &e))?;
        let mut values = BTreeMap::new();
        for (name, item) in document.as_table() {
            let span = document.as_table().key(name).and_then(|key| key.span());
            let at = |failure: Failure| {
                let line = line_of(text, span.clone());
                let cause = format!("{}:{line}: {}", path.display(), failure.cause);
                Failure { cause, hint: failure.hint, exit: Exit::Usage }
            };
            let key = key(name).map_err(at)?;
            values.insert(key, checked(key, item).map_err(at)?);
        }
        Ok(Self { path: path.into(), values })
    }
}

/// True if nobody has put a file there, or not for this user: a HOME that is
/// another's, as under sudo, is no reason to do nothing.
fn absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> usize {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    before.matches('\n').count() + 1
}

fn malformed(path: &Path, text: &str, error: &toml_edit::TomlError) -> Failure {
    let line = line_of(text, error.span());
    let said = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    Failure::new(Exit::Usage, format!("{}:{line}: {said}", path.display())).hint(
        "a line is written like `color = \"never\"` or `level = 9`; `warp config edit` opens it",
    )
}

/// The key that was typed; the nearest, if it is none.
fn key(typed: &str) -> Result<&'static str> {
    // As the flag is written, too.
    let name = typed.trim_start_matches("--").replace('-', "_");
    if let Some(key) = KEYS.iter().find(|key| **key == name) {
        return Ok(key);
    }
    let hint = match nearest(&name, KEYS.map(str::to_owned)) {
        Some(nearest) => format!("is it `{nearest}`? `warp config ls` lists all of them"),
        None => "`warp config ls` lists all of them".into(),
    };
    Err(Failure::new(Exit::Usage, format!("{typed}: no such key")).hint(hint))
}

fn variable(key: &str) -> String {
    format!("WARP_{}", key.to_ascii_uppercase())
}

/// The key that a flag is the one of, by its variable.
fn key_of(arg: &Arg) -> Option<&'static str> {
    let name = arg.get_env()?.to_str()?.strip_prefix("WARP_")?.to_ascii_lowercase();
    KEYS.iter().find(|key| **key == name).copied()
}

/// The flag of a key.
fn arg(key: &str) -> Arg {
    fn find(command: &Command, key: &str) -> Option<Arg> {
        let own = command.get_arguments().find(|arg| key_of(arg) == Some(key)).cloned();
        own.or_else(|| command.get_subcommands().find_map(|verb| find(verb, key)))
    }
    find(&Args::command(), key).expect("a test finds the flag of each key")
}

/// What a flag is without being set.
fn built_in(arg: &Arg) -> String {
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let text = defaults.collect::<Vec<_>>().join(",");
    match arg.get_action() {
        ArgAction::SetTrue if text.is_empty() => "false".into(),
        ArgAction::Count if text.is_empty() => "0".into(),
        _ => text,
    }
}

/// What a key is set to in a file, if its flag takes that.
fn checked(key: &'static str, item: &Item) -> Result<Vec<String>> {
    let arg = arg(key);
    let wrong = |what: &str| Failure::new(Exit::Usage, format!("{key}: is not {what}"));
    let list = matches!(arg.get_action(), ArgAction::Append);
    let values = match (arg.get_action(), item.as_value()) {
        (ArgAction::SetTrue, Some(Value::Boolean(value))) => vec![value.value().to_string()],
        (ArgAction::SetTrue, _) => return Err(wrong("true or false").hint(format!("{key} = true"))),
        (_, Some(Value::Integer(value))) if !list => vec![value.value().to_string()],
        (_, Some(Value::String(value))) => vec![value.value().clone()],
        (_, Some(Value::Array(values))) if list => {
            let texts = values.iter().map(|value| value.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or_else(|| {
                wrong("a list of texts").hint(format!("{key} = [\"one\", \"another\"]"))
            })?
        }
        _ => return Err(wrong("what its flag takes").hint(takes(&arg))),
    };
    try_values(key, &arg, &values)?;
    Ok(values)
}

/// Gives them to the flag.
fn try_values(key: &str, arg: &Arg, values: &[String]) -> Result<()> {
    let refused =
        |why: String| Err(Failure::new(Exit::Usage, format!("{key}: {why}")).hint(takes(arg)));
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return Ok(());
    }
    if matches!(arg.get_action(), ArgAction::Count) {
        return match values.concat().parse::<u8>() {
            Ok(_) => Ok(()),
            Err(_) => refused(format!("{:?} is not a number from 0 to 255", values.concat())),
        };
    }
    let alone = arg.clone().long("flag").short(None).env(None::<&str>).required(false);
    let words = values.iter().map(|value| format!("--flag={value}"));
    let tried = Command::new("flag").no_binary_name(true).arg(alone).try_get_matches_from(words);
    match tried {
        Ok(_) => Ok(()),
        Err(_) => refused(format!("{:?} is not what its flag takes", values.join(","))),
    }
}

/// What a flag takes, for a hint.
fn takes(arg: &Arg) -> String {
    let possible: Vec<_> =
        arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    if possible.is_empty() || matches!(arg.get_action(), ArgAction::SetTrue) {
        arg.get_help().map(ToString::to_string).unwrap_or_default()
    } else {
        format!("one of {}", possible.join(", "))
    }
}

/// What was typed for a key, as it stands in a file.
fn value_of(key: &'static str, text: &str) -> Result<Value> {
    let arg = arg(key);
    let value: Value = match arg.get_action() {
        ArgAction::SetTrue => match text {
            "true" | "yes" | "on" | "1" => true.into(),
            "false" | "no" | "off" | "0" => false.into(),
            _ => {
                let cause = format!("{key}: {text:?} is neither true nor false");
                return Err(
                    Failure::new(Exit::Usage, cause).hint(format!("warp config set {key} true"))
                );
            }
        },
        ArgAction::Append => text.split(',').filter(|part| !part.is_empty()).collect(),
        _ => match text.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => text.into(),
        },
    };
    checked(key, &Item::Value(value.clone()))?;
    Ok(value)
}

/// Puts a file in place of another, whole or not at all. One that is a link
/// stays a link.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let directory = path.parent().unwrap_or(Path::new(""));
    make_private_dir(directory)?;
    let mut name = path.clone().into_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let written = (|| {
        let mut file = std::fs::File::create_new(&temporary)?;
        if let Ok(old) = std::fs::metadata(&path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        sync_dir(directory)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings> {
        Settings::parse(Path::new("f"), text)
    }

    #[test]
    fn each_key_is_a_flag_s_and_has_a_meaning() {
        for key in KEYS {
            assert_eq!(key_of(&arg(key)), Some(key));
            assert!(arg(key).get_help().is_some(), "{key}");
        }
        assert!(KEYS.is_sorted());
    }

    #[test]
    fn a_file_is_read_as_its_flags_take_it() {
        let text = "# mine\ncolor = \"never\"\nlevel = 9\nallow-other = true\n\
            exclude = ['*.o', \"target\"]\nmount_options = 'ro,nonempty'\n";
        let found = parse(text).unwrap().values;
        assert_eq!(found["color"], ["never"]);
        assert_eq!(found["level"], ["9"]);
        assert_eq!(found["allow_other"], ["true"]);
        assert_eq!(found["exclude"], ["*.o", "target"]);
        assert_eq!(found["mount_options"], ["ro,nonempty"]);
    }

    #[test]
    fn what_no_flag_takes_is_refused_with_its_line() {
        for (text, cause, hint) in [
            ("colour = \"never\"", "f:1: colour: no such key", "is it `color`"),
            ("\n\nforce = true", "f:3: force: no such key", "warp config ls"),
            ("color = \"blue\"", "f:1: color: \"blue\" is not", "auto, always, never"),
            ("level = 20", "f:1: level: \"20\" is not", "zstd"),
            ("level = [1]", "f:1: level: is not", "zstd"),
            ("quiet = 1", "f:1: quiet: is not true or false", "quiet = true"),
            ("x\n", "f:1: ", "is written like"),
            ("level = 1\nlevel = 2", "f:2: ", "is written like"),
            ("exclude = [1]", "f:1: exclude: is not a list of texts", "exclude = ["),
        ] {
            let failure = parse(text).err().unwrap_or_else(|| panic!("{text:?} is accepted"));
            assert!(failure.cause.starts_with(cause), "{text:?}: {}", failure.cause);
            let said = failure.hint.unwrap_or_default();
            assert!(said.contains(hint), "{text:?}: {said}");
            assert_eq!(failure.exit, Exit::Usage);
        }
    }

    #[test]
    fn settings_are_defaults_and_flags_go_before_them() {
        let values = parse("level = 9\nquiet = true\nexclude = ['a', 'b']").unwrap();
        let config = Config { files: vec![values], ..Config::default() };
        let typed = |line: &str| {
            let matches = config.as_defaults(Args::command()).get_matches_from(line.split(' '));
            <Args as clap::FromArgMatches>::from_arg_matches(&matches).unwrap()
        };
        let create = |line| match typed(line).command {
            Verb::Archive(crate::args::Archive::Create(create)) => (create.level, create.exclude),
            other => panic!("{other:?}"),
        };
        assert_eq!(create("warp archive create f t"), (9, vec!["a".into(), "b".into()]));
        assert_eq!(create("warp archive create --level 1 -x c f t"), (1, vec!["c".into()]));
        assert!(typed("warp status").global.quiet);
    }

    #[test]
    fn a_change_keeps_what_is_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real"), dir.path().join("config.toml"));
        std::fs::write(&file, "# mine\nlevel = 3 # fast\n\ncolor = \"never\"\n").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let config = || Config {
            files: Settings::read(&link).unwrap().into_iter().collect(),
            own: Some(link.clone()),
            ..Config::default()
        };
        config().set("level", "9").unwrap();
        config().set("allow-other", "yes").unwrap();
        let text = "# mine\nlevel = 9 # fast\n\ncolor = \"never\"\nallow_other = true\n";
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        assert!(config().unset("color").unwrap());
        assert!(!config().unset("color").unwrap());
        assert!(config().set("level", "99").is_err());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("# mine") && !text.contains("color"), "{text}");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
