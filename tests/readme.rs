//! The README's SQL runs, in its order, and does what the text says. What adopts and leaves is run by `adopt`.

use kongtask_tests::readme::{README, blocks};
use kongtask_tests::{Cluster, describe};

#[test]
fn its_sql_runs() {
    let cluster = Cluster::with(&[]);
    let mut db = cluster.connect();
    let blocks = blocks("sql");
    assert!(blocks.len() >= 6, "{blocks:?}");
    for block in blocks {
        db.batch_execute(block).unwrap_or_else(|e| panic!("{block}\n{}", describe(&e)));
    }
    cluster.wait_for("select string_agg(recipient, ',' order by recipient) from app.letters", "Ada,Grace,Hedy");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    // What shares a transaction, and what shares a call.
    cluster.sql(
        "select graphile_worker.add_job('count_visit', json_build_object('page', n % 3)) from generate_series(1, 90) n;
         select graphile_worker.add_job('index_document', json_build_object('id', n)) from generate_series(1, 90) n",
    );
    cluster.wait_for("select count(*) || ' ' || sum(count) from app.visits", "3 90");
    cluster.wait_for("select count(*) from app.documents", "90");
    let mut web = cluster.connect_as("web", "postgres");
    web.batch_execute("select graphile_worker.add_job('send_letter', '{\"to\": \"Web\"}')").expect("an enqueuer may");
    cluster.wait_for("select count(*) from app.letters where recipient = 'Web'", "1");
    let mut mailer = cluster.connect_as("mailer", "postgres");
    cluster.sql("grant create on schema app to mailer");
    mailer
        .batch_execute(
            "create function app.mine() returns void language sql as '';
             select kongtask.register_task('mine', 'app.mine()')",
        )
        .expect("a registrar may");
}

#[test]
fn its_settings_are_the_settings() {
    let cluster = Cluster::with(&[]);
    let mut db = cluster.connect();
    // `show` prints units as people write them.
    for setting in kongtask_tests::rows(&mut db, "select name from pg_settings where name like 'kongtask.%'") {
        let value = kongtask_tests::text(&mut db, &format!("show {setting}"));
        let written = [format!("| `{setting}` | `{value}` |"), format!("| `{setting}` | `'{value}'` |")];
        assert!(written.iter().any(|row| README.contains(row)), "{written:?}");
    }
}
