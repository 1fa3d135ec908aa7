//! Pauses between retries, and reminders.

use crate::pg::clock::{Tick, after};
use std::time::Duration;

/// A pause before the next try: one second at first, then twice as long each time, up to a minute.
#[derive(Default)]
pub struct Backoff {
    length: Option<Duration>,
    until: Option<Tick>,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    pub fn new() -> Backoff {
        Backoff::default()
    }

    /// Begins a pause after another failure. Returns its length.
    pub fn longer(&mut self, now: Tick) -> Duration {
        let length = self.length.map_or(Self::SHORTEST, |length| (length * 2).min(Self::LONGEST));
        self.length = Some(length);
        self.until = Some(after(now, length));
        length
    }

    /// Starts over after a success.
    pub fn over(&mut self) {
        *self = Backoff::new();
    }

    /// Returns when to try again; `None` means at once.
    pub fn until(&self) -> Option<Tick> {
        self.until
    }
}

/// Repeats a log line every ten minutes while its cause lasts.
#[derive(Default)]
pub struct Reminder {
    next: Option<Tick>,
}

impl Reminder {
    const AGAIN: Duration = Duration::from_secs(600);

    /// Returns true if the line is due: once its cause has lasted for `at_first`, and every ten minutes from then on.
    pub fn is_due(&mut self, now: Tick, at_first: Duration) -> bool {
        let is_due = *self.next.get_or_insert(after(now, at_first)) <= now;
        if is_due {
            self.next = Some(after(now, Self::AGAIN));
        }
        is_due
    }

    /// Returns when the line is due next.
    pub fn next(&self) -> Option<Tick> {
        self.next
    }

    /// Forgets the cause, as it is over.
    pub fn over(&mut self) {
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminds_after_a_while_and_then_every_ten_minutes() {
        let second = 1_000_000;
        let minute = Duration::from_secs(60);
        let mut reminder = Reminder::default();
        let said: Vec<i64> = (0..1500).filter(|s| reminder.is_due(s * second, minute)).collect();
        assert_eq!(said, [60, 660, 1260]);
        reminder.over();
        assert!(reminder.is_due(1500 * second, Duration::ZERO));
    }

    #[test]
    fn grows_to_a_minute_and_starts_over() {
        let mut pause = Backoff::new();
        let lengths: Vec<_> = (0..8).map(|_| pause.longer(0).as_secs()).collect();
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause.until(), Some(60_000_000));
        pause.over();
        assert_eq!(pause.until(), None);
        assert_eq!(pause.longer(5).as_secs(), 1);
    }
}
