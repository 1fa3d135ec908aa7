//! What a handler tells of its progress.

use kongtask_tests::fixtures::without_polling;
use kongtask_tests::{error, rows};

#[test]
fn progress_is_seen_at_once_and_only_while_its_job_runs() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table steps (n int);
         create function waits(n int) returns void language plpgsql as $$ begin
           while not exists (select from steps where steps.n = waits.n) loop perform pg_sleep(0.01); end loop; end $$;
         create function tells(p json) returns void language plpgsql as $$ begin
           perform kongtask.progress(1);
           perform waits(1);
           -- What is rolled back has been seen all the same.
           begin perform kongtask.progress(2, 10, p #>> '{}'); raise 'undone'; exception when raise_exception then null; end;
           perform waits(2);
         end $$;
         create function quiet(p json) returns void language sql as 'select waits(3)';
         create function in_turn(p json) returns void language plpgsql as $$ begin
           if p #>> '{}' = 'tells' then perform kongtask.progress(7, 8, 'of another'); else perform waits(4); end if; end $$;
         select kongtask.register_task('tells', 'tells(json)'), kongtask.register_task('quiet', 'quiet(json)'),
                kongtask.register_task('batch', 'in_turn(json)', max_batch := 50)",
    );
    let told = "select format('%s|%s|%s|%s', task_identifier, done, total, message) from kongtask.workers where job_id is not null";
    let mut db = cluster.connect();
    // 256 bytes end in the midst of a character.
    let message = format!("x{}", "\u{e9}".repeat(200));
    cluster.sql(&format!(
        "select graphile_worker.add_job('tells', to_json('{message}'::text)), graphile_worker.add_job('quiet', '1')"
    ));
    cluster.wait_for(told, "tells|1||");
    cluster.sql("insert into steps values (1)");
    cluster.wait_for(told, &format!("tells|2|10|x{}", "\u{e9}".repeat(127)));
    cluster.sql("insert into steps values (2)");
    cluster.wait_for(told, "quiet|||");
    cluster.sql("insert into steps values (3)");
    cluster.wait_for(told, "");
    // In a batch it is that of the job that runs.
    cluster.sql("select graphile_worker.add_job('batch', '\"tells\"'), graphile_worker.add_job('batch', '\"waits\"')");
    cluster.wait_for("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
    assert_eq!(rows(&mut db, told), ["batch|||"]);
    cluster.sql("insert into steps values (4)");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    assert_eq!(
        error(&mut db, "select kongtask.progress(1)"),
        ("55000".into(), "kongtask.progress can only be called by a handler".into())
    );
}
