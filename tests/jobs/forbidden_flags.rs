//! Jobs with forbidden flags are not run here.

use kongtask_tests::fixtures::with_note;

#[test]
fn forbidden_flags_hold_jobs_back_by_list_and_by_function() {
    let cluster = with_note(&["kongtask.forbidden_flags = 'one, two'"]);
    cluster.sql(
        "select graphile_worker.add_job('note', '1', flags := array['one']);
         select graphile_worker.add_job('note', '2', flags := array['x', 'two']);
         select graphile_worker.add_job('note', '3', flags := array['three']);
         select graphile_worker.add_job('note', '4');",
    );
    cluster.wait_for("select string_agg(what, '' order by what) from done", "34");
    assert_eq!(cluster.text("select string_agg(id::text, '' order by id) from graphile_worker.jobs"), "12");
    cluster.sql(
        "create table forbidden (flag text); insert into forbidden values ('three');
         create function flags() returns text[] language sql as 'select array_agg(flag) from forbidden';",
    );
    cluster.reload(&[
        "kongtask.forbidden_flags = ''",
        "kongtask.forbidden_flags_function = 'public.flags()'",
        "kongtask.poll_interval = '100ms'",
    ]);
    cluster.wait_for("select string_agg(what, '' order by what) from done", "1234");
    cluster.sql("select graphile_worker.add_job('note', '5', flags := array['three']); select graphile_worker.add_job('note', '6')");
    cluster.wait_for("select string_agg(what, '' order by what) from done", "12346");
    cluster.sql("delete from forbidden");
    cluster.wait_for("select string_agg(what, '' order by what) from done", "123456");
    // While the function fails, nothing runs, and the log says so.
    cluster.reload(&["kongtask.forbidden_flags_function = 'public.no_such()'"]);
    cluster.wait_for("show kongtask.forbidden_flags_function", "public.no_such()");
    cluster.sql("select pg_sleep(1.1); select graphile_worker.add_job('note', '7')");
    cluster.wait_for_log("kongtask.forbidden_flags_function failed");
    assert_eq!(cluster.text("select count(*) from graphile_worker.jobs"), "1");
    cluster.reload(&["kongtask.forbidden_flags_function = ''"]);
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
}
