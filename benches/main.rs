//! Every figure in one run: the queue beside others, and beside what the same server does at best. Whatever is compared
//! runs on one server in turns, as a machine's speed drifts; what is told is the median of the rounds.
//!
//! Arguments name the measures to run; none means all. What else the last run has found is kept beside them. ROUNDS (3) is
//! how often each is repeated, and SCALE (1) multiplies how many jobs it takes, for a quick look. `page` measures nothing: it
//! makes the page of the documentation from what the last run has found.

mod backlogs;
mod chart;
mod claimed;
mod contest;
mod databases;
mod docs;
mod drains;
mod enqueue;
mod environment;
mod fairness;
mod footprint;
mod history;
mod indexes;
mod latency;
mod limited;
mod limits;
mod load;
mod mixed;
mod page;
mod peer_process;
mod peers;
mod pgbench;
mod queue;
mod report;
mod schedules;
mod server;
mod wal;

use report::{Report, Section};
use server::Server;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What went wrong is told in the report, beside what went right.
type Outcome<T> = Result<T, String>;

struct Measure {
    name: &'static str,
    run: fn(&Server, &mut Section),
}

const MEASURES: &[Measure] = &[
    Measure { name: "writing", run: drains::writing },
    Measure { name: "empty", run: drains::empty },
    Measure { name: "claimed", run: claimed::measure },
    Measure { name: "limits", run: limited::measure },
    Measure { name: "history", run: history::measure },
    Measure { name: "latency", run: latency::measure },
    Measure { name: "load", run: load::measure },
    Measure { name: "first", run: latency::after_idleness },
    Measure { name: "databases", run: databases::measure },
    Measure { name: "add_job", run: enqueue::one_connection },
    Measure { name: "connections", run: enqueue::many_connections },
    Measure { name: "indexes", run: indexes::measure },
    Measure { name: "mixed", run: mixed::measure },
    Measure { name: "xmin", run: backlogs::held_xmin },
    Measure { name: "backlogs", run: backlogs::backlogs },
    Measure { name: "wal", run: wal::measure },
    Measure { name: "schedules", run: schedules::measure },
    Measure { name: "memory", run: footprint::memory },
    Measure { name: "startup", run: footprint::startup },
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if asked == ["page"] {
        if let Err(error) = Report::last().and_then(|report| report.document()) {
            eprintln!("{error}");
            std::process::exit(1);
        }
        return;
    }
    let names: Vec<&str> = MEASURES.iter().map(|measure| measure.name).collect();
    if let Some(unknown) = asked.iter().find(|name| !names.contains(&name.as_str())) {
        eprintln!("no measure is called {unknown}; there are: {}", names.join(" "));
        std::process::exit(2);
    }
    let server = Server::start();
    let mut report = Report::of(environment::describe(&server));
    if !asked.is_empty() {
        report.keep_last();
    }
    for measure in MEASURES.iter().filter(|measure| asked.is_empty() || asked.iter().any(|name| name == measure.name)) {
        let begun = Instant::now();
        let mut section = Section::new(measure.name);
        // What the kit cannot do is a panic; the other measures can go on.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (measure.run)(&server, &mut section))) {
            let told = panic.downcast_ref::<String>().cloned();
            section.failed(measure.name, &told.unwrap_or_else(|| "it panicked".into()));
        }
        section.end(begun);
        report.add(section, &names);
    }
    report.finish();
}
