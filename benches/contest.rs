//! Who runs how many jobs a second: each contender first tries its settings, and then all take turns, each at its best.

use crate::Outcome;
use crate::report::{Section, number};
use crate::server::{median, rounds, scale};

/// Runs this many jobs with the setting of this index, and says how many a second.
type Run<'a> = Box<dyn FnMut(usize, usize) -> Outcome<f64> + 'a>;

pub struct Contender<'a> {
    pub name: String,
    /// What can be chosen from, as it is to be told.
    pub settings: Vec<String>,
    /// How many jobs it takes to tell its settings apart.
    pub trial: usize,
    pub run: Run<'a>,
}

/// What a contender came to.
pub struct Standing {
    pub name: String,
    pub settings: String,
    pub jobs: usize,
    pub tried: Vec<(String, Outcome<f64>)>,
    pub rates: Outcome<Vec<f64>>,
}

impl Standing {
    pub fn rate(&self) -> Outcome<f64> {
        self.rates.clone().map(median)
    }
}

/// The most that a drain is long.
const MOST: f64 = 600_000.0;

pub fn compete(section: &mut Section, mut contenders: Vec<Contender>) -> Vec<Standing> {
    let mut standings: Vec<(usize, Standing)> = contenders.iter_mut().map(try_settings).collect();
    for _ in 0..rounds() {
        for (contender, (best, standing)) in contenders.iter_mut().zip(&mut standings) {
            let Ok(rates) = &mut standing.rates else { continue };
            match (contender.run)(*best, standing.jobs) {
                Ok(rate) => rates.push(rate),
                Err(error) => standing.rates = Err(error),
            }
        }
    }
    let standings: Vec<Standing> = standings.into_iter().map(|(_, standing)| standing).collect();
    tell(section, &standings);
    standings
}

fn try_settings(contender: &mut Contender) -> (usize, Standing) {
    // Not much shorter for a quick look: what comes in bursts would win.
    let trial = (contender.trial as f64 * scale().clamp(0.25, 1.0)) as usize;
    let tried: Vec<(String, Outcome<f64>)> =
        contender.settings.iter().enumerate().map(|(i, told)| (told.clone(), (contender.run)(i, trial))).collect();
    let rate = |i: &usize| tried[*i].1.clone().unwrap_or(0.0);
    let best = (0..tried.len()).max_by(|a, b| rate(a).total_cmp(&rate(b))).unwrap_or(0);
    let (settings, outcome) = tried[best].clone();
    // About three seconds' worth.
    let jobs = outcome.as_ref().map_or(0.0, |rate| (rate * 3.0 * scale()).clamp(trial as f64, MOST)) as usize;
    let rates = outcome.map(|_| Vec::new());
    (best, Standing { name: contender.name.clone(), settings, jobs, tried, rates })
}

fn tell(section: &mut Section, standings: &[Standing]) {
    let rows = standings.iter().map(|standing| {
        let rate = standing.rate().map_or_else(|_| "failed".into(), number);
        let range = standing.rates.as_ref().map_or_else(
            |_| String::new(),
            |rates| {
                let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
                format!("{}–{}", number(least), number(rates.iter().copied().fold(0.0, f64::max)))
            },
        );
        vec![standing.name.clone(), standing.settings.clone(), number(standing.jobs as f64), rate, range]
    });
    section.table(&["", "settings, the best of those tried", "jobs", "jobs/s", "range"], rows.collect());
    for standing in standings {
        if let Err(error) = &standing.rates {
            section.failed(&standing.name, error);
        }
        let tried: Vec<String> = (standing.tried.iter())
            .map(|(settings, rate)| {
                format!("{settings}: {}", rate.clone().map_or_else(|error| error, |rate| number(rate) + "/s"))
            })
            .collect();
        if tried.len() > 1 {
            section.note(&format!("{} tried {}", standing.name, tried.join("; ")));
        }
    }
    let bars: Vec<(String, f64)> =
        standings.iter().filter_map(|standing| Some((standing.name.clone(), standing.rate().ok()?))).collect();
    section.chart("jobs a second", &bars);
}
