//! Runs the pages' SQL as SQLPage does, but for what it makes of the rows: statement by statement, with the request's values in
//! place of `$name` and `:name`. A row whose component is `redirect` ends the page; one with `sqlpage.run_sql` runs that file.

use crate::shop::folder;
use kongtask_tests::{Cluster, describe};
use postgres::{Client, SimpleQueryMessage};
use std::collections::BTreeMap;
use std::fs;

/// Where browsers reach the dashboard in these tests.
pub const ORIGIN: &str = "http://127.0.0.1:8080";

pub type Row = BTreeMap<String, Option<String>>;

/// What SQLPage's functions answer in these tests. Links are given as their parts.
const FUNCTIONS: &str = "
    create schema sqlpage;
    grant usage on schema sqlpage to public;
    create function sqlpage.asked(what text, name text) returns text language sql as
      $$ select nullif(current_setting('sqlpage.' || what, true), '')::json ->> name $$;
    create function sqlpage.header(name text) returns text language sql as $$ select sqlpage.asked('headers', name) $$;
    create function sqlpage.cookie(name text) returns text language sql as $$ select sqlpage.asked('cookies', name) $$;
    create function sqlpage.environment_variable(name text) returns text language sql as
      $$ select sqlpage.asked('environment', name) $$;
    create function sqlpage.request_method() returns text language sql as $$ select sqlpage.asked('request', 'method') $$;
    create function sqlpage.run_sql(file text, variables json) returns text language sql as
      $$ select json_build_object('run', file, 'variables', variables)::text $$;
    create function sqlpage.link(file text, parameters json) returns text language sql as
      $$ select file || ' ' || parameters $$;
";

pub struct Browser {
    db: Client,
    /// KONGTASK_DASHBOARD_ORIGIN, if that is set.
    pub address: Option<&'static str>,
}

#[derive(Default)]
pub struct Request<'a> {
    pub get: &'a [(&'a str, &'a str)],
    pub post: &'a [(&'a str, &'a str)],
    pub headers: &'a [(&'a str, &'a str)],
    pub cookies: &'a [(&'a str, &'a str)],
}

/// What a page answers.
pub struct Answer {
    pub rows: Vec<Row>,
}

impl Answer {
    /// Where it sends the browser; None: it is shown.
    pub fn redirect(&self) -> Option<&str> {
        let row = self.rows.last().filter(|row| text(row, "component") == "redirect")?;
        row["link"].as_deref()
    }

    /// The rows that follow one of a component, such as those of a table.
    pub fn of(&self, component: &str) -> Vec<&Row> {
        let mut rows = Vec::new();
        let mut is_of = false;
        for row in &self.rows {
            match row.get("component") {
                Some(name) => is_of = name.as_deref() == Some(component),
                None if is_of => rows.push(row),
                None => {}
            }
        }
        rows
    }

    /// The rows of a component itself.
    pub fn components(&self, component: &str) -> Vec<&Row> {
        self.rows.iter().filter(|row| text(row, "component") == component).collect()
    }

    /// The titles of its buttons: of forms that are shown, and of those that have nothing to fill in.
    pub fn buttons(&self) -> Vec<&str> {
        let forms = self.components("form").into_iter().map(|form| text(form, "validate"));
        let buttons =
            self.of("button").into_iter().filter(|row| !text(row, "form").is_empty()).map(|row| text(row, "title"));
        forms.chain(buttons).filter(|title| !title.is_empty()).collect()
    }
}

pub fn text<'a>(row: &'a Row, column: &str) -> &'a str {
    row.get(column).and_then(|value| value.as_deref()).unwrap_or("")
}

impl Browser {
    /// One whose pages are made for this role.
    pub fn of(cluster: &Cluster, role: &str) -> Browser {
        if cluster.text("select to_regnamespace('sqlpage')").is_empty() {
            cluster.sql(FUNCTIONS);
        }
        let mut db = cluster.connect_as(role, "postgres");
        db.batch_execute(&read("sqlpage/on_connect.sql"))
            .unwrap_or_else(|e| panic!("on_connect.sql: {}", describe(&e)));
        Browser { db, address: Some(ORIGIN) }
    }

    /// Asks for a page as a browser does that shows the dashboard.
    pub fn get(&mut self, page: &str, get: &[(&str, &str)]) -> Answer {
        self.ask("GET", page, &Request { get, ..Request::default() })
    }

    /// Submits a form of the dashboard.
    pub fn post(&mut self, post: &[(&str, &str)]) -> Answer {
        let headers = [("origin", ORIGIN), ("sec-fetch-site", "same-origin")];
        self.ask("POST", "do.sql", &Request { post, headers: &headers, ..Request::default() })
    }

    pub fn ask(&mut self, method: &str, page: &str, request: &Request) -> Answer {
        let mut headers = vec![("host", "127.0.0.1:8080")];
        headers.extend_from_slice(request.headers);
        self.set("headers", &headers);
        self.set("cookies", request.cookies);
        self.set("request", &[("method", method)]);
        let environment: Vec<_> = self.address.iter().map(|address| ("KONGTASK_DASHBOARD_ORIGIN", *address)).collect();
        self.set("environment", &environment);
        let get = request.get.iter().map(|(name, value)| (format!("${name}"), Some((*value).to_owned())));
        let post = request.post.iter().map(|(name, value)| (format!(":{name}"), Some((*value).to_owned())));
        let mut values: Values = get.chain(post).collect();
        let mut answer = Answer { rows: Vec::new() };
        self.run(page, &mut values, &mut answer);
        answer
    }

