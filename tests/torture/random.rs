//! Numbers at random that a seed repeats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// splitmix64.
pub struct Random(u64);

impl Random {
    /// The sequence of a thread in a run.
    pub fn new(seed: u64, thread: u64) -> Random {
        Random(seed ^ thread.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The seed of this run: that of SEED, or a new one.
    pub fn seed() -> u64 {
        let given = std::env::var("SEED").ok();
        given.map_or_else(now, |seed| seed.parse().expect("SEED is a number"))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether something comes true that does once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of those, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for &(weight, choice) in choices {
            if at < weight {
                return choice;
            }
            at -= weight;
        }
        unreachable!("the weights add up to more than what is below their sum")
    }

    /// Less than `most`.
    pub fn time(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as u64
}
