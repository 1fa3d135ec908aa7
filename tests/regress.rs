//! The tests in SQL, on a cluster of their own, as `make installcheck` runs them on any server. What they test is in
//! tests/regress/sql and tests/isolation/specs, beside what is expected of each.

use kongtask_tests::Cluster;
use std::process::Command;

/// Fails with what the script says, which has the differences.
fn installcheck(suite: &str) {
    let cluster = Cluster::with(&[]);
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/installcheck"))
        .arg(suite)
        .env("PGHOST", cluster.host())
        .env("PGUSER", "postgres")
        .env_remove("PGPORT")
        .output()
        .expect("bash");
    let [said, complaints] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{said}\n{complaints}");
    assert!(said.contains("tests passed"), "{said}");
}

#[test]
fn sql_does_what_its_files_say() {
    installcheck("regress");
}

#[test]
fn sessions_wait_for_each_other_where_their_specs_say_so_and_nowhere_else() {
    installcheck("isolation");
}
