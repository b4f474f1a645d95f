//! `warp config`: the defaults of flags.

use crate::args::{Config as Verb, ConfigGet, ConfigLs};
use crate::config::{Config, Setting};
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use warp_flow::FlowError;
use warp_flow::home::make_private_dir;

pub(super) fn run(verb: &Verb, config: &Config, ui: &Ui) -> Result<Exit> {
    match verb {
        Verb::Get(args) => get(args, config, ui),
        Verb::Ls(args) => ls(args, config, ui),
        Verb::Set(args) => {
            config.set(&args.key, &args.value)?;
            let setting = Config::load().find(&args.key)?;
            changed(&setting, config, ui)
        }
        Verb::Unset(args) => {
            config.unset(&args.key)?;
            let setting = Config::load().find(&args.key)?;
            changed(&setting, config, ui)
        }
        Verb::Edit => edit(config, ui),
        Verb::Path => {
            let path = config.own()?.to_string_lossy();
            if ui.json {
                ui.print(&json!({ "path": path }).to_string())?;
            } else {
                ui.print(&path)?;
            }
            Ok(Exit::Ok)
        }
    }
}

fn get(args: &ConfigGet, config: &Config, ui: &Ui) -> Result<Exit> {
    config.check()?;
    let setting = config.find(&args.key)?;
    if ui.json {
        ui.print(&document(&setting).to_string())?;
    } else if args.origin {
        ui.print(&format!("{} {}", setting.value, origin(&setting)))?;
    } else {
        ui.print(&setting.value)?;
    }
    Ok(Exit::Ok)
}

fn ls(args: &ConfigLs, config: &Config, ui: &Ui) -> Result<Exit> {
    config.check()?;
    let settings = config.settings();
    if ui.json {
        let rows: Vec<Value> = settings.iter().map(document).collect();
        ui.print(&json!({ "settings": rows }).to_string())?;
        return Ok(Exit::Ok);
    }
    for setting in &settings {
        let value = if setting.value.is_empty() { "-" } else { &setting.value };
        let behind = if args.origin { origin(setting) } else { setting.about.clone() };
        ui.print(&format!("{:<14} {value:<10} {behind}", setting.key))?;
    }
    Ok(Exit::Ok)
}

/// Where a value comes from, for people.
fn origin(setting: &Setting) -> String {
    setting.origin.place().unwrap_or_else(|| setting.origin.word().to_owned())
}

fn document(setting: &Setting) -> Value {
    json!({
        "key": setting.key,
        "value": setting.value,
        "origin": setting.origin.word(),
        "place": setting.origin.place(),
    })
}

/// Says what a key is now, and what hides it if something does.
fn changed(setting: &Setting, config: &Config, ui: &Ui) -> Result<Exit> {
    if ui.json {
        ui.print(&document(setting).to_string())?;
        return Ok(Exit::Ok);
    }
    let value = if setting.value.is_empty() { "-" } else { &setting.value };
    ui.summary(&format!("{} is {value} ({})", setting.key, origin(setting)));
    let own = config.own()?;
    if setting.origin.word() == "env" {
        let variable = origin(setting);
        ui.summary(&format!("as long as {variable} is set, it goes before {}", own.display()));
    }
    Ok(Exit::Ok)
}

fn edit(config: &Config, ui: &Ui) -> Result<Exit> {
    let path = config.own()?;
    if let Some(directory) = path.parent() {
        make_private_dir(directory).map_err(|e| FlowError::io(directory, e))?;
    }
    let editor = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".into());
    open_in(&editor, path)?;
    // What was saved is checked while one still knows what one typed.
    Config::load().check()?;
    ui.summary(&format!("{} is in order", path.display()));
    Ok(Exit::Ok)
}

/// An editor may be named with its flags, as in `code --wait`: a shell splits
/// them, as it does for git.
fn open_in(editor: &OsString, path: &Path) -> Result<()> {
    let mut script = editor.clone();
    script.push(" \"$@\"");
    let status = Command::new("sh").arg("-c").arg(script).arg("editor").arg(path).status();
    let shown = editor.display();
    let failed = |why: String| {
        Failure::new(Exit::Failed, format!("{shown}: {why}"))
            .hint(format!("export EDITOR=… names another one; the file is {}", show::word(path)))
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status.to_string())),
        Err(e) => Err(failed(e.to_string())),
    }
}
