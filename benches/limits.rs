//! What the server itself does at best, without any queue: an INSERT for each job, a DELETE of many at once, and a call
//! of the handler for each, in loops that run inside it.

use crate::Outcome;
use crate::contest::Contender;
use crate::queue::Queue;
use crate::server::{run, told};
use std::rc::Rc;
use std::time::Instant;

const LOOPS: &str = "
    create table plain (like graphile_worker.jobs including all);
    create procedure insert_loop(jobs int) language plpgsql as $$ begin
      for i in 1..jobs loop
        insert into plain (task_identifier, payload) values ('plain', json_build_object('n', i));
        commit;
      end loop;
    end $$;
    create procedure call_loop(jobs int) language plpgsql as $$ begin
      for i in 1..jobs loop
        perform write(json_build_object('n', i));
        commit;
      end loop;
    end $$;
    create procedure delete_loop(jobs int) language plpgsql as $$ begin
      for i in 1..jobs / 50 loop
        perform count(*) from delete_batch();
        commit;
      end loop;
    end $$;
    create function delete_batch() returns setof plain language sql as $$
      delete from plain
        where id in (
          select id from plain
          where attempts < max_attempts
          order by priority, run_at, id
          limit 50
          for update skip locked
        )
        returning *
    $$;";

const FILL: &str = "insert into plain (task_identifier, payload)
    select 'plain', json_build_object('n', n) from generate_series(1, JOBS) n";

/// Makes the loops in the queue's database.
pub fn prepare(queue: &Queue) {
    queue.connect().batch_execute(LOOPS).unwrap_or_else(|e| panic!("{}", told(e)));
}

pub fn contenders<'a>(queue: &'a Queue) -> Vec<Contender<'a>> {
    let contender = |name: &str, procedure: &'static str, is_full: bool| Contender {
        name: format!("the server alone: {name}"),
        settings: vec!["1 session".into()],
        trial: 5_000,
        settled: Rc::default(),
        run: Box::new(move |_, jobs| {
            queue.server.serve_nobody();
            run_loop(queue, procedure, is_full, jobs)
        }),
    };
    vec![
        contender("an INSERT, COMMIT a job", "insert_loop", false),
        contender("DELETE … RETURNING 50, COMMIT", "delete_loop", true),
        contender("a call of the handler, COMMIT a job", "call_loop", false),
    ]
}

fn run_loop(queue: &Queue, procedure: &str, is_full: bool, jobs: usize) -> Outcome<f64> {
    let mut db = queue.connect();
    run(&mut db, "truncate plain, effect")?;
    if is_full {
        run(&mut db, &FILL.replace("JOBS", &jobs.to_string()))?;
        run(&mut db, "vacuum analyze plain")?;
    }
    let begun = Instant::now();
    run(&mut db, &format!("call {procedure}({jobs})"))?;
    Ok(jobs as f64 / begun.elapsed().as_secs_f64())
}
