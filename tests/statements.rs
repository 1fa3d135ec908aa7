//! The statements in sql/query: each says what it does and what its parameters are, is used, and can be prepared.

use kongtask_tests::Cluster;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const QUERIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/query");
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../src");

/// The types of parameters, as legends and as the code have them.
const TYPES: [(&str, &str); 15] = [
    ("bigint", "INT8OID"),
    ("bigint[]", "INT8ARRAYOID"),
    ("boolean", "BOOLOID"),
    ("integer", "INT4OID"),
    ("interval", "INTERVALOID"),
    ("interval[]", "INTERVALARRAYOID"),
    ("json", "JSONOID"),
    ("jsonb", "JSONBOID"),
    ("oid", "OIDOID"),
    ("oid[]", "OIDARRAYOID"),
    ("record[]", "RECORDARRAYOID"),
    ("text", "TEXTOID"),
    ("text[]", "TEXTARRAYOID"),
    ("tid", "TIDOID"),
    ("timestamptz", "TIMESTAMPTZOID"),
];

struct Statement {
    text: String,
    types: Vec<String>,
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() && extension == "rs" {
            files.extend(self::files(&path, extension));
        } else if path.extension().is_some_and(|its| its == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into()
}

/// The statements by their names, with their parts filled in for schema graphile_worker.
fn statements() -> BTreeMap<String, Statement> {
    let parts = files(&Path::new(QUERIES).join("parts"), "sql");
    let read = |path: &PathBuf| fs::read_to_string(path).expect("a file");
    let parts: Vec<_> = parts.iter().map(|path| (format!("@{}@", name(path)), read(path))).collect();
    let statement = |path: &PathBuf| {
        let text = read(path);
        let legend = |line: &str| Some(line.strip_prefix("--   $")?.split_once(' ')?.1.split_once(':')?.0.to_owned());
        let types = text.lines().filter_map(legend).collect();
        let filled = parts.iter().fold(text, |text, (name, part)| text.replace(name, &format!("\n{part}")));
        (name(path), Statement { text: filled.replace("@extschema@", "graphile_worker"), types })
    };
    files(Path::new(QUERIES), "sql").iter().map(statement).collect()
}

/// The parameters that the code prepares each statement with. One that is prepared twice must be so with the same.
fn uses() -> BTreeMap<String, Vec<String>> {
    let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files(Path::new(SOURCE), "rs") {
        let source = fs::read_to_string(&path).expect("a file");
        for call in source.split("plan!(").skip(1) {
            let mut arguments = call.split(')').next().expect("an end").split(',').map(str::trim);
            let Some(file) = arguments.next().and_then(|file| file.strip_prefix('"')?.strip_suffix('"')) else {
                continue;
            };
            let types: Vec<String> = arguments.filter(|argument| !argument.is_empty()).map(str::to_owned).collect();
            let former = uses.insert(file.to_owned(), types.clone());
            assert!(former.is_none_or(|former| former == types), "{file} is prepared with other types elsewhere");
        }
    }
    uses
}

#[test]
fn every_statement_is_used_with_the_types_of_its_legend() {
    let (statements, uses) = (statements(), uses());
    assert_eq!(statements.keys().collect::<Vec<_>>(), uses.keys().collect::<Vec<_>>());
    for (name, Statement { text, types }) in &statements {
        assert!(text.starts_with("-- "), "{name} does not say what it does");
        let of_legend =
            |kind: &String| TYPES.iter().find(|(its, _)| its == kind).map_or("?", |(_, oid)| oid).to_owned();
        assert_eq!(types.iter().map(of_legend).collect::<Vec<_>>(), uses[name], "{name}");
        for number in 1..20 {
            let is_named = text.contains(&format!("${number}"));
            assert_eq!(is_named, number <= types.len(), "{name}: parameter {number}");
        }
    }
}

#[test]
fn every_statement_can_be_prepared() {
    let cluster = Cluster::with(&["kongtask.databases = ''"]);
    let mut sql = cluster.connect();
    sql.batch_execute(
        "create schema cron;
         create table cron.job (
           jobid bigint, schedule text, command text, nodename text, nodeport int, database text, username text, active boolean
         )",
    )
    .expect("what pg_cron has");
    for (suffix, version) in [("_0_1", Some("0.1.0")), ("_0_2", Some("0.2.0")), ("", None)] {
        let version = version.map(|version| format!("version '{version}'")).unwrap_or_default();
        sql.batch_execute("drop extension if exists kongtask; drop schema if exists graphile_worker").expect("a drop");
        sql.batch_execute(&format!("create extension kongtask {version}")).expect("the extension");
        let of_version = |name: &str| match suffix {
            "" => !name.ends_with("_0_1") && !name.ends_with("_0_2"),
            _ => name.ends_with(suffix),
        };
        let mut count = 0;
        for (name, Statement { text, types }) in statements().iter().filter(|(name, _)| of_version(name)) {
            let types = if types.is_empty() { String::new() } else { format!("({})", types.join(", ")) };
            // Names are qualified: none of them needs a path.
            sql.batch_execute(&format!("set search_path = ''; prepare {name}{types} as {text}; deallocate {name}"))
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            count += 1;
        }
        assert!(count > 0, "no statement for {version}");
        sql.batch_execute("reset search_path").expect("a path");
    }
}
