//! What the audience sees: headings, real output, and whether each step went as told.

use std::time::Instant;

/// The story's record.
#[derive(Debug)]
pub struct Show {
    started: Instant,
    steps: Vec<(String, Vec<String>)>,
}

impl Default for Show {
    fn default() -> Self {
        Show {
            started: Instant::now(),
            steps: Vec::new(),
        }
    }
}

impl Show {
    /// A line of preparation.
    pub fn progress(&self, what: &str) {
        println!("[{:5.1} s] {what}", self.started.elapsed().as_secs_f64());
    }

    /// A new step of the story with one line on what it shows.
    pub fn step(&mut self, title: &str, explanation: &str) {
        let number = self.steps.len() + 1;
        println!("\n== {number}. {title}\n   {explanation}");
        self.steps.push((title.to_owned(), Vec::new()));
    }

    /// Something typed by `who`.
    pub fn typed(&self, who: &str, what: &str) {
        println!("\n   {who}> {}", what.trim().replace('\n', "\n   > "));
    }

    /// Real output, at most `most` lines of it.
    pub fn output(&self, text: &str, most: usize) {
        let lines: Vec<&str> = text.trim_end().lines().collect();
        for line in lines.iter().take(most) {
            println!("     | {line}");
        }
        if let Some(more) = lines.len().checked_sub(most).filter(|more| *more > 0) {
            println!("     | ... {more} more lines");
        }
    }

    /// One thing that must be so.
    pub fn check(&mut self, what: &str, so: bool) {
        println!("   {} {what}", if so { "ok " } else { "NOT" });
        if let Some((_, failures)) = self.steps.last_mut().filter(|_| !so) {
            failures.push(what.to_owned());
        }
    }

    /// A step that could not be played to its end.
    pub fn broken(&mut self, error: &dyn std::error::Error) {
        self.output(&error.to_string(), 30);
        self.check("the step could be played", false);
    }

    /// PASS or FAIL per step; whether all passed.
    pub fn verdict(&self) -> bool {
        println!(
            "\n== How it went ({:.1} s)",
            self.started.elapsed().as_secs_f64()
        );
        for (index, (title, failures)) in self.steps.iter().enumerate() {
            let word = if failures.is_empty() { "PASS" } else { "FAIL" };
            println!("   {word}  {}. {title}", index + 1);
            for failure in failures {
                println!("         not so: {failure}");
            }
        }
        self.passed()
    }

    /// Whether all steps went as told so far.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|(_, failures)| failures.is_empty())
    }
}
