//! What a person sees while something takes long.
//!
//! On a terminal: a spinner with the elapsed time and the last words of the running command. Anywhere else (a log, a
//! pipe): the same as a plain line when it begins, every [`BEAT`], and when it ends.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line says that we are still there.
const BEAT: Duration = Duration::from_secs(5);

/// Longest detail that is shown, in characters.
const DETAIL: usize = 70;

/// One thing that is being done.
pub(crate) struct Progress {
    label: String,
    began: Instant,
    shown: Shown,
}

enum Shown {
    Spinner(ProgressBar),
    Lines { detail: Arc<Mutex<String>>, stop: Option<Sender<()>>, beat: Option<JoinHandle<()>> },
}

impl Progress {
    /// Begins; `label` says what is done and why.
    pub(crate) fn start(label: impl Into<String>) -> Progress {
        let label = label.into();
        let began = Instant::now();
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner:.cyan} {prefix} [{elapsed}] {msg:.dim}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_prefix(label.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            Shown::Spinner(bar)
        } else {
            eprintln!("  … {label}");
            let detail = Arc::new(Mutex::new(String::new()));
            let (stop, stopped) = channel::<()>();
            let beat = std::thread::spawn({
                let (label, detail) = (label.clone(), Arc::clone(&detail));
                move || {
                    while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                        let words = detail.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        let topic = label.split(':').next().unwrap_or_default();
                        eprintln!("  … {topic}, {} s: {words}", began.elapsed().as_secs());
                    }
                }
            });
            Shown::Lines { detail, stop: Some(stop), beat: Some(beat) }
        };
        Progress { label, began, shown }
    }

    /// What it is at right now.
    pub(crate) fn detail(&self, words: &str) {
        let words: String = words.trim().chars().filter(|c| !c.is_control()).take(DETAIL).collect();
        if words.is_empty() {
            return;
        }
        match &self.shown {
            Shown::Spinner(bar) => bar.set_message(words),
            Shown::Lines { detail, .. } => {
                *detail.lock().unwrap_or_else(PoisonError::into_inner) = words;
            }
        }
    }

    /// It is done. `outcome` may add what came of it.
    pub(crate) fn done(mut self, outcome: &str) {
        self.stop();
        let took = seconds(self.began.elapsed());
        let gap = if outcome.is_empty() { "" } else { ", " };
        eprintln!("  ✓ {}{gap}{outcome} ({took})", self.label);
    }

    fn stop(&mut self) {
        match &mut self.shown {
            Shown::Spinner(bar) => bar.finish_and_clear(),
            Shown::Lines { stop, beat, .. } => {
                drop(stop.take());
                if let Some(beat) = beat.take() {
                    // A beat that panicked has nothing left to say.
                    let _ = beat.join();
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A duration as people read it.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        assert_eq!(seconds(Duration::from_millis(1240)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(725)), "12 min 05 s");
    }
}
