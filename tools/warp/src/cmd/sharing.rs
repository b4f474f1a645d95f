//! `warp portal invite|join|expire` and `warp peers`: other devices.

use super::key;
use super::mount::lost_keyring;
use super::portal::{known, row, short};
use crate::args::{Peers, PeersVerb, PortalExpire, PortalInvite, PortalJoin, PortalStatus};
use crate::client::Daemon;
use crate::daemon::wire::{
    ExpireIn, Expired, InviteTo, Invited, JoinPortal, Joined, MemberRow, NamePortal, PeerRow, When,
};
use crate::report::{Exit, Failure, Result, Ui};
use crate::show;
use crate::units;
use hyper::Method;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use warp_flow::home::Home;
use warp_flow::members::now_secs;
use warp_format::members::Capability;
use warp_format::record::Time;

/// Longest ticket that is read from standard input, in bytes.
const MAX_TICKET_LEN: u64 = 4096;

pub(super) fn invite(args: &PortalInvite, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let ask = InviteTo {
        portal: args.name.clone(),
        capability: args.capability(),
        may_invite: args.may_invite,
        expires_s: args.expires.as_secs(),
        uses: args.uses.get(),
    };
    let invited: Invited = known(&home, &args.name)?.ask_unlocked(
        &args.passphrase,
        Method::POST,
        "/v1/invites",
        &ask,
    )?;
    if ui.json {
        let document = json!({
            "portal": args.name,
            "ticket": invited.ticket,
            "expires_at": invited.expires_at,
            "uses": args.uses,
            "capability": args.capability().word(),
            "may_invite": args.may_invite,
            "read_only": args.capability() < Capability::Writer,
        });
        ui.print(&document.to_string())?;
    } else {
        ui.print(&format!("warp portal join {}", invited.ticket))?;
    }
    if args.qr {
        ui.print(&qr(&invited.ticket)?)?;
    }
    let until = show::time(time(invited.expires_at));
    let uses = match args.uses.get() {
        1 => "for one device".into(),
        n => format!("for {n} devices"),
    };
    ui.summary(&format!("type it on the other device: {uses}, until {until}; who has it can join"));
    ui.summary(match invited.here {
        true => "this device has to be reachable then; its daemon stays, until `warp down`",
        false => "the device that made the portal has to be reachable then: it lets them in",
    });
    Ok(Exit::Ok)
}

fn qr(ticket: &str) -> Result<String> {
    // Upper case takes fewer bits, and is the same ticket.
    let code = qrcode::QrCode::new(ticket.to_ascii_uppercase()).map_err(|e| {
        Failure::new(Exit::Failed, format!("the ticket does not fit a QR code: {e}"))
            .hint("type the ticket")
    })?;
    Ok(code.render::<qrcode::render::unicode::Dense1x2>().build())
}

pub(super) fn join(args: &PortalJoin, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    if home.read_keyring()?.is_none() && home.has_portals() {
        return Err(lost_keyring(&home));
    }
    key::ensure(&args.passphrase, &home, ui)?;
    let ask = JoinPortal { ticket: ticket(&args.ticket)?, name: args.name.clone() };
    let mut daemon = Daemon::started(&home)?;
    let joined: Joined = daemon.ask_unlocked(&args.passphrase, Method::POST, "/v1/join", &ask)?;
    if ui.json {
        let mut document = row(&joined.portal);
        document["devices"] = json!(joined.devices);
        document["capability"] = json!(joined.capability.word());
        document["may_invite"] = json!(joined.may_invite);
        document["read_only"] = json!(joined.capability < Capability::Writer);
        ui.print(&document.to_string())?;
    }
    let name = &joined.portal.name;
    let typed = show::word(Path::new(name));
    let devices = joined.devices;
    if joined.capability == Capability::Custodian {
        ui.summary(&format!("keeps portal {name} for its members ({devices} devices)"));
        ui.summary(
            "it can read nothing of it; its daemon stays, and serves them, until `warp down`",
        );
        return Ok(Exit::Ok);
    }
    ui.summary(&format!("joined portal {name} ({devices} devices).  Next: warp mount {typed} DIR"));
    ui.summary("a portal is written on the device that made it; this one mounts it read-only");
    Ok(Exit::Ok)
}

