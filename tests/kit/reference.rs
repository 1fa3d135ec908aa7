//! graphile-worker itself, as its packages from npm carry it: `scripts/peers` puts them there.

use postgres::Client;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// The package of a version.
pub fn package(version: &str) -> PathBuf {
    let peers = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers");
    let package = PathBuf::from(peers).join(version).join("node_modules/graphile-worker");
    assert!(package.is_dir(), "{package:?} is not there: run scripts/peers");
    package
}

/// Installs its schema by its own SQL, up to a migration, as its own migrate does.
pub fn install(db: &mut Client, version: &str, migration: usize, schema: &str) {
    let has_uuid = db
        .query_opt(
            "select from pg_proc where proname = 'gen_random_uuid' and pronamespace = 'public'::regnamespace",
            &[],
        )
        .expect("a query")
        .is_some();
    if !has_uuid {
        // All that it wants of pgcrypto, which is not everywhere.
        run(
            db,
            "create function public.gen_random_uuid() returns uuid language sql as 'select pg_catalog.gen_random_uuid()'",
        );
    }
    run(
        db,
        &format!(
            "create schema {schema};
             create table {schema}.migrations (id int primary key, ts timestamptz default now() not null)"
        ),
    );
    migrate(db, version, 1..=migration, schema);
}

/// Applies some of its migrations.
pub fn migrate(db: &mut Client, version: &str, migrations: RangeInclusive<usize>, schema: &str) {
    for number in migrations {
        let file = package(version).join(format!("sql/{number:06}.sql"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        run(db, &text.replace(":GRAPHILE_WORKER_SCHEMA", schema));
        run(db, &format!("insert into {schema}.migrations (id) values ({number})"));
    }
}

fn run(db: &mut Client, statements: &str) {
    db.batch_execute(statements).unwrap_or_else(|e| panic!("{}\n{statements}", crate::describe(&e)));
}
