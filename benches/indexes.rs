//! What each index of the table of jobs costs whoever adds jobs: an INSERT into a table like it, with all indexes, and without
//! each in turn.

use crate::contest::{Contender, compete};
use crate::enqueue::{insert, statements};
use crate::pgbench::{Commits, Load, run_pgbench};
use crate::queue::{Queue, Task};
use crate::report::{Section, number};
use crate::server::{Server, run};
use kongtask_tests::rows;

const HOW: &str = "INSERTs of a job without key and queue into a table like jobs, by pgbench, one prepared statement a job, one \
    connection, 50 in one transaction, pipelined; synchronous_commit off.";

/// Our indexes, and what the index of a copy is on.
const INDEXES: &str = "select relname, substring(pg_get_indexdef(indexrelid) from 'USING .*')
    from pg_index join pg_class on pg_class.oid = indexrelid
    where indrelid = 'graphile_worker.jobs'::regclass order by 1";

pub fn measure(server: &Server, section: &mut Section) {
    section.note(HOW);
    server.synchronous_commit("off");
    let queue = Queue::create(server, "kong_indexes");
    let names: Vec<(String, String)> = rows(&mut queue.connect(), INDEXES)
        .iter()
        .filter_map(|row| row.split_once('|').map(|(name, on)| (name.to_string(), on.to_string())))
        .collect();
    let mut contenders = vec![contender(&queue, "all indexes", "whole", &names, None)];
    for (n, (name, _)) in names.iter().enumerate() {
        contenders.push(contender(&queue, &format!("without {name}"), &format!("without_{n}"), &names, Some(n)));
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
    server.drop(&queue.database);
}

fn contender<'a>(
    queue: &'a Queue,
    name: &str,
    table: &str,
    indexes: &[(String, String)],
    without: Option<usize>,
) -> Contender<'a> {
    let mut prepare =
        format!("create table {table} (like graphile_worker.jobs including defaults including constraints)");
    for (_, (_, on)) in indexes.iter().enumerate().filter(|(n, _)| Some(*n) != without) {
        prepare.push_str(&format!("; create index on {table} {on}"));
    }
    let prepared = run(&mut queue.connect(), &prepare);
    let statement = insert(&Task::new("empty", 1), false).replace("into plain", &format!("into {table}"));
    let table = table.to_string();
    statements(name, "one connection", move |jobs| {
        prepared.clone()?;
        run(&mut queue.connect(), &format!("truncate {table}"))?;
        let load = Load { statement: &statement, connections: 1, commits: Commits::Pipelined };
        run_pgbench(queue.server, &queue.database, &load, jobs)
    })
}
