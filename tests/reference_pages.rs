//! docs/reference: a page for each function, table, view and type, made from the comments and the catalog of the installed extension.
//!
//! `make reference` writes the pages anew; without it they are compared. Of each page, the part up to [`END`] is made; what follows,
//! examples for the most part, is written by hand and kept.

use kongtask_tests::Cluster;
use postgres::Client;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str =
    "<!-- Made by `make reference` from the comments of the extension's objects, up to the comment that says end. -->";
const END: &str = "<!-- end -->";

/// Pages that are written by hand.
const BY_HAND: [&str; 3] = ["cron", "errors", "processes"];

/// Functions that users do not call, beside those of triggers, and tables behind a view.
const INTERNAL: [&str; 15] = [
    "empty_run_table",
    "handler_problem",
    "job_state",
    "live_holds",
    "live_overview",
    "live_stats",
    "live_workers",
    "role_named",
    "run_tables",
    "runs_0",
    "runs_1",
    "runs_2",
    "runs_3",
    "schedule_status",
    "server_state",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference")
}

/// A function, table, view or type of the extension.
struct Object {
    schema: String,
    name: String,
    kind: String,
    comment: String,
    /// Arguments or columns.
    parts: Vec<Part>,
    /// What a function returns.
    result: String,
}

struct Part {
    name: String,
    of_type: String,
    /// SQL for the default; empty: none.
    default: String,
    not_null: bool,
    comment: String,
}

const MEMBERS: &str = "member as (
    select depend.classid, depend.objid from pg_depend as depend
    join pg_extension as extension on depend.refclassid = extension.tableoid and depend.refobjid = extension.oid
    where extension.extname = 'kongtask' and depend.deptype = 'e')";

/// Everything that has a page, or a line on the page of internal functions.
fn objects(db: &mut Client) -> Vec<Object> {
    let query = format!(
        "with {MEMBERS}
         select proc.oid, namespace.nspname::text, proc.proname::text,
           case when proc.prorettype = 'trigger'::regtype then 'trigger' else 'function' end,
           coalesce(obj_description(proc.oid, 'pg_proc'), ''), coalesce(pg_get_function_result(proc.oid), '')
         from pg_proc as proc join member on classid = proc.tableoid and objid = proc.oid
         join pg_namespace as namespace on namespace.oid = proc.pronamespace
         -- Duplicates go: from 18 on, a table's row type is a member as well.
         union
         select class.oid, namespace.nspname::text, class.relname::text,
           case class.relkind when 'r' then 'table' when 'v' then 'view' else 'type' end,
           coalesce(obj_description(class.oid, 'pg_class'), obj_description(class.reltype, 'pg_type'), ''), ''
         from pg_class as class
         join member on (classid, objid) in ((class.tableoid, class.oid), ('pg_type'::regclass, class.reltype))
         join pg_namespace as namespace on namespace.oid = class.relnamespace
         where class.relkind in ('r', 'v', 'c')
         order by 2, 3"
    );
    let rows = db.query(&query, &[]).expect("the objects");
    let object = |row: &postgres::Row| {
        let (oid, kind): (u32, String) = (row.get(0), row.get(3));
        let parts = match kind.as_str() {
            "function" | "trigger" => arguments(db, oid),
            _ => columns(db, oid),
        };
        Object { schema: row.get(1), name: row.get(2), kind, comment: row.get(4), parts, result: row.get(5) }
    };
    rows.iter().map(object).collect()
}

fn arguments(db: &mut Client, function: u32) -> Vec<Part> {
    let query = "select argument.name, format_type(argument.type, null),
          coalesce(pg_get_function_arg_default(proc.oid, argument.number::int), '')
        from pg_proc as proc,
          unnest(proc.proargnames, proc.proargtypes::oid[]) with ordinality as argument (name, type, number)
        where proc.oid = $1 and argument.type is not null
        order by argument.number";
    let rows = db.query(query, &[&function]).expect("the arguments");
    let part = |row: &postgres::Row| Part {
        name: row.get(0),
        of_type: row.get(1),
        default: without_cast(&row.get::<_, String>(2)),
        not_null: false,
        comment: String::new(),
    };
    rows.iter().map(part).collect()
}

