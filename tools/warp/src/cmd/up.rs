//! `warp up` and `warp down`.

use crate::args::{Network, Switch, Up};
use crate::client::Daemon;
use crate::daemon;
use crate::daemon::wire::{GoUp, IsUp};
use crate::report::{Exit, Result, Ui};
use hyper::Method;
use serde_json::json;
use std::num::NonZeroU64;
use std::time::Duration;
use warp_flow::home::Home;

/// How long the daemon's process may take to end after it has closed all.
const END_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn up(args: &Up, ui: &Ui) -> Result<Exit> {
    if args.foreground {
        return daemon::run_here(&args.network, ui);
    }
    let home = Home::from_environment()?;
    let mut settings = settings(&args.network);
    if ui.verbose > 0 {
        settings.push(("WARP_VERBOSE", ui.verbose.to_string()));
    }
    let mut daemon = Daemon::started_with(&home, &settings)?;
    let ask = GoUp { network: named(&args.network) };
    let done: IsUp = daemon.ask(Method::POST, "/v1/up", &ask)?;
    if done.differs {
        ui.warn("a daemon ran already, and uses the network as it was told then: `warp down`, then `warp up`, tells it anew");
    }
    if ui.json {
        ui.print(&json!({ "pid": daemon.pid(), "stays": true }).to_string())?;
    }
    ui.summary("the daemon is up and stays.  End it: warp down");
    Ok(Exit::Ok)
}

/// The same with its names as text, to be compared.
pub(crate) fn named(network: &Network) -> Vec<(String, String)> {
    settings(network).into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How the network is to be used, for a daemon that starts.
fn settings(network: &Network) -> Vec<(&'static str, String)> {
    let rate = |rate: Option<NonZeroU64>| rate.map(|rate| rate.to_string());
    let mdns = if network.mdns == Switch::On { "on" } else { "off" };
    let all = [
        ("WARP_LISTEN", network.listen.map(|listen| listen.to_string())),
        ("WARP_MDNS", Some(mdns.to_owned())),
        ("WARP_LIMIT", rate(network.limit)),
        ("WARP_LIMIT_PER_PEER", rate(network.limit_per_peer)),
        ("WARP_METRICS", network.metrics.map(|at| at.to_string())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
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