    /// Says what one of SQLPage's functions answers from now on.
    fn set(&mut self, what: &str, values: &[(&str, &str)]) {
        let (names, values): (Vec<&str>, Vec<&str>) = values.iter().copied().unzip();
        self.db
            .execute(
                "select set_config('sqlpage.' || $1, json_object($2::text[], $3::text[])::text, false)",
                &[&what, &names, &values],
            )
            .expect("a setting");
    }

    /// Runs a file; false: the page has ended.
    fn run(&mut self, file: &str, values: &mut Values, answer: &mut Answer) -> bool {
        for statement in statements(&read(file)) {
            let (variable, query) = match statement.strip_prefix("set ").and_then(|set| set.split_once(" = ")) {
                Some((name, value)) => (Some(format!("${}", name.trim())), format!("select {value}")),
                None => (None, statement),
            };
            let rows = self.rows(file, &with_values(&query, values));
            if let Some(name) = variable {
                assert!(rows.len() <= 1, "{file}: {query} has several rows");
                let value = rows.into_iter().next().and_then(|row| row.into_values().next().flatten());
                values.insert(name, value);
                continue;
            }
            for row in rows {
                let included = row.get("properties").cloned().flatten();
                match (text(&row, "component"), included) {
                    ("dynamic", Some(included)) => {
                        let included = self.included(&included);
                        let (file, mut variables) = included;
                        // It sees the request's values, and the variables that it was given.
                        for (name, value) in values.iter() {
                            variables.entry(name.clone()).or_insert_with(|| value.clone());
                        }
                        if !self.run(&file, &mut variables, answer) {
                            return false;
                        }
                    }
                    ("redirect", _) => {
                        answer.rows.push(row);
                        return false;
                    }
                    _ => answer.rows.push(row),
                }
            }
        }
        true
    }

    /// The file that sqlpage.run_sql was called for, and its variables.
    fn included(&mut self, call: &str) -> (String, Values) {
        let call: serde_json::Value = serde_json::from_str(call).expect("what sqlpage.run_sql answers");
        let variables = call["variables"].as_object().expect("variables");
        let variables =
            variables.iter().map(|(name, value)| (format!("${name}"), value.as_str().map(str::to_owned))).collect();
        (call["run"].as_str().expect("a file").to_owned(), variables)
    }

    fn rows(&mut self, file: &str, query: &str) -> Vec<Row> {
        let messages = self.db.simple_query(query).unwrap_or_else(|e| panic!("{file}: {}\n{query}", describe(&e)));
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                let column = |place: usize| (row.columns()[place].name().to_owned(), row.get(place).map(str::to_owned));
                Some((0..row.len()).map(column).collect())
            }
            _ => None,
        };
        messages.iter().filter_map(row).collect()
    }
}

type Values = BTreeMap<String, Option<String>>;

fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// A part of a page's SQL.
#[derive(PartialEq)]
enum Token {
    /// A parameter, with its sigil.
    Parameter(String),
    /// The end of a statement.
    End,
    /// Anything else, but comments, which are left out.
    Text(String),
}

fn tokens(sql: &str) -> Vec<Token> {
    let chars: Vec<char> = sql.chars().collect();
    let is_name = |at: usize| chars.get(at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_');
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let begun = at;
        match chars[at] {
            quote @ ('\'' | '"') => {
                at += 1;
                while chars[at] != quote {
                    at += 1;
                }
                at += 1;
                tokens.push(Token::Text(chars[begun..at].iter().collect()));
            }
            '-' if chars.get(at + 1) == Some(&'-') => {
                while chars.get(at).is_some_and(|c| *c != '\n') {
                    at += 1;
                }
            }
            ';' => {
                at += 1;
                tokens.push(Token::End);
            }
            ':' if chars.get(at + 1) == Some(&':') => {
                at += 2;
                tokens.push(Token::Text("::".into()));
            }
            '$' | ':' if is_name(at + 1) => {
                at += 1;
                while is_name(at) {
                    at += 1;
                }
                tokens.push(Token::Parameter(chars[begun..at].iter().collect()));
            }
            other => {
                at += 1;
                tokens.push(Token::Text(other.into()));
            }
        }
    }
    tokens
}

/// The statements of a file, without comments.
fn statements(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let join = |tokens: &[Token]| {
        let word = |token: &Token| match token {
            Token::Parameter(text) | Token::Text(text) => text.clone(),
            Token::End => String::new(),
        };
        tokens.iter().map(word).collect::<String>().trim().to_owned()
    };
    tokens.split(|token| *token == Token::End).map(join).filter(|statement| !statement.is_empty()).collect()
}

/// A statement with literals in place of its parameters, which are text, as SQLPage sends them.
fn with_values(statement: &str, values: &Values) -> String {
    let literal = |name: &String| match values.get(name).cloned().flatten() {
        Some(value) => format!("('{}'::text)", value.replace('\'', "''")),
        None => "(null::text)".into(),
    };
    let word = |token: Token| match token {
        Token::Parameter(name) => literal(&name),
        Token::Text(text) => text,
        Token::End => String::new(),
    };
    tokens(statement).into_iter().map(word).collect()
}
