//! What each index of the table of jobs costs whoever adds jobs: a database for each, without that index.

use crate::contest::{Contender, compete};
use crate::enqueue::{add_job, statements};
use crate::pgbench::{Commits, Load, run_pgbench};
use crate::queue::{Queue, Task};
use crate::report::{Section, number};
use crate::server::{Server, run};
use kongtask_tests::rows;

const HOW: &str = "add_job by pgbench, one prepared statement a job, one connection, 50 in one transaction, pipelined; \
    synchronous_commit off, kongtask.workers 0";

/// The statement that drops each.
const INDEXES: &str = "select index.relname, case
      when con.conname is null then format('drop index graphile_worker.%I', index.relname)
      else format('alter table graphile_worker.jobs drop constraint %I', con.conname)
    end
    from pg_index join pg_class index on index.oid = indexrelid
    left join pg_constraint con on con.conindid = indexrelid and con.contype in ('p', 'u', 'x')
    where indrelid = 'graphile_worker.jobs'::regclass order by 1";

pub fn measure(server: &Server, section: &mut Section) {
    section.note(HOW);
    server.synchronous_commit("off");
    let task = Task::new("empty", 1);
    let whole = Queue::create(server, "kong_indexes");
    let names: Vec<(String, String)> = rows(&mut whole.connect(), INDEXES)
        .iter()
        .filter_map(|row| row.split_once('|').map(|(name, drop)| (name.to_string(), drop.to_string())))
        .collect();
    let add = add_job(&task);
    let without: Vec<Queue> = (0..names.len()).map(|i| Queue::create(server, &format!("kong_index_{i}"))).collect();
    let mut contenders = vec![contender(&whole, "all indexes", &task, &add, "select")];
    for (queue, (name, drop)) in without.iter().zip(&names) {
        contenders.push(contender(queue, &format!("without {name}"), &task, &add, drop));
    }
    let standings = compete(section, contenders);
    let cost = |rate: f64| 1e6 / rate;
    let all = standings[0].rate().map(cost);
    let table = names.iter().zip(&standings[1..]).map(|((name, _), standing)| {
        let microseconds = || Ok::<_, String>(all.clone()? - cost(standing.rate()?));
        let told = microseconds().map_or_else(|error| error, number);
        vec![name.clone(), told]
    });
    section.table(&["index", "µs that it adds to a job"], table.collect());
    [&whole].into_iter().chain(&without).for_each(|queue| server.drop(&queue.database));
}

fn contender<'a>(queue: &'a Queue, name: &str, task: &'a Task, add: &'a str, prepare: &str) -> Contender<'a> {
    let prepared = queue.register(task).and_then(|()| run(&mut queue.connect(), prepare));
    statements(name, "one connection", move |jobs| {
        prepared.clone()?;
        run(&mut queue.connect(), "truncate graphile_worker.jobs")?;
        run_pgbench(
            queue.server,
            &queue.database,
            &Load { statement: add, connections: 1, commits: Commits::Pipelined },
            jobs,
        )
    })
}
