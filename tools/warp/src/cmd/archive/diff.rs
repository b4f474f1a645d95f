//! `warp archive diff`.

use crate::args::Diff;
use crate::report::{Exit, Result, Ui, one_line};
use crate::{show, signals};
use serde_json::{Map, Value, json};
use std::io::{BufWriter, IsTerminal, Write};
use std::sync::Arc;
use warp_flow::{Change, FlowError, Progress};

pub(crate) fn run(args: &Diff, ui: &Ui) -> Result<Exit> {
    let a = super::open(&args.a, &args.passphrase)?;
    let b = super::open(&args.b, &args.passphrase)?;
    let progress = Arc::new(Progress::default());
    signals::stop_on_signal(&progress)?;
    let mut rows: Vec<Value> = Vec::new();
    let mut count = 0u64;
    let mut out = BufWriter::new(std::io::stdout());
    let terminal = std::io::stdout().is_terminal();
    let failed = |e| FlowError::io("standard output", e);
    warp_flow::diff(&a, &b, &progress, &mut |difference| {
        count += 1;
        let (letter, word) = match difference.change {
            Change::Added => ("A", "added"),
            Change::Removed => ("D", "removed"),
            Change::Content => ("M", "content"),
            Change::Attributes => ("m", "attributes"),
        };
        if ui.json {
            let mut row: Map<String, Value> = show::json_path(&difference.path)
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect();
            row.insert("change".into(), json!(word));
            rows.push(Value::Object(row));
            return Ok(());
        }
        let shown = one_line(&String::from_utf8_lossy(&difference.path));
        let name = if terminal { shown.as_bytes() } else { &difference.path };
        out.write_all(&[letter.as_bytes(), b" ", name, b"\n"].concat()).map_err(failed)
    })?;
    out.flush().map_err(failed)?;
    if ui.json {
        ui.print(&json!({ "differences": rows }).to_string())?;
    }
    Ok(if args.exit_code && count > 0 { Exit::Failed } else { Exit::Ok })
}
