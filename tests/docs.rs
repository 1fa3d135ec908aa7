//! The documentation: every block of SQL in README.md and docs/ runs, and prints what the page shows.
//!
//! Each page is run from top to bottom, by psql as a superuser, in a database of its own. The database has the extension
//! unless the page creates it. What stands behind a fence tells how its block is run:
//!
//! | fence | |
//! |---|---|
//! | `sql` | succeeds; a block of `text` right behind it is what psql prints, within a deadline: such a block only reads |
//! | `sql fails` | fails; a block of `text` right behind it is how the error begins |
//! | `sql as ROLE` | succeeds when that role runs it |
//! | `sql adopt` and the others of `ELSEWHERE` | is run by another test, beside another server or another queue |
//!
//! A page needs no registration. SQL under any other fence fails the test.

use kongtask_tests::docs::{Block, Page, files, pages, root};
use kongtask_tests::{Cluster, rows};

/// What follows `sql` where another test runs the block: that of adoption and the way back, that of the move from pg_cron,
/// that of the upgrade by logical replication, and that of failovers.
const ELSEWHERE: [&str; 13] = [
    "adopt",
    "pg-cron",
    "before",
    "after",
    "publisher",
    "publisher-stops",
    "publisher-waits",
    "publisher-prints",
    "subscriber",
    "subscriber-waits",
    "subscriber-switches",
    "promoted",
    "rejoined",
];

#[test]
fn the_sql_of_every_page_runs_and_prints_what_the_page_shows() {
    let cluster = Cluster::with(&["kongtask.workers = 4"]);
    cluster.sql("create table public.roles_before as select oid from pg_roles");
    let (mut run, mut failed) = (0, Vec::new());
    for page in pages().iter().filter(|page| is_asked_for(page)) {
        match run_page(&cluster, page) {
            Ok(blocks) => run += blocks,
            Err(error) => failed.push(error),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(run > 0, "no block was run");
}

/// DOCS_PAGE in the environment is part of the name of the pages to run, while they are written.
fn is_asked_for(page: &Page) -> bool {
    std::env::var("DOCS_PAGE").map_or(true, |part| page.name.contains(&part))
}

/// Runs the blocks of a page, and removes what they left in the cluster. Returns how many there were.
fn run_page(cluster: &Cluster, page: &Page) -> Result<usize, String> {
    let blocks = page.blocks();
    let sql: Vec<&Block> = blocks.iter().filter(|block| block.info.to_lowercase().starts_with("sql")).collect();
    if sql.is_empty() {
        return Ok(0);
    }
    cluster.sql("create database page");
    if !sql.iter().any(|block| block.body.to_lowercase().contains("create extension kongtask")) {
        cluster.connect_as("postgres", "page").batch_execute("create extension kongtask").map_err(|e| e.to_string())?;
    }
    let outcome = sql.iter().try_for_each(|block| {
        run_block(cluster, block).map_err(|error| format!("{}:{}\n{}\n{error}", page.name, block.line, block.body))
    });
    forget_page(cluster);
    outcome.map(|()| sql.len())
}

fn run_block(cluster: &Cluster, block: &Block) -> Result<(), String> {
    match block.info.split(' ').collect::<Vec<_>>()[..] {
        ["sql"] => cluster.run_block(block, "postgres", "page"),
        ["sql", "fails"] => cluster.run_failing_block(block, "postgres", "page"),
        ["sql", "as", role] => cluster.run_block(block, role, "page"),
        ["sql", name] if ELSEWHERE.contains(&name) => Ok(()),
        _ => Err(format!("no test knows a fence of `{}`", block.info)),
    }
}

/// Drops the page's databases and roles, and resets the settings that it changed.
fn forget_page(cluster: &Cluster) {
    let mut db = cluster.connect();
    for database in rows(
        &mut db,
        "select quote_ident(datname) from pg_database where datname not in ('postgres', 'template0', 'template1')",
    ) {
        cluster.sql(&format!("drop database {database} with (force)"));
    }
    let new = "select quote_ident(rolname) from pg_roles where oid not in (select oid from public.roles_before)";
    for role in rows(&mut db, new) {
        cluster.sql(&format!("drop role {role}"));
    }
    cluster.sql("alter system reset all");
    cluster.sql("select pg_reload_conf()");
}

#[test]
fn blocks_that_other_tests_run_are_run_there() {
    let sources: Vec<String> = files(&root().join("tests"), "rs")
        .into_iter()
        .filter(|file| !file.ends_with("docs.rs"))
        .map(|file| std::fs::read_to_string(file).expect("a test"))
        .collect();
    for name in ELSEWHERE {
        let blocks = kongtask_tests::docs::blocks(&format!("sql {name}"));
        assert_eq!(blocks.len(), 1, "sql {name}");
        let asked = [format!("(\"{name}\")"), format!("(\"sql {name}\")")];
        let is_run = sources.iter().any(|source| asked.iter().any(|asked| source.contains(asked)));
        assert!(is_run, "no test asks for {asked:?}");
    }
}

#[test]
fn links_between_pages_lead_to_files() {
    for page in pages() {
        let folder = root().join(&page.name).parent().expect("a folder").to_path_buf();
        for target in links(&page.text) {
            let file = target.split('#').next().unwrap_or("");
            if !file.is_empty() && !file.contains(':') {
                assert!(folder.join(file).exists(), "{}: there is no {target}", page.name);
            }
        }
    }
}

/// The targets of a page's links, `[text](target)`, outside blocks of code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("```")
        .step_by(2)
        .flat_map(|prose| prose.split("](").skip(1))
        .filter_map(|rest| rest.split([')', ' ']).next())
}

#[test]
fn readme_fits_a_first_visit() {
    let lines = kongtask_tests::docs::page("README.md").text.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines");
}
