//! README.md and the pages of docs/, and the SQL in them.

use crate::{Cluster, SOON, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A page of the documentation.
pub struct Page {
    /// Its path below the project's folder, such as `docs/tutorial.md`.
    pub name: String,
    pub text: String,
}

/// A fenced block of a page, with the indentation of its fence removed.
pub struct Block {
    /// What stands behind the fence, such as `sql` or `sql fails`.
    pub info: String,
    pub body: String,
    /// The line of the opening fence.
    pub line: usize,
    /// The block of `text` that follows a block of SQL: what psql prints.
    pub output: Option<String>,
}

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md and every page of docs/, sorted by name.
pub fn pages() -> Vec<Page> {
    let mut paths = files(&root().join("docs"), "md");
    paths.push(root().join("README.md"));
    paths.sort();
    let page = |path: PathBuf| Page {
        name: path.strip_prefix(root()).expect("below the project").display().to_string(),
        text: fs::read_to_string(&path).expect("a page"),
    };
    paths.into_iter().map(page).collect()
}

/// The files with an extension in a folder and in those below it.
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path, extension),
            false if path.extension().is_some_and(|its| its == extension) => vec![path],
            false => Vec::new(),
        })
        .collect()
}

/// One page by its name.
pub fn page(name: &str) -> Page {
    pages().into_iter().find(|page| page.name == name).unwrap_or_else(|| panic!("there is no page {name}"))
}

/// The bodies of all blocks, of all pages, whose fence says this.
pub fn blocks(info: &str) -> Vec<String> {
    let all = pages();
    let blocks = all.iter().flat_map(Page::blocks).filter(|block| block.info == info);
    blocks.map(|block| block.body).collect()
}

impl Page {
    /// The text with every run of white space as one space, to search for sentences.
    pub fn words(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The fenced blocks in their order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut lines = self.text.lines().enumerate();
        let mut between = "";
        while let Some((at, line)) = lines.next() {
            let Some(info) = line.trim_start().strip_prefix("```") else {
                if !line.trim().is_empty() {
                    between = line;
                }
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
            let body: Vec<&str> = inside.map(|line| line.get(indent..).unwrap_or("")).collect();
            let body = body.join("\n");
            match blocks.last_mut() {
                Some(sql) if info == "text" && between.is_empty() && sql.info.starts_with("sql") => {
                    sql.output = Some(body);
                }
                _ => blocks.push(Block { info: info.to_string(), body, line: at + 1, output: None }),
            }
            between = "";
        }
        blocks
    }
}

impl Cluster {
    /// Runs a block of SQL by psql as a role, each statement a transaction of its own. A block that has an output only
    /// reads: it is repeated until psql prints that.
    pub fn run_block(&self, block: &Block, role: &str, database: &str) -> Result<(), String> {
        let Some(output) = &block.output else { return self.psql_file(&block.body, role, database, "").map(|_| ()) };
        let mut last = Ok(String::new());
        let as_written =
            |last: &Result<String, String>| last.as_ref().is_ok_and(|printed| trimmed(printed) == trimmed(output));
        let came = wait_until(SOON, || {
            last = self.psql_file(&block.body, role, database, "-c default_transaction_read_only=on");
            last.is_err() || as_written(&last)
        });
        let printed = last.clone()?;
        if came && as_written(&last) { Ok(()) } else { Err(format!("psql prints\n{printed}")) }
    }

    /// Runs a block that the page says to fail. The error is what the block's output begins with, if it has one.
    pub fn run_failing_block(&self, block: &Block, role: &str, database: &str) -> Result<(), String> {
        let Err(error) = self.psql_file(&block.body, role, database, "") else { return Err("it does not fail".into()) };
        // psql begins with the file and the line.
        let error = error.find("ERROR: ").map_or(error.as_str(), |at| &error[at..]);
        match &block.output {
            Some(output) if !trimmed(error).starts_with(&trimmed(output)) => Err(format!("it fails with\n{error}")),
            _ => Ok(()),
        }
    }

    /// What psql prints of statements; its errors where one fails.
    fn psql_file(&self, statements: &str, role: &str, database: &str, options: &str) -> Result<String, String> {
        let file = self.file(statements.as_bytes());
        let mut psql = self.server.program("psql");
        psql.env("PGOPTIONS", options).arg("-h").arg(self.home.path());
        psql.args(["-U", role, "-d", database, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", &file]);
        let output = psql.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
        let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(told(&output.stdout)) } else { Err(told(&output.stderr)) }
    }
}

/// The text without white space at the ends of its lines, and without empty lines around it.
fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_matches('\n').to_string()
}
