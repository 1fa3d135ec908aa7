//! Statements from connections that do nothing else: by pgbench, whose own part in the time is small.

use crate::Outcome;
use crate::server::Server;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Copy)]
pub enum Commits {
    /// A transaction for each statement.
    Each,
    /// One for fifty.
    Fifty,
    /// The same, sent without waiting for answers: what is left is the server's part.
    Pipelined,
}

pub struct Load<'a> {
    pub statement: &'a str,
    pub connections: usize,
    pub commits: Commits,
}

impl Load<'_> {
    /// A pgbench script, and how many of the statements it has.
    fn script(&self) -> (String, usize) {
        let one = format!("{};\n", self.statement);
        let fifty = || format!("begin;\n{}commit;\n", one.repeat(50));
        match self.commits {
            Commits::Each => (one, 1),
            Commits::Fifty => (fifty(), 50),
            Commits::Pipelined => (format!("\\startpipeline\n{}\\endpipeline\n", fifty()), 50),
        }
    }
}

/// Runs this many statements, each prepared, and says how many a second.
pub fn run_pgbench(server: &Server, database: &str, load: &Load, statements: usize) -> Outcome<f64> {
    let file = Path::new(&server.cluster().host()).join("script.sql");
    let (script, length) = load.script();
    std::fs::write(&file, script).map_err(|e| e.to_string())?;
    let each = (statements / load.connections / length).max(1);
    let mut pgbench = Command::new(program_folder().join("pgbench"));
    pgbench.args(["-n", "-M", "prepared", "-h", &server.cluster().host(), "-U", "postgres"]);
    pgbench.args(["-c", &load.connections.to_string(), "-j", &load.connections.min(2).to_string()]);
    pgbench.args(["-t", &each.to_string(), "-f"]).arg(file).arg(database);
    let output = pgbench.output().map_err(|e| format!("pgbench: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
    match rate {
        Some(rate) if output.status.success() => Ok(rate * length as f64),
        _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn program_folder() -> PathBuf {
    let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
    let output = Command::new(pg_config).arg("--bindir").output();
    output.map_or_else(|_| PathBuf::new(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
}