fn columns(db: &mut Client, relation: u32) -> Vec<Part> {
    let query = "select attribute.attname::text, format_type(attribute.atttypid, attribute.atttypmod),
          coalesce(pg_get_expr(default_.adbin, default_.adrelid), ''), attribute.attnotnull,
          coalesce(col_description(attribute.attrelid, attribute.attnum), '')
        from pg_attribute as attribute
        left join pg_attrdef as default_ on (default_.adrelid, default_.adnum) = (attribute.attrelid, attribute.attnum)
        where attribute.attrelid = $1 and attribute.attnum > 0 and not attribute.attisdropped
        order by attribute.attnum";
    let rows = db.query(query, &[&relation]).expect("the columns");
    let part = |row: &postgres::Row| Part {
        name: row.get(0),
        of_type: row.get(1),
        default: without_cast(&row.get::<_, String>(2)),
        not_null: row.get(3),
        comment: row.get(4),
    };
    rows.iter().map(part).collect()
}

/// `NULL` of `NULL::json`.
fn without_cast(default: &str) -> String {
    default.split_once("::").filter(|(_, cast)| !cast.contains(')')).map_or(default, |(value, _)| value).to_string()
}

impl Object {
    fn is_internal(&self) -> bool {
        self.kind == "trigger" || INTERNAL.contains(&self.name.as_str())
    }

    fn summary(&self) -> String {
        self.comment.split("\n\n").next().unwrap_or_default().replace('\n', " ")
    }

    fn page(&self, links: &Links) -> String {
        assert!(!self.comment.is_empty(), "{}.{} has no comment", self.schema, self.name);
        let mut page = format!("# {}\n\n{BEGIN}\n\n{}\n\n", self.name, links.marked(&self.summary(), &self.name));
        if self.kind == "function" {
            self.write_signature(&mut page);
        } else {
            let _ = writeln!(page, "The {} `{}.{}`.\n", self.kind, self.schema, self.name);
            self.write_columns(&mut page, links);
        }
        for paragraph in self.comment.split("\n\n").skip(1) {
            self.write_paragraph(&mut page, paragraph, links);
        }
        page.push_str(END);
        page.push('\n');
        page
    }

    fn write_signature(&self, page: &mut String) {
        let _ = write!(page, "```text\n{}.{}(", self.schema, self.name);
        let argument = |part: &Part| match part.default.as_str() {
            "" => format!("  {} {}", part.name, part.of_type),
            default => format!("  {} {} = {default}", part.name, part.of_type),
        };
        let list: Vec<String> = self.parts.iter().map(argument).collect();
        if !list.is_empty() {
            let _ = write!(page, "\n{}\n", list.join(",\n"));
        }
        // A procedure has none.
        let result = if self.result.is_empty() { String::new() } else { format!(" returns {}", self.result) };
        let _ = writeln!(page, "){result}\n```\n");
    }

    fn write_columns(&self, page: &mut String, links: &Links) {
        page.push_str("| column | type | |\n|---|---|---|\n");
        for part in &self.parts {
            assert!(!part.comment.is_empty(), "{}.{}.{} has no comment", self.schema, self.name, part.name);
            let default = if part.default.is_empty() { String::new() } else { format!(", default `{}`", part.default) };
            let null = if part.not_null { ", not null" } else { "" };
            let comment = links.marked(&part.comment.replace('\n', " "), &self.name);
            let _ = writeln!(page, "| `{}` | {}{null}{default} | {comment} |", part.name, part.of_type);
        }
        page.push('\n');
    }

    /// A paragraph of a comment: `Arguments:` and `Errors:` are lists and become tables, `Rights:` and `Locks:` sections.
    fn write_paragraph(&self, page: &mut String, paragraph: &str, links: &Links) {
        let marked = |text: &str| links.marked(&text.replace("\n  ", " ").replace('\n', " "), &self.name);
        let (head, rest) = paragraph.split_once(':').unwrap_or(("", paragraph));
        match head {
            "Arguments" => {
                let items = list(rest);
                let names: Vec<&str> = items.iter().map(|(name, _)| name.as_str()).collect();
                let declared: Vec<&str> = self.parts.iter().map(|part| part.name.as_str()).collect();
                assert_eq!(names, declared, "the comment of {}.{} describes its arguments", self.schema, self.name);
                page.push_str("| argument | type | |\n|---|---|---|\n");
                for (part, (name, meaning)) in self.parts.iter().zip(&items) {
                    let _ = writeln!(page, "| `{name}` | {} | {} |", part.of_type, marked(meaning));
                }
                page.push('\n');
            }
            "Errors" => {
                page.push_str("## Errors\n\n");
                let before = rest.split("\n- ").next().unwrap_or_default().trim();
                if !before.is_empty() {
                    let _ = writeln!(page, "{}\n", capital(&marked(before)));
                }
                page.push_str("| SQLSTATE | |\n|---|---|\n");
                for (code, meaning) in list(rest) {
                    let _ = writeln!(page, "| [`{code}`](errors.md) | {} |", capital(&marked(&meaning)));
                }
                page.push('\n');
            }
            "Rights" | "Locks" => {
                let _ = writeln!(page, "## {head}\n\n{}\n", capital(&marked(rest.trim())));
            }
            _ => {
                let _ = writeln!(page, "{}\n", marked(paragraph));
            }
        }
    }
}

