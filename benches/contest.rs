//! Who runs how many jobs a second: each contender first tries its settings, and then all take turns, each at its best.

use crate::Outcome;
use crate::report::{Section, number};
use crate::server::{median, rounds, scale};
use std::cell::Cell;
use std::rc::Rc;

/// Runs this many jobs with the setting of this index, and says how many a second.
type Run<'a> = Box<dyn FnMut(usize, usize) -> Outcome<f64> + 'a>;

pub struct Contender<'a> {
    pub name: String,
    /// What can be chosen from, as it is to be told.
    pub settings: Vec<String>,
    /// How many jobs it takes to tell its settings apart.
    pub trial: usize,
    /// The best of its settings, once that has been tried out. Others that share it need not try.
    pub settled: Rc<Cell<Option<usize>>>,
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

/// The most that a drain is long, in jobs and in seconds.
const MOST: f64 = 400_000.0;
const SECONDS: f64 = 2.0;

pub fn compete(section: &mut Section, mut contenders: Vec<Contender>) -> Vec<Standing> {
    let mut standings: Vec<(usize, Standing)> = contenders.iter_mut().map(try_settings).collect();
    for _ in 0..rounds() {
        for (contender, (best, standing)) in contenders.iter_mut().zip(&mut standings) {
            let Ok(rates) = &mut standing.rates else { continue };
            let outcome = (contender.run)(*best, standing.jobs);
            progress(&standing.name, &standing.settings, standing.jobs, &outcome);
            match outcome {
                Ok(rate) => rates.push(rate),
                Err(error) => standing.rates = Err(error),
            }
        }
    }
    let standings: Vec<Standing> = standings.into_iter().map(|(_, standing)| standing).collect();
    tell(section, &standings);
    standings
}

/// For those that watch.
fn progress(name: &str, settings: &str, jobs: usize, outcome: &Outcome<f64>) {
    let told = outcome.as_ref().map_or_else(Clone::clone, |rate| number(*rate) + "/s");
    eprintln!("    {name}; {settings}; {jobs} jobs: {told}");
}

fn try_settings(contender: &mut Contender) -> (usize, Standing) {
    let settings: Vec<usize> =
        contender.settled.get().map_or_else(|| (0..contender.settings.len()).collect(), |known| vec![known]);
    // Not much shorter for a quick look: what comes in bursts would win.
    let most = contender.trial as f64 * scale().clamp(0.25, 1.0);
    let mut trial = most;
    let mut tried: Vec<(usize, Outcome<f64>)> = Vec::new();
    for setting in settings {
        let outcome = (contender.run)(setting, trial as usize);
        progress(&contender.name, &contender.settings[setting], trial as usize, &outcome);
        if let Ok(rate) = outcome {
            trial = rate.clamp(most / 4.0, most);
        }
        tried.push((setting, outcome));
    }
    let rate = |tried: &(usize, Outcome<f64>)| tried.1.clone().unwrap_or(0.0);
    let (best, outcome) = tried.iter().max_by(|a, b| rate(a).total_cmp(&rate(b))).expect("a setting").clone();
    contender.settled.set(outcome.is_ok().then_some(best));
    let jobs = outcome.as_ref().map_or(0.0, |rate| (rate * SECONDS * scale()).clamp(most / 4.0, MOST)) as usize;
    let told = |setting: usize| contender.settings[setting].clone();
    let standing = Standing {
        name: contender.name.clone(),
        settings: told(best),
        jobs,
        tried: tried.into_iter().map(|(setting, outcome)| (told(setting), outcome)).collect(),
        rates: outcome.map(|_| Vec::new()),
    };
    (best, standing)
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
            section.detail(&format!("{} tried {}", standing.name, tried.join("; ")));
        }
    }
    let bars: Vec<(String, f64)> =
        standings.iter().filter_map(|standing| Some((standing.name.clone(), standing.rate().ok()?))).collect();
    section.chart("jobs a second", &bars);
}

/// The rate of one to another's, by their names, and the settings of both.
pub fn ratio(standings: &[Standing], one: &str, other: &str) -> (Outcome<f64>, String) {
    let find = |name: &str| standings.iter().find(|standing| standing.name == name).ok_or(format!("no {name}"));
    let settings: Vec<&str> = [one, other].iter().filter_map(|name| Some(find(name).ok()?.settings.as_str())).collect();
    let ratio = || Ok(find(one)?.rate()? / find(other)?.rate()?);
    (ratio(), settings.join(" against "))
}
