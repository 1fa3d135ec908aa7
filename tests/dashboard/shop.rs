//! A cluster with a job in each state, and roles that may do more or less.

use kongtask_tests::Cluster;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the pages.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboard")
}

/// A name that HTML, markdown, URLs and JSON would each take for something else.
pub const ODD: &str = "<script>alert('1')</script> [x](http://y) \"&%| #1";

/// How an XSS of any kind would show: it would have been executed.
const PAYLOAD: &str = "<script>document.title=`pwned`</script>";

/// A cluster whose one worker is busy, so that jobs stay in their states.
///
/// | role | |
/// |---|---|
/// | `shop` | its tasks are `ship`, `slow`, `letters` and one of an odd name |
/// | `dashboard` | what grants.sql grants, and a member of `shop` |
/// | `guest` | what grants.sql grants, and no member of any |
/// | `nobody` | nothing |
pub fn open() -> Cluster {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
    cluster.sql(
        "create role shop login;
         create role dashboard login in role shop;
         create role guest login;
         create role nobody login;
         create schema shop authorization shop;
         grant usage on schema graphile_worker, kongtask to shop;
         grant execute on function kongtask.register_task, kongtask.progress, graphile_worker.add_job to shop",
    );
    // Where the user who runs the server's programs can read it.
    let grants = format!("{}/grants.sql", cluster.host());
    fs::copy(folder().join("grants.sql"), &grants).expect("a copy");
    for role in ["dashboard", "guest"] {
        cluster.client_program("psql", &["-X", "-v", &format!("role={role}"), "-f", &grants, "postgres"]);
    }
    let odd = ODD.replace('\'', "''");
    cluster
        .connect_as("shop", "postgres")
        .batch_execute(&format!(
            "create function shop.ship(payload json) returns void language plpgsql as $$
             begin
               if payload ->> 'order' = 'none' then
                 raise '<b>out of stock</b>' using detail = '{PAYLOAD}', hint = 'Order less.';
               end if;
             end $$;
             create function shop.slow() returns void language plpgsql as $$
             begin
               perform kongtask.progress(30, 200, 'a third, <i>nearly</i>');
               perform pg_sleep(600);
             end $$;
             create function shop.letter() returns void language sql as '';
             select kongtask.register_task('ship', 'shop.ship(json)', timeout := '1 min', backoff := '{{1 hour}}'),
               kongtask.register_task('slow', 'shop.slow()'), kongtask.register_task('letters', 'shop.letter()'),
               kongtask.register_task('{odd}', 'shop.letter()')",
        ))
        .expect("tasks");
    // What a version before them would not have.
    cluster.sql(
        "do $$
         begin
           if to_regclass('kongtask.runs') is not null then
             perform kongtask.alter_task('ship', keep := 'all');
           end if;
           if to_regclass('kongtask.limits') is not null then
             perform kongtask.set_limit('ships', tasks := '{ship}', concurrency := 2);
           end if;
         end $$",
    );
    let mut db = cluster.connect();
    db.batch_execute(&format!(
        "select graphile_worker.add_job('ship', json_build_object('order', n)) from generate_series(1, 5) n;
         select graphile_worker.add_job('{odd}');
         -- failed, and to be retried
         select graphile_worker.add_job('ship', '{{\"order\": \"none\"}}', max_attempts := 1) from generate_series(1, 3);
         select graphile_worker.add_job('ship', '{{\"order\": \"none\"}}', job_key := 'retried')"
    ))
    .expect("jobs");
    cluster.wait_for("select succeeded + failed from kongtask.stat_tasks where task = 'ship'", "9");
    // A payload of 1 MB, of what a browser would execute.
    db.execute(
        "select graphile_worker.add_job('ship', json_build_object('html', repeat($1, 25000), 'needle', 'in the hay'),
           run_at := now() + interval '1 day', job_key := 'large')",
        &[&PAYLOAD],
    )
    .expect("a job");
    db.batch_execute(&format!(
        "select graphile_worker.add_job('slow', job_key := 'running');
         select graphile_worker.add_job('letters', queue_name := '{odd}', job_key := 'paused'),
           graphile_worker.add_job('{odd}', job_key := '{odd}', flags := array['{odd}'], run_at := now() + interval '2 days'),
           graphile_worker.add_job('of no one', job_key := 'unregistered');
         select kongtask.pause('letters', reason := '{odd}'), kongtask.pause(queue_name := 'closed', until := now() + interval '1 day')"
    ))
    .expect("jobs");
    cluster.wait_for("select state from kongtask.job_states where key = 'running'", "running");
    db.batch_execute("select graphile_worker.add_job('ship', '{\"order\": 6}', job_key := 'ready')").expect("a job");
    let mut shop = cluster.connect_as("shop", "postgres");
    db.batch_execute(
        "grant execute on function kongtask.schedule, kongtask.schedule_status to shop;
         grant select on kongtask.schedules to shop",
    )
    .expect("grants");
    shop.batch_execute(&format!(
        "select kongtask.schedule('nightly', '30 3 * * mon-fri', 'ship', '{{\"order\": 1}}', timezone := 'Europe/Paris');
         select kongtask.schedule('{odd}', '@yearly', 'letters')"
    ))
    .expect("schedules");
    cluster.wait_for("select count(distinct state) from kongtask.job_states", "6");
    cluster
}

/// The number of the job with a key.
pub fn job(cluster: &Cluster, key: &str) -> String {
    cluster.text(&format!("select id from graphile_worker.jobs where key = '{}'", key.replace('\'', "''")))
}

/// The number of a job that has failed for good.
pub fn failed_job(cluster: &Cluster) -> String {
    cluster.text("select min(id) from kongtask.failed")
}