/// A ticket as it was typed, or from standard input.
fn ticket(typed: &str) -> Result<String> {
    if typed != "-" {
        return Ok(typed.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(MAX_TICKET_LEN)
        .read_to_string(&mut text)
        .map_err(|e| Failure::new(Exit::Failed, format!("standard input: {e}")))?;
    // What `warp portal invite` printed, or the ticket alone.
    let word = text.split_whitespace().find(|word| word.to_ascii_lowercase().starts_with("warp1"));
    word.map(str::to_owned).ok_or_else(|| {
        Failure::new(Exit::Usage, "standard input: there is no ticket in it")
            .hint("a ticket is the word that begins with `warp1`")
    })
}

pub(super) fn expire(args: &PortalExpire, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let ask = ExpireIn {
        portal: args.name.clone(),
        member: args.member.clone(),
        invites: args.invites,
        when: when(args)?,
    };
    let done: Expired = known(&home, &args.name)?.ask_unlocked(
        &args.passphrase,
        Method::DELETE,
        "/v1/invites",
        &ask,
    )?;
    if ui.json {
        let (name, id) = done.member.clone().unzip();
        let document = json!({
            "portal": args.name, "member": name, "id": id, "invites": done.invites, "at": done.at,
        });
        ui.print(&document.to_string())?;
    }
    match done.member {
        Some((name, id)) if args.never => {
            ui.summary(&format!("{name} ({}) is a member for good", short(&id)));
        }
        Some((name, id)) if args.after.is_some() || args.at.is_some() => {
            let until = done.at.map_or("-".into(), |at| show::time(time(at)));
            ui.summary(&format!("{name} ({}) is a member until {until}", short(&id)));
        }
        Some((name, id)) => {
            ui.summary(&format!("{name} ({}) is a member no more", short(&id)));
            ui.summary("it keeps what it has read; what is written from now on it cannot read");
        }
        None => match done.invites {
            0 => ui.summary("no ticket was open"),
            1 => ui.summary("1 ticket was open, and is good no more"),
            n => ui.summary(&format!("{n} tickets were open, and are good no more")),
        },
    }
    Ok(Exit::Ok)
}

/// When a membership is to end. A time that is past is a mistake: nothing can
/// be taken back from then on.
fn when(args: &PortalExpire) -> Result<When> {
    let Some(typed) = &args.at else {
        return Ok(match args.after {
            Some(after) => When::After(after.as_secs()),
            None if args.never => When::Never,
            None => When::Now,
        });
    };
    let now = i64::try_from(now_secs()).unwrap_or(i64::MAX);
    let usage = |why: String| Failure::new(Exit::Usage, format!("--at {typed}: {why}"));
    let at =
        units::time(typed, now).map_err(|why| usage(why).hint("`--in 7d` counts from now on"))?;
    match u64::try_from(at) {
        Ok(future) if at > now => Ok(When::At(future)),
        _ => Err(usage("that time is past".into())
            .hint("without `--at` the membership ends now; `--in 2h` counts from now on")),
    }
}

pub(super) fn members(args: &PortalStatus, ui: &Ui) -> Result<Exit> {
    let home = Home::from_environment()?;
    let ask = NamePortal { name: args.name.clone() };
    let rows: Vec<MemberRow> = known(&home, &args.name)?.ask_unlocked(
        &args.passphrase,
        Method::POST,
        "/v1/portals/members",
        &ask,
    )?;
    if ui.json {
        let rows: Vec<_> = rows.iter().map(member_document).collect();
        ui.print(&json!({ "portal": args.name, "members": rows }).to_string())?;
        return Ok(Exit::Ok);
    }
    for row in &rows {
        ui.print(&member_line(row))?;
    }
    if rows.is_empty() {
        let typed = show::word(Path::new(&args.name));
        ui.summary(&format!(
            "nobody was ever invited to it.  Invite a device: warp portal invite {typed}"
        ));
    }
    Ok(Exit::Ok)
}

fn member_document(row: &MemberRow) -> Value {
    json!({
        "name": row.name,
        "id": row.id,
        "here": row.here,
        "founder": row.founder,
        "capability": row.capability,
        "may_invite": row.may_invite,
        "since": row.since,
        "expires": row.expires,
        "expired": row.expired,
    })
}

/// A member in a list: name, id, what it may do, and since and until when.
fn member_line(row: &MemberRow) -> String {
    let mut told = format!("since {}", show::time(time(row.since)));
    if let Some(at) = row.expires {
        let word = if row.expired { "expired" } else { "until" };
        told.push_str(&format!(", {word} {}", show::time(time(at))));
    }
    let notes = [
        (row.founder, "made it"),
        (row.may_invite && !row.founder, "may invite"),
        (row.here, "this device"),
    ];
    for (_, note) in notes.into_iter().filter(|(is_so, _)| *is_so) {
        told.push_str(", ");
        told.push_str(note);
    }
    format!("{:<20} {}  {:<9}  {told}", row.name, short(&row.id), row.capability)
}

pub(super) fn peers(args: &Peers, ui: &Ui) -> Result<Exit> {
    let (None | Some(PeersVerb::Ls)) = args.verb;
    let home = Home::from_environment()?;
    let rows: Vec<PeerRow> = if home.read_keyring()?.is_none() {
        Vec::new()
    } else {
        let mut daemon = Daemon::started(&home)?;
        daemon.ask_unlocked(&args.passphrase, Method::GET, "/v1/peers", &())?
    };
    if ui.json {
        let rows: Vec<_> = rows.iter().map(document).collect();
        ui.print(&json!({ "peers": rows }).to_string())?;
        return Ok(Exit::Ok);
    }
    for row in &rows {
        ui.print(&line(row))?;
    }
    if rows.is_empty() {
        ui.summary("no other device yet.  Invite one: warp portal invite NAME");
    }
    Ok(Exit::Ok)
}

/// A device in a document.
pub(super) fn document(row: &PeerRow) -> Value {
    json!({
        "name": row.name,
        "id": row.id,
        "portal": row.portal,
        "capability": row.capability,
        "connected": row.connected,
        "address": row.address,
        "rtt_us": row.rtt_us,
        "received_bytes": row.received_bytes,
    })
}

/// A device in a list: name, id, portal, what it may do, and how it is reached.
pub(super) fn line(row: &PeerRow) -> String {
    let how = match (row.rtt_us, &row.address) {
        (Some(rtt), Some(address)) => format!("direct {:.1} ms  {address}", rtt as f64 / 1000.0),
        (None, Some(address)) => format!("not connected, last at {address}"),
        _ => "not connected".into(),
    };
    let given = match row.received_bytes {
        0 => String::new(),
        bytes => format!("  {} received", show::size(bytes)),
    };
    let (name, id) = (&row.name, short(&row.id));
    format!("{name:<20} {id}  {:<20} {:<9}  {how}{given}", row.portal, row.capability)
}

fn time(secs: u64) -> Time {
    Time { secs: i64::try_from(secs).unwrap_or(i64::MAX), nanos: 0 }
}