/// The items `- name: meaning` of a list.
fn list(text: &str) -> Vec<(String, String)> {
    let item = |item: &str| item.split_once(": ").map(|(name, meaning)| (name.to_string(), capital(meaning)));
    text.split("\n- ").skip(1).filter_map(item).collect()
}

/// The text with a capital letter, unless it begins with a name.
fn capital(text: &str) -> String {
    if text.split(' ').next().is_some_and(|word| word.contains('_')) {
        return text.to_string();
    }
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// What words of a comment are names of: pages and settings.
struct Links {
    pages: Vec<String>,
    settings: Vec<String>,
}

impl Links {
    /// The text with names marked as code, and linked where they have a page that is not `here`.
    fn marked(&self, text: &str, here: &str) -> String {
        text.split(' ').map(|word| self.word(word, here)).collect::<Vec<_>>().join(" ")
    }

    fn word(&self, word: &str, here: &str) -> String {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        let begin = word.find(is_of_name).unwrap_or(word.len());
        let rest = &word[begin..];
        let name = rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())].trim_end_matches('.');
        let short = name.strip_prefix("kongtask.");
        if !name.contains('_') && short.is_none() || word.contains('(') && word.contains(')') {
            return word.to_string();
        }
        let page = short.unwrap_or(name).to_string();
        let marked = if page != here && self.pages.contains(&page) {
            format!("[`{name}`]({page}.md)")
        } else if self.settings.contains(&name.to_string()) {
            format!("[`{name}`](settings.md#{})", anchor(name))
        } else {
            format!("`{name}`")
        };
        format!("{}{marked}{}", &word[..begin], &word[begin + name.len()..])
    }
}

/// The anchor of a heading, as Markdown makes it.
fn anchor(heading: &str) -> String {
    heading.replace('.', "")
}

fn internal_page(objects: &[Object]) -> String {
    let mut page = format!("# Internal functions and tables\n\n{BEGIN}\n\n");
    page.push_str("Triggers of the tables, and what views and columns are made of. Do not call or change them.\n\n");
    page.push_str("| name | |\n|---|---|\n");
    for object in objects.iter().filter(|object| object.is_internal()) {
        let _ = writeln!(page, "| `{}.{}` | {} |", object.schema, object.name, object.summary());
    }
    format!("{page}\n{END}\n")
}

fn settings_page(db: &mut Client) -> String {
    let mut page = format!("# Settings\n\n{BEGIN}\n\n");
    let query =
        "select name, vartype, coalesce(unit, ''), coalesce(min_val, ''), coalesce(max_val, ''), context, short_desc,
          coalesce(extra_desc, ''), current_setting(name), setting = boot_val
        from pg_settings where name like 'kongtask.%' order by name";
    for row in db.query(query, &[]).expect("the settings") {
        let text = |column: usize| row.get::<_, String>(column);
        assert!(row.get::<_, bool>(9), "{} has its default in this test", text(0));
        let _ = writeln!(page, "## {}\n\n{} {}\n", text(0), text(6), text(7));
        let range = if text(3).is_empty() { String::new() } else { format!(", {} to {}", text(3), text(4)) };
        let unit = if text(2).is_empty() { String::new() } else { format!(", in {} unless a unit is given", text(2)) };
        let default = if text(8).is_empty() { "''".to_string() } else { text(8) };
        let _ = writeln!(page, "| | |\n|---|---|\n| type | {}{range}{unit} |\n| default | `{default}` |", text(1));
        let _ = writeln!(page, "| context | `{}` |\n", text(5));
    }
    format!("{page}{END}\n")
}

