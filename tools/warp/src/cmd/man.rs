//! `warp man`: the manual, made from what the command line itself knows.
//!
//! Promises: every verb that is not hidden has a page; the table of exit
//! codes is that of the program. On a terminal the page is shown by man(1);
//! elsewhere it is written in roff.

use crate::args::Man;
use crate::parse;
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use clap::Command;
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use warp_flow::FlowError;

pub(super) fn run(args: &Man, ui: &Ui) -> Result<Exit> {
    let pages = pages()?;
    if let Some(directory) = &args.dir {
        return write_all(&pages, directory, ui);
    }
    let mut name = String::from("warp");
    for word in &args.command {
        name = format!("{name}-{word}");
    }
    let Some(page) = pages.iter().find(|page| page.name == name) else {
        let cause = format!("warp {}: there is no page about it", args.command.join(" "));
        return Err(Failure::new(Exit::NotFound, cause).hint("`warp --help` lists the commands"));
    };
    if io::stdout().is_terminal() && show_page(page) {
        return Ok(Exit::Ok);
    }
    match io::stdout().write_all(&page.roff) {
        // The reader has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
        written => {
            written.map_err(|e| FlowError::io("standard output", e))?;
            Ok(Exit::Ok)
        }
    }
}

/// A page, and the command that it is about: `warp-portal-create`.
struct Page {
    name: String,
    roff: Vec<u8>,
}

/// The pages of all verbs.
fn pages() -> Result<Vec<Page>> {
    let mut command = parse::visible();
    command.build();
    let mut pages = Vec::new();
    collect("warp", &command, &mut pages).map_err(|e| FlowError::io("manual", e))?;
    Ok(pages)
}

fn collect(name: &str, command: &Command, pages: &mut Vec<Page>) -> io::Result<()> {
    let page = clap_mangen::Man::new(command.clone().name(name.to_owned()))
        .title(name)
        .manual("warp")
        .source(format!("warp {}", env!("CARGO_PKG_VERSION")));
    let mut roff = Vec::new();
    page.render_title(&mut roff)?;
    page.render_name_section(&mut roff)?;
    page.render_synopsis_section(&mut roff)?;
    page.render_description_section(&mut roff)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        page.render_options_section(&mut roff)?;
    }
    if command.has_subcommands() {
        page.render_subcommands_section(&mut roff)?;
    }
    if name == "warp" {
        roff.extend(closing());
    } else {
        roff.extend(b".SH \"EXIT STATUS\"\nSee\n.BR warp (1).\n");
    }
    pages.push(Page { name: name.to_owned(), roff });
    for verb in command.get_subcommands() {
        collect(&format!("{name}-{}", verb.get_name()), verb, pages)?;
    }
    Ok(())
}

/// What the first page has besides.
fn closing() -> Vec<u8> {
    let mut roff = String::from(".SH \"EXIT STATUS\"\n");
    for exit in Exit::ALL {
        let (code, meaning) = (exit as u8, exit.meaning());
        let said = exit.explained();
        roff.push_str(&format!(".TP\n.B {code} {meaning}\n{said}\n"));
    }
    roff.push_str(
        ".SH ENVIRONMENT\n.TP\n.B WARP_HOME\nOne directory for keys, portals, settings, socket and log, \
in place of the XDG directories.\n.TP\n.B WARP_PASSPHRASE\nThe passphrase of a keyring or an archive.\n\
.TP\n.B WARP_FLAG\nEvery flag has a variable with its name; it is shown with the flag.\n\
.TP\n.BR NO_COLOR \", \" CLICOLOR_FORCE\nNo colour; colour in pipes, too.\n\
.SH FILES\n.TP\n.I $XDG_CONFIG_HOME/warp/config.toml\nSettings: defaults of flags. With WARP_HOME, \
.IR $WARP_HOME/config.toml .\n.TP\n.I /etc/warp/config.toml\nSettings for all users; one's own go before them.\n\
.TP\n.I $XDG_DATA_HOME/warp\nKeys and portals.\n\
.TP\n.I /sbin/mount.warp\nA link to this program: mount(8) and fstab find it there.\n",
    );
    roff.into_bytes()
}

/// Through man(1); false if that is not there.
fn show_page(page: &Page) -> bool {
    let man = Process::new("man").args(["-l", "-"]).stdin(Stdio::piped()).spawn();
    let Ok(mut man) = man else { return false };
    if let Some(mut stdin) = man.stdin.take() {
        // Who leaves before the end has read enough.
        let _ = stdin.write_all(&page.roff);
    }
    man.wait().is_ok_and(|status| status.success())
}

fn write_all(pages: &[Page], directory: &Path, ui: &Ui) -> Result<Exit> {
    std::fs::create_dir_all(directory).map_err(|e| FlowError::io(directory, e))?;
    let mut written: Vec<PathBuf> = Vec::new();
    for page in pages {
        let path = directory.join(format!("{}.1", page.name));
        std::fs::write(&path, &page.roff).map_err(|e| FlowError::io(&path, e))?;
        written.push(path);
    }
    if ui.json {
        let files: Vec<_> = written.iter().map(|path| path.to_string_lossy()).collect();
        ui.print(&json!({ "files": files }).to_string())?;
    }
    let first = directory.join("warp.1");
    ui.summary(&format!("{} pages.  Read one: man -l {}", written.len(), show::word(&first)));
    Ok(Exit::Ok)
}
