//! Whether a tenant with many jobs delays others that have one each, under a limit by tenant.

use crate::Outcome;
use crate::queue::{PATIENCE, Queue};
use crate::report::{Section, Target, number};
use crate::server::{run, scaled, told};
use std::thread::sleep;
use std::time::{Duration, Instant};

const HOW: &str = "One tenant adds its jobs in one transaction; each takes 5 ms. Then each of the others adds a job, one \
    transaction after the other. Measured from a moment before that commit to the handler's first statement. With \
    concurrency 1, nearly all jobs of the great tenant wait for room; with 1000, all of them have room, but no worker.";

const WORKERS: usize = 4;
const OTHERS: usize = 100;

/// The great tenant's jobs, the others, and the concurrency of a tenant.
const CASES: [(usize, usize, usize); 3] = [(1_000_000, OTHERS, 1), (1_000_000, OTHERS, 1000), (1_000, 10_000, 1)];

const TENANTS: &str = "
    create table begun (tenant text, added timestamptz, at timestamptz);
    create function take_time(job json) returns void language plpgsql as $$
      declare began timestamptz = clock_timestamp(); begin
        perform pg_sleep((job ->> 'seconds')::float8);
        insert into begun values (job ->> 'tenant', (job ->> 'added')::timestamptz, began);
      end $$;
    create procedure add_one_each(tenants int) language plpgsql as $$ begin
      for tenant in 1..tenants loop
        perform graphile_worker.add_job(
          'take_time', json_build_object('tenant', tenant, 'seconds', 0, 'added', clock_timestamp()));
        commit;
      end loop;
    end $$;
    select kongtask.register_task('take_time', 'take_time(json)')";

pub fn measure(queue: &Queue, section: &mut Section) {
    section.heading("Milliseconds from the commit of a tenant's only job to its start, beside a tenant with many");
    section.note(HOW);
    queue.server.serve(&[&queue.database], WORKERS);
    if let Err(error) = run(&mut queue.connect(), TENANTS) {
        section.failed("the tenants", &error);
        return;
    }
    let mut rows = Vec::new();
    for (jobs, others, concurrency) in CASES {
        let jobs = scaled(jobs);
        let name = format!("{} jobs, {} others, concurrency {concurrency}", number(jobs as f64), number(others as f64));
        match delays(queue, jobs, others, concurrency) {
            Ok([half, most]) => {
                rows.push(vec![name.clone(), format!("{half:.1}"), format!("{most:.1}")]);
                section.require(&name, "median", Ok(half), Target::AtMost(50.0));
            }
            Err(error) => section.failed(&name, &error),
        }
    }
    section.table(&["", "median", "most"], rows);
}

/// Returns the median and the longest of the others' delays, in milliseconds.
fn delays(queue: &Queue, jobs: usize, others: usize, concurrency: usize) -> Outcome<[f64; 2]> {
    let mut db = queue.connect();
    run(&mut db, "truncate begun")?;
    run(
        &mut db,
        &format!("select kongtask.set_limit('turns', '{{take_time}}', by := 'tenant', concurrency := {concurrency})"),
    )?;
    let add = format!(
        "select count(graphile_worker.add_job('take_time', '{{\"tenant\": \"great\", \"seconds\": 0.005}}'))
         from generate_series(1, {jobs})"
    );
    run(&mut db, &add)?;
    run(&mut db, &format!("call add_one_each({others})"))?;
    let begun = Instant::now();
    let count = "select count(*) from begun where tenant <> 'great'";
    while db.query_one(count, &[]).map_err(told)?.get::<_, i64>(0) < others as i64 {
        if begun.elapsed() > PATIENCE {
            return Err(format!("the others did not begin in {PATIENCE:?}"));
        }
        sleep(Duration::from_millis(50));
    }
    let delays = "select percentile_cont('{0.5,1}'::float8[]) within group (order by extract(epoch from at - added)::float8 * 1000)
        from begun where tenant <> 'great'";
    let delays: Vec<f64> = db.query_one(delays, &[]).map_err(told)?.get(0);
    run(&mut db, "select kongtask.pause('take_time')")?;
    run(&mut db, "truncate graphile_worker.jobs")?;
    run(&mut db, "select kongtask.resume('take_time')")?;
    delays.try_into().map_err(|_| "no delays".into())
}