fn index_page(objects: &[Object]) -> String {
    let mut page = format!("# Reference\n\n{BEGIN}\n\n");
    let groups: [(&str, &str, &[&str]); 4] = [
        ("Functions of the queue", "graphile_worker", &["function"]),
        ("Tables and types of the queue", "graphile_worker", &["table", "type"]),
        ("Functions of kongtask", "kongtask", &["function"]),
        ("Tables and views of kongtask", "kongtask", &["table", "view", "type"]),
    ];
    for (title, schema, kinds) in groups {
        let _ = writeln!(page, "## {title}\n");
        for object in objects.iter().filter(|object| object.schema == schema && !object.is_internal()) {
            if kinds.contains(&object.kind.as_str()) {
                let _ = writeln!(page, "- [`{0}.{1}`]({1}.md): {2}", object.schema, object.name, object.summary());
            }
        }
        page.push('\n');
    }
    page.push_str("## Further pages\n\n- [Settings](settings.md)\n- [Errors](errors.md)\n- [Processes and the log](processes.md)\n");
    format!("{page}- [Internal functions and tables](internal.md)\n\n{END}\n")
}

/// The part of each page that is made, by the page's name.
fn pages(db: &mut Client) -> BTreeMap<String, String> {
    db.batch_execute("set search_path = ''").expect("set");
    let objects = objects(db);
    let settings = db.query("select name from pg_settings where name like 'kongtask.%'", &[]).expect("the settings");
    let links = Links {
        pages: objects.iter().filter(|object| !object.is_internal()).map(|object| object.name.clone()).collect(),
        settings: settings.iter().map(|row| row.get(0)).collect(),
    };
    let mut pages = BTreeMap::new();
    for object in objects.iter().filter(|object| !object.is_internal()) {
        let former = pages.insert(object.name.clone(), object.page(&links));
        assert!(former.is_none(), "two objects are called {}", object.name);
    }
    pages.insert("index".into(), index_page(&objects));
    pages.insert("internal".into(), internal_page(&objects));
    pages.insert("settings".into(), settings_page(db));
    pages
}

#[test]
fn the_pages_say_what_the_extension_says() {
    // What other tests set has its default here.
    let cluster = Cluster::with_extension(&[
        "kongtask.workers = 16",
        "kongtask.worker_idle_timeout = '10s'",
        "kongtask.scheduler_idle_timeout = '1min'",
    ]);
    let mut db = cluster.connect();
    let pages = pages(&mut db);
    if std::env::var_os("KONGTASK_WRITE_REFERENCE").is_some() {
        write(&pages);
    }
    for (name, made) in &pages {
        let path = folder().join(format!("{name}.md"));
        let page = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}: run make reference", path.display()));
        assert!(page.starts_with(made), "{name}.md is not what the extension says: run make reference\n{made}");
    }
    for file in fs::read_dir(folder()).expect("docs/reference") {
        let name = file.expect("a file").file_name().to_string_lossy().replace(".md", "");
        assert!(pages.contains_key(&name) || BY_HAND.contains(&name.as_str()), "{name}.md has no object");
    }
}

/// The sources of the library and of what it installs.
fn sources() -> Vec<String> {
    let mut folders = vec![folder().join("../../src"), folder().join("../../sql/install")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources.push(fs::read_to_string(&path).expect("text"));
            }
        }
    }
    sources
}

/// The rows of a page's tables: the cells, without the marks of code.
fn table_rows(page: &str) -> Vec<Vec<String>> {
    let cells =
        |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').into()).collect();
    let text = fs::read_to_string(folder().join(page)).expect(page);
    text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|---")).map(cells).collect()
}

#[test]
fn comments_fit_a_screen_of_psql() {
    const WIDEST: usize = 76;
    let cluster = Cluster::with_extension(&["kongtask.workers = 0"]);
    let mut db = cluster.connect();
    let mut lines = 0;
    for object in objects(&mut db) {
        for comment in [&object.comment].into_iter().chain(object.parts.iter().map(|part| &part.comment)) {
            lines += comment.lines().count();
            let wide = comment.lines().find(|line| line.chars().count() > WIDEST);
            assert!(wide.is_none(), "{}.{}: {wide:?}", object.schema, object.name);
        }
        let summary = object.summary();
        assert!(summary.ends_with(['.', ')']) && summary.len() < 160, "{}.{}: {summary}", object.schema, object.name);
    }
    assert!(lines > 300, "{lines} lines");
}

