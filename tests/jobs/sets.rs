//! Sets: one call of a handler for many jobs.

use kongtask_tests::fixtures::{add, without_polling};
use kongtask_tests::{JOBS, rows, text};

#[test]
fn a_set_is_one_call_and_is_halved_until_the_culprits_are_alone() {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table calls (n int);
         create function all_rows(j graphile_worker.jobs[]) returns void language plpgsql as $$ begin
           insert into calls values (cardinality(j));
           insert into done (n) select (x.payload #>> '{}')::int + 1000 * (x.attempts - 1) from unnest(j) x;
           if exists (select from unnest(j) x where x.payload #>> '{}' in ('13', '77') and x.attempts = 1) then raise 'culprit'; end if;
         end $$;
         select kongtask.register_task('set', 'note_all(json[])', max_batch := 10000),
                kongtask.register_task('rows', 'all_rows(graphile_worker.jobs[])')",
    );
    cluster.sql(&add("set", 25_000));
    cluster.wait_for(JOBS, "0");
    let mut db = cluster.connect();
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from done"), "25000 25000");
    let transactions: usize = text(&mut db, "select count(distinct xid) from done").parse().expect("a number");
    assert!(transactions <= 6, "{transactions}");
    for key in ["null", "n::text"] {
        cluster.sql(&format!(
            "truncate done; truncate calls;
             select count(graphile_worker.add_job('rows', to_json(n), job_key := {key})) from generate_series(1, 100) n"
        ));
        cluster.wait_for(JOBS, "2");
        assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from done"), "98 98");
        assert_eq!(
            rows(
                &mut db,
                "select payload, attempts, left(last_error, 24), locked_by from graphile_worker.jobs order by id"
            ),
            ["13|1|culprit (SQLSTATE P0001)|", "77|1|culprit (SQLSTATE P0001)|"]
        );
        // What was undone left no trace: only the calls that completed.
        assert_eq!(text(&mut db, "select sum(n) from calls"), "98");
        cluster
            .sql("select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now())");
        cluster.wait_for(JOBS, "0");
        assert_eq!(text(&mut db, "select string_agg(n::text, ' ' order by n) from done where n > 1000"), "1013 1077");
    }
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}
