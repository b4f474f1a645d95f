//! A progress bar on standard error, on a terminal only.

use crate::report::Ui;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use warp_flow::Progress;

/// Shows a job's progress until it is dropped.
pub(crate) struct Bar {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the job counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Bytes,
    Chunks,
}

impl Bar {
    /// False where nobody would see it.
    pub(crate) fn is_wanted(ui: &Ui) -> bool {
        !ui.quiet && !ui.json && std::io::stderr().is_terminal()
    }

    pub(crate) fn show(ui: &Ui, unit: Unit, progress: &Arc<Progress>) -> Self {
        if !Self::is_wanted(ui) {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = channel();
        let progress = Arc::clone(progress);
        let thread = std::thread::spawn(move || {
            let bar = ProgressBar::new(0).with_style(style(unit));
            while matches!(
                stopped.recv_timeout(Duration::from_millis(100)),
                Err(RecvTimeoutError::Timeout)
            ) {
                bar.set_length(progress.total().max(progress.done()));
                bar.set_position(progress.done());
                bar.set_message(format!("{} files", progress.files()));
            }
            bar.finish_and_clear();
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

fn style(unit: Unit) -> ProgressStyle {
    let template = match unit {
        Unit::Bytes => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg} eta {eta}",
        Unit::Chunks => "{bar:30} {pos}/{len} chunks eta {eta}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