#[test]
fn the_page_of_errors_has_every_error_with_its_sqlstate() {
    let rows = table_rows("errors.md");
    let source = fs::read_to_string(folder().join("../../src/error.rs")).expect("src/error.rs");
    let mut found = 0;
    // An error is `b"SQLSTATE"` and, as the next literal, its message.
    for part in source
        .split("(b\"")
        .flat_map(|part| part.split("b\""))
        .skip(1)
        .filter(|part| part.as_bytes().get(5) == Some(&b'"'))
    {
        let (sqlstate, rest) = (&part[..5], &part[6..]);
        if rest.trim_start_matches([',', ' ']).starts_with("message.clone()") {
            // Its message is made where it is raised.
            continue;
        }
        let message = rest.split_once('"').expect("a message").1.replace("\\\"", "\u{1}");
        let message = message.split_once('"').expect("the end of a message").0.replace('\u{1}', "\"");
        if message == "fault point {place}" {
            continue;
        }
        found += 1;
        let has_row = rows.iter().any(|row| row[0] == sqlstate && row[1] == message);
        assert!(has_row, "errors.md has no row for {sqlstate} {message}");
    }
    assert!(found >= 20, "{found} errors in src/error.rs");
    let sources = sources().concat().replace("\\\"", "\"");
    for row in rows.iter().filter(|row| row[0] != "SQLSTATE") {
        assert_eq!(row.len(), 4, "{row:?}");
        let message = row[1].split("`, ").next().unwrap_or_default();
        assert!(message == "Postgres's own" || sources.contains(message), "no source raises {message}");
    }
}

#[test]
fn the_pages_of_functions_name_errors_that_have_a_row() {
    let rows = table_rows("errors.md");
    let mut named = 0;
    for file in fs::read_dir(folder()).expect("docs/reference") {
        let name = file.expect("a file").file_name().to_string_lossy().into_owned();
        let page = fs::read_to_string(folder().join(&name)).expect("a page");
        for code in page.split("[`").skip(1).filter_map(|rest| rest.split_once("`](errors.md)")).map(|(code, _)| code) {
            named += 1;
            assert!(code.contains(' ') || rows.iter().any(|row| row[0] == code), "{name} names {code}");
        }
    }
    assert!(named > 10, "{named} errors named");
}

/// True if a text is what a literal of the source says with anything in place of each `{...}`.
fn is_said_by(text: &str, literal: &str) -> bool {
    let mut pieces = Vec::new();
    let mut rest = literal;
    while let Some((piece, behind)) = rest.split_once('{') {
        pieces.push(piece);
        rest = behind.split_once('}').map_or("", |(_, rest)| rest);
    }
    pieces.push(rest);
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() < 8 {
        return false;
    }
    let (first, others) = pieces.split_first().expect("one piece at least");
    let Some(mut text) = text.strip_prefix(first) else { return false };
    for piece in others {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    text.is_empty() || text == ": …" || pieces.last().is_some_and(|last| last.is_empty())
}

#[test]
fn the_log_lines_of_the_page_are_those_of_the_source() {
    let rows = table_rows("processes.md");
    let lines: Vec<_> = rows.iter().filter(|row| ["LOG", "WARNING"].contains(&row[0].as_str())).collect();
    assert!(lines.len() > 20, "{} lines", lines.len());
    let sources = sources().concat().replace("\\\"", "\u{1}");
    let literals: Vec<String> = sources.split('"').map(|literal| literal.replace('\u{1}', "\"")).collect();
    // What these are made of stands apart in the source.
    let apart = |line: &str| {
        line.strip_prefix("kongtask ").is_some_and(|line| line.ends_with(" started") || line.ends_with(" stopped"))
            || line.contains("failed on attempt")
            || line.contains("failed for good on")
            || line.contains(") failed: worker process")
    };
    for line in lines.iter().map(|row| row[1].as_str()).filter(|line| !apart(line)) {
        assert!(literals.iter().any(|literal| is_said_by(line, literal)), "no source writes {line}");
    }
}

/// Writes the pages, and keeps what is written by hand.
fn write(pages: &BTreeMap<String, String>) {
    fs::create_dir_all(folder()).expect("docs/reference");
    for (name, made) in pages {
        let path = folder().join(format!("{name}.md"));
        let page = fs::read_to_string(&path).unwrap_or_default();
        let by_hand = page.split_once(&format!("{END}\n")).map_or("", |(_, by_hand)| by_hand);
        fs::write(&path, format!("{made}{by_hand}")).expect("write");
    }
}
