//! Who may do what, and what nobody may. Each test is named after what is promised; what is tried, and who may, is data.

mod grants;
mod handlers;
mod install;
mod rights;
mod settings;
mod visibility;

use kongtask_tests::{Cluster, describe};
use postgres::Client;

/// What becomes of statements: `ok`, or the SQLSTATE of their error, or what broke the connection.
fn outcome(db: &mut Client, statements: &str) -> String {
    match db.batch_execute(statements) {
        Ok(()) => "ok".into(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_string()),
    }
}

/// As [`outcome`], and nothing of it stays.
fn outcome_of_trial(db: &mut Client, statements: &str) -> String {
    let outcome = outcome(db, &format!("begin; {statements}"));
    // Nothing to roll back where the connection broke: the next trial says so.
    let _ = db.batch_execute("rollback");
    outcome
}

/// Runs statements as a role.
fn run_as(cluster: &Cluster, role: &str, statements: &str) {
    let mut db = cluster.connect_as(role, "postgres");
    db.batch_execute(statements).unwrap_or_else(|e| panic!("{role}: {statements}: {}", describe(&e)));
}

/// A cluster with alice and bob, who register tasks and may create things in `app`; web, who adds jobs; node, who runs an
/// external worker; and mallory, to whom nothing is granted but a schema of her own, that everybody may use.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    cluster.sql(
        "create role alice login; create role bob login; create role web login; create role node login;
         create role mallory login;
         create schema app; grant all on schema app to alice, bob;
         create schema hostile authorization mallory; grant usage on schema hostile to public;
         grant usage on schema kongtask, graphile_worker to alice, bob;
         grant execute on function kongtask.register_task, kongtask.unregister_task, kongtask.current_job to alice, bob;
         grant usage on schema graphile_worker to web;
         grant execute on function graphile_worker.add_job to web;
         select kongtask.grant_worker('node');",
    );
    cluster
}
