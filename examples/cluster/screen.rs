//! What a person reads. Colour only on a terminal, and not if `NO_COLOR` asks for none.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const DIM: &str = "2";
const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31";

#[derive(Clone)]
pub struct Screen {
    begun: Instant,
    colour: bool,
    steps: Arc<AtomicUsize>,
}

impl Screen {
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            begun: Instant::now(),
            colour,
            steps: Arc::default(),
        }
    }

    pub fn title(&self, text: &str) {
        print(&self.paint(BOLD, text));
    }

    /// A new step begins.
    pub fn step(&self, title: &str) {
        let step = 1 + self.steps.fetch_add(1, Ordering::Relaxed);
        print("");
        self.line(&self.paint(BOLD, &format!("{step}. {title}")));
    }

    /// A node saw or did something.
    pub fn node(&self, name: &str, text: &str) {
        self.line(&format!("   {name:<10}{text}"));
    }

    /// The step held.
    pub fn held(&self, text: &str) {
        self.line(&format!(" {} {text}", self.paint(GREEN, "✓")));
    }

    pub fn end(&self) {
        let steps = self.steps.load(Ordering::Relaxed);
        let seconds = self.begun.elapsed().as_secs_f64();
        print("");
        let text = format!("All {steps} steps held, in {seconds:.1} s.");
        print(&self.paint(GREEN, &text));
    }

    pub fn failed(&self, reason: &str) {
        let step = self.steps.load(Ordering::Relaxed);
        self.line(&format!(" {} {reason}", self.paint(RED, "✗")));
        print("");
        print(&self.paint(RED, &format!("Step {step} did not hold.")));
        // Also where the output of a failed run in CI is looked for.
        if !std::io::stdout().is_terminal() {
            eprintln!("step {step} did not hold: {reason}");
        }
    }

    fn line(&self, text: &str) {
        let seconds = format!("{:6.2} s", self.begun.elapsed().as_secs_f64());
        print(&format!("{}  {text}", self.paint(DIM, &seconds)));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_string(),
        }
    }
}

/// Nobody may be reading any more; the story is checked all the same.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
