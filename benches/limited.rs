//! What a limit costs the jobs that fall under it, and how long a tenant waits beside another with many jobs.

use crate::contest::{compete, ratio};
use crate::drains::{WORKERS, ours};
use crate::fairness;
use crate::queue::{Queue, Task};
use crate::report::{Section, Target};
use crate::server::{Server, run};

const HOW: &str = "Plain jobs, and jobs that are counted because a limit concerns them. One by concurrency 1000 is never reached; \
    the others are by `by := 'tenant'`, for 100 tenants in turn, and by `rate`, which lets more begin than can.";

const WRITE: Task = Task::new("write", 1);
const TENANT: &str = "json_build_object('n', n, 'tenant', n % 100)";

const LIMITED: [(&str, Task, Target); 3] = [
    ("concurrency", Task { variant: "_limited", options: ", concurrency => 1000", ..WRITE }, Target::AtLeast(0.8)),
    ("concurrency by key", Task { variant: "_by_key", payload: TENANT, ..WRITE }, Target::AtLeast(0.8)),
    ("rate", Task { variant: "_rate", ..WRITE }, Target::AtLeast(0.8)),
];

const LIMITS: &str = "
    select kongtask.set_limit('tenants', tasks := '{write_1_by_key}', by := 'tenant', concurrency := 2),
           kongtask.set_limit('rate', tasks := '{write_1_rate}', rate := 1000000, per := '1 second', burst := 1000)";

pub fn measure(server: &Server, section: &mut Section) {
    section.note(HOW);
    server.synchronous_commit("on");
    let queue = Queue::create(server, "kong_limits");
    section.heading("A handler that writes a row, one transaction a job, synchronous_commit = on");
    let mut contenders = vec![ours(&queue, &WRITE, "plain".into(), WORKERS)];
    contenders.extend(LIMITED.iter().map(|(name, task, _)| ours(&queue, task, (*name).into(), WORKERS)));
    if let Err(error) = run(&mut queue.connect(), LIMITS) {
        section.failed("the limits", &error);
    }
    let standings = compete(section, contenders);
    for (name, _, target) in LIMITED {
        let (measured, settings) = ratio(&standings, name, "plain");
        section.require(&format!("jobs limited by {name}, to plain"), &settings, measured, target);
    }
    fairness::measure(&queue, section);
    server.serve_nobody();
    server.drop(&queue.database);
}
