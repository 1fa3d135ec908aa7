//! How many jobs begin in a time.

use crate::{add, cluster, wait_for_mark};
use kongtask_tests::{JOBS, error};

/// The times at which jobs began, in seconds since the first.
fn starts(cluster: &kongtask_tests::Cluster) -> Vec<f64> {
    let query = "select extract(epoch from began - min(began) over ())::float8::text from account order by began";
    let rows = kongtask_tests::rows(&mut cluster.connect(), query);
    rows.iter().map(|row| row.parse().expect("a number")).collect()
}

/// A worker takes a moment from the grant to the handler's first statement.
const MOMENT: f64 = 0.05;

#[test]
fn no_more_jobs_begin_in_a_time_than_the_rate_says() {
    let cluster = cluster(&["kongtask.workers = 4", "kongtask.worker_idle_timeout = '10s'"]);
    cluster.sql("select kongtask.set_limit('api', '{work}', rate := 20, per := '1 second')");
    cluster.sql(&add("work", 1, 40, "'s', 0"));
    wait_for_mark(&cluster);
    cluster.wait_for(JOBS, "0");
    let starts = starts(&cluster);
    assert_eq!(starts.len(), 40);
    for window in starts.windows(21) {
        assert!(window[20] - window[0] > 1.0 - MOMENT, "21 began within {}: {starts:?}", window[20] - window[0]);
    }
    assert!(starts[39] < 3.0, "they began too slowly: {starts:?}");
}

#[test]
fn a_burst_begins_together() {
    let cluster = cluster(&["kongtask.workers = 4"]);
    cluster.sql("select kongtask.register_task('set', 'work_all(json[])')");
    cluster.sql("select kongtask.set_limit('api', '{work,set}', rate := 10, per := '5 seconds', burst := 4)");
    let added = cluster.text("select clock_timestamp()");
    cluster.sql(&add("work", 1, 6, "'s', 0"));
    cluster.wait_for(JOBS, "0");
    let starts = starts(&cluster);
    assert!(starts[3] < 0.4, "{starts:?}");
    // The first gets its room after the commit.
    let within = |time: &str| {
        cluster.text(&format!("select count(*) from account where began < timestamptz '{added}' + interval '{time}'"))
    };
    assert_eq!((within("0.5 s"), within("1 s")), ("4".into(), "5".into()), "{starts:?}");
    // A set takes as many as may begin.
    cluster.sql("truncate account; select pg_sleep(1)");
    cluster.sql(&add("set", 1, 4, "'s', 0"));
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select sum(jobs) from account"), "4");
    assert!(cluster.text("select jobs from account order by began limit 1").parse::<i32>().expect("a number") < 4);
}

#[test]
fn a_job_that_could_not_begin_costs_no_start() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql("select kongtask.set_limit('rare', '{work}', rate := 1, per := '1 hour', burst := 2)");
    cluster.sql(&add("work", 1, 1, "'s', 0"));
    cluster.wait_for(JOBS, "0");
    // Another session has the next one locked, as the worker takes it.
    let mut db = cluster.connect();
    db.batch_execute("begin").expect("begin");
    let job: i64 = db
        .query_one(
            "select id from graphile_worker.add_job('work', '{\"n\": 2}', run_at := now() - interval '1 day')",
            &[],
        )
        .expect("a job")
        .get(0);
    db.batch_execute("commit; begin").expect("commit");
    let locked = db.query("select from graphile_worker.jobs where id = $1 for update", &[&job]).expect("a lock");
    if locked.len() == 1 {
        wait_for_mark(&cluster);
    }
    db.batch_execute("commit").expect("commit");
    cluster.wait_for("select count(*) from account", "2");
    cluster.sql(&add("work", 3, 3, "'s', 0"));
    wait_for_mark(&cluster);
    assert_eq!(cluster.text("select count(*) from account"), "2");
    assert_eq!(
        cluster.text("select next_start_at > now() + interval '50 minutes' from kongtask.limits where name = 'rare'"),
        "t"
    );
    assert_eq!(cluster.text("select why from kongtask.job_states"), "limit rare is reached");
}

#[test]
fn a_handler_throttles_its_limit_though_it_fails() {
    let cluster = cluster(&["kongtask.workers = 3"]);
    cluster.sql(
        "create table attempts (at timestamptz);
         create function call_api(p json) returns void language plpgsql as $$ begin
           if (p ->> 'n')::int = 1 and (kongtask.current_job()).attempts = 1 then
             perform kongtask.throttle('api', '800 ms');
             perform kongtask.retry_in('0');
             raise 'status 429';
           end if;
           perform public.work(p);
         end $$;
         select kongtask.register_task('work', 'call_api(json)'),
                kongtask.set_limit('api', '{work}', concurrency := 1)",
    );
    let begun = cluster.text("select clock_timestamp()");
    cluster.sql(&add("work", 1, 3, "'s', 0"));
    wait_for_mark(&cluster);
    cluster.wait_for(JOBS, "0");
    let early = format!("select count(*) from account where began < '{begun}'::timestamptz + interval '800 ms'");
    assert_eq!(cluster.text(&early), "0");
    assert_eq!(cluster.text("select count(*) from account"), "3");
}

#[test]
fn throttling_is_for_handlers_under_the_limit_and_for_those_who_may_set_it() {
    let cluster = cluster(&["kongtask.workers = 1"]);
    cluster.sql(
        "create role stranger login;
         grant usage on schema kongtask to stranger;
         grant execute on function kongtask.throttle to stranger;
         select kongtask.set_limit('each', '{work}', by := 'key', concurrency := 5)",
    );
    let mut stranger = cluster.connect_as("stranger", "postgres");
    assert_eq!(error(&mut stranger, "select kongtask.throttle('each', '1 s')").0, "42501");
    let mut owner = cluster.connect();
    assert_eq!(error(&mut owner, "select kongtask.throttle('none', '1 s')").0, "42704");
    assert_eq!(error(&mut owner, "select kongtask.throttle('each', '-1 s')").0, "22023");
    assert_eq!(error(&mut owner, "select kongtask.throttle('each', null)").0, "22004");
    cluster.sql("select kongtask.throttle('each', '1 hour', 'a')");
    cluster.sql(&add("work", 1, 1, "'key', 'a'"));
    cluster.sql(&add("work", 2, 2, "'key', 'b'"));
    cluster.wait_for("select count(*) from account", "1");
    wait_for_mark(&cluster);
    assert_eq!(cluster.text("select n from account"), "2");
    // A limit that is dropped is forgotten.
    cluster.sql("select kongtask.drop_limit('each')");
    cluster.wait_for(JOBS, "0");
}
