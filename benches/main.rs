//! Every figure in one run: the queue beside others, and beside what the same server does at best. Whatever is compared
//! runs on one server in turns, as a machine's speed drifts; what is told is the median of the rounds.
//!
//! Arguments name the measures to run; none means all. ROUNDS (3) is how often each is repeated, and SCALE (1)
//! multiplies how many jobs it takes, for a quick look.

mod backlogs;
mod chart;
mod contest;
mod drains;
mod enqueue;
mod environment;
mod footprint;
mod indexes;
mod latency;
mod limits;
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

/// What went wrong is told in the report, beside what went right.
type Outcome<T> = Result<T, String>;

struct Measure {
    name: &'static str,
    run: fn(&Server, &mut Section),
}

const MEASURES: &[Measure] = &[
    Measure { name: "writing", run: drains::writing },
    Measure { name: "empty", run: drains::empty },
    Measure { name: "latency", run: latency::measure },
    Measure { name: "first", run: latency::after_idleness },
    Measure { name: "add_job", run: enqueue::one_connection },
    Measure { name: "connections", run: enqueue::many_connections },
    Measure { name: "indexes", run: indexes::measure },
    Measure { name: "xmin", run: backlogs::held_xmin },
    Measure { name: "backlogs", run: backlogs::backlogs },
    Measure { name: "wal", run: wal::measure },
    Measure { name: "schedules", run: schedules::measure },
    Measure { name: "memory", run: footprint::memory },
    Measure { name: "startup", run: footprint::startup },
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| MEASURES.iter().any(|measure| measure.name == name);
    if let Some(unknown) = asked.iter().find(|name| !known(name)) {
        let names: Vec<&str> = MEASURES.iter().map(|measure| measure.name).collect();
        eprintln!("no measure is called {unknown}; there are: {}", names.join(" "));
        std::process::exit(2);
    }
    let server = Server::start();
    let mut report = Report::of(environment::describe(&server));
    for measure in MEASURES.iter().filter(|measure| asked.is_empty() || asked.iter().any(|name| name == measure.name)) {
        let mut section = Section::new(measure.name);
        // What the kit cannot do is a panic; the other measures can go on.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (measure.run)(&server, &mut section))) {
            let told = panic.downcast_ref::<String>().cloned();
            section.failed(measure.name, &told.unwrap_or_else(|| "it panicked".into()));
        }
        report.add(section);
    }
    report.finish();
}
