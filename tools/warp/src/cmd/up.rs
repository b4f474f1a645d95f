//! `warp up` and `warp down`.

use crate::args::Up;
use crate::client::Daemon;
use crate::daemon;
use crate::report::{Exit, Result, Ui};
use hyper::Method;
use serde_json::json;
use std::time::Duration;
use warp_flow::home::Home;

/// How long the daemon's process may take to end after it has closed all.
const END_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn up(args: &Up, ui: &Ui) -> Result<Exit> {
    if args.foreground {
        return daemon::run_here(ui);
    }
    let home = Home::from_environment()?;
    let mut daemon = Daemon::started(&home)?;
    daemon.ask::<()>(Method::POST, "/v1/up", &())?;
    if ui.json {
        ui.print(&json!({ "pid": daemon.pid(), "stays": true }).to_string())?;
    }
    ui.summary("the daemon is up and stays.  End it: warp down");
    Ok(Exit::Ok)
}

pub(crate) fn down(ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let Some(mut daemon) = Daemon::running(&home)? else {
        ended(false, ui)?;
        ui.summary("no daemon is running");
        return Ok(Exit::Ok);
    };
    daemon.ask::<()>(Method::POST, "/v1/down", &())?;
    daemon.wait_for_end(END_WITHIN);
    ended(true, ui)?;
    ui.summary("everything is unmounted and published, and the daemon has ended");
    Ok(Exit::Ok)
}

fn ended(was_running: bool, ui: &Ui) -> Result<()> {
    if ui.json { ui.print(&json!({ "was_running": was_running }).to_string()) } else { Ok(()) }
}
