//! Trying again, after pauses that grow.

use crate::pg::clock::{Tick, after};
use std::time::Duration;

/// A pause before the next try: a second at first, twice as long each time, a minute at most.
#[derive(Default)]
pub struct Pause {
    length: Option<Duration>,
    until: Option<Tick>,
}

impl Pause {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    pub fn new() -> Pause {
        Pause::default()
    }

    /// It failed again: pauses from `now` on; for how long.
    pub fn longer(&mut self, now: Tick) -> Duration {
        let length = self.length.map_or(Self::SHORTEST, |length| (length * 2).min(Self::LONGEST));
        self.length = Some(length);
        self.until = Some(after(now, length));
        length
    }

    /// It worked.
    pub fn over(&mut self) {
        *self = Pause::new();
    }

    /// When to try again; `None`: at once.
    pub fn until(&self) -> Option<Tick> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_minute_and_starts_over() {
        let mut pause = Pause::new();
        let lengths: Vec<_> = (0..8).map(|_| pause.longer(0).as_secs()).collect();
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause.until(), Some(60_000_000));
        pause.over();
        assert_eq!(pause.until(), None);
        assert_eq!(pause.longer(5).as_secs(), 1);
    }
}
