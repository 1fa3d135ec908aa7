//! What the log, auto_explain and pg_stat_statements say of jobs.

use kongtask_tests::fixtures::with_note_and_nap;
use kongtask_tests::{Cluster, SOON, pg_config, say, wait_until};
use std::path::Path;

#[test]
fn jobs_that_take_long_are_logged() {
    let cluster = with_note_and_nap(&[]);
    cluster.sql("select graphile_worker.add_job('nap', '0.2')");
    cluster.wait_for("select succeeded from kongtask.stat_tasks", "1");
    cluster.reload(&["kongtask.log_min_duration = '100ms'"]);
    cluster.sql(
        "create function fails() returns void language plpgsql as $$ begin perform pg_sleep(0.2); raise 'no'; end $$;
         select kongtask.register_task('fails', 'fails()'), kongtask.register_task('batch', 'nap(json)', max_batch := 5);
         select graphile_worker.add_job('nap', '0.2'), graphile_worker.add_job('nap', '0'), graphile_worker.add_job('fails'),
                graphile_worker.add_job('batch', '0.2'), graphile_worker.add_job('batch', '0')",
    );
    for job in ["job 2 (nap)", "job 4 (fails)", "job 5 (batch)"] {
        cluster.wait_for_log(&format!(" ms  {job}"));
    }
    cluster.wait_for("select sum(succeeded) from kongtask.stat_tasks", "5");
    let lines: Vec<String> =
        cluster.log_lines(&["LOG"]).into_iter().filter(|line| line.contains("duration: ")).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let number = |line: &str, name: &str| -> f64 {
        let rest = line.split(name).nth(1).expect("a number");
        rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    };
    for line in &lines {
        assert!((200.0..5_000.0).contains(&number(line, "duration: ")), "{line}");
        assert!((0.001..5_000.0).contains(&number(line, "wait: ")), "{line}");
    }
}

#[test]
fn auto_explain_and_pg_stat_statements_see_what_handlers_run() {
    let libraries = ["auto_explain", "pg_stat_statements"];
    let folder = pg_config("--pkglibdir");
    if let Some(missing) = libraries.iter().find(|name| !Path::new(&folder).join(format!("{name}.so")).exists()) {
        return say(&format!("{missing} is not installed: not tried"));
    }
    let cluster = Cluster::with_extension(&[
        "shared_preload_libraries = 'auto_explain, pg_stat_statements, kongtask'",
        "auto_explain.log_min_duration = '100ms'",
    ]);
    cluster.sql(
        "create extension pg_stat_statements; create table done (n int);
         create function slow() returns void language plpgsql as $$ begin
           insert into done select 42 from pg_sleep(0.2); end $$;
         select kongtask.register_task('slow', 'slow()'); select graphile_worker.add_job('slow')",
    );
    cluster.wait_for("select n from done", "42");
    let counted =
        "select calls::text from pg_stat_statements where query like 'insert into done select %' and toplevel";
    assert!(wait_until(SOON, || cluster.text(counted) == "1"));
    cluster.wait_for_log("Query Text: insert into done select 42 from pg_sleep(0.2)");
}
