//! The proxy's resident memory, sampled.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Growth from the second quarter to the last that nobody calls growth, in KiB.
const SLACK: u64 = 8 << 10;

/// Samples in KiB, in order.
#[derive(Debug, Default)]
pub struct Memory(Vec<u64>);

impl Memory {
    /// Looks at the process for so long.
    pub fn watch(process: u32, length: Duration) -> Self {
        let end = Instant::now() + length;
        let mut samples = Vec::new();
        while Instant::now() < end {
            samples.extend(resident(process));
            thread::sleep(EVERY);
        }
        Self(samples)
    }

    /// The mean of one quarter of the time.
    fn quarter(&self, which: usize) -> u64 {
        let quarter = self.0.len() / 4;
        let samples = self.0.get(which * quarter..(which + 1) * quarter);
        let samples = samples.unwrap_or_default();
        let count = u64::try_from(samples.len()).unwrap_or(0).max(1);
        samples.iter().sum::<u64>() / count
    }

    pub fn table(&self) -> String {
        let at = |place: usize| self.0.get(place).copied().unwrap_or(0) / 1024;
        format!(
            "resident memory: {} MiB at the start, {} in the middle, {} at the end, {} at most; \
             means of the quarters: {} {} {} {} MiB",
            at(0),
            at(self.0.len() / 2),
            at(self.0.len().saturating_sub(1)),
            self.0.iter().max().unwrap_or(&0) / 1024,
            self.quarter(0) / 1024,
            self.quarter(1) / 1024,
            self.quarter(2) / 1024,
            self.quarter(3) / 1024,
        )
    }

    pub fn broken(&self) -> Option<String> {
        let (early, late) = (self.quarter(1), self.quarter(3));
        // A tenth is what the allocator keeps or gives back at its own time.
        (early == 0 || late > early + early / 10 + SLACK)
            .then(|| format!("memory grew from {early} to {late} KiB"))
    }
}

fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
