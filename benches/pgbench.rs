//! Statements from connections that do nothing else: by pgbench, whose own part in the time is small.

use crate::Outcome;
use crate::server::Server;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[derive(Clone, Copy)]
pub enum Commits {
    /// A transaction for each statement.
    Each,
    /// A transaction for each statement, and a time without any after it.
    Pausing(Duration),
    /// One for fifty, sent without waiting for answers: what is left is the server's part.
    Pipelined,
    /// A transaction for each statement, and a connection, which begins with cold caches.
    Connecting,
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
        match self.commits {
            Commits::Each | Commits::Connecting => (one, 1),
            Commits::Pausing(pause) => (format!("{one}\\sleep {} us\n", pause.as_micros()), 1),
            Commits::Pipelined => (format!("\\startpipeline\nbegin;\n{}commit;\n\\endpipeline\n", one.repeat(50)), 50),
        }
    }
}

/// How long pgbench runs.
#[derive(Clone, Copy)]
pub enum Until {
    Statements(usize),
    /// So many seconds; at so many statements a second in all, if it is said.
    Seconds(f64, Option<f64>),
}

/// Runs this many statements, each prepared, and says how many a second.
pub fn run_pgbench(server: &Server, database: &str, load: &Load, statements: usize) -> Outcome<f64> {
    rate_of(pgbench(server, database, load, Until::Statements(statements))?, load)
}

/// Starts it, with what it says kept for [`rate_of`].
pub fn pgbench(server: &Server, database: &str, load: &Load, until: Until) -> Outcome<Child> {
    let file = Path::new(&server.cluster().host()).join("script.sql");
    let (script, length) = load.script();
    std::fs::write(&file, script).map_err(|e| e.to_string())?;
    let mut pgbench = Command::new(program_folder().join("pgbench"));
    pgbench.args(["-n", "-M", "prepared", "-h", &server.cluster().host(), "-U", "postgres"]);
    pgbench.args(["-c", &load.connections.to_string(), "-j", &load.connections.min(2).to_string()]);
    if let Commits::Connecting = load.commits {
        pgbench.arg("-C");
    }
    match until {
        Until::Statements(statements) => {
            pgbench.args(["-t", &(statements / load.connections / length).max(1).to_string()])
        }
        Until::Seconds(seconds, rate) => {
            pgbench.args(["-T", &format!("{seconds:.0}")]);
            pgbench.args(rate.map(|rate| format!("--rate={rate:.0}")))
        }
    };
    pgbench.arg("-f").arg(file).arg(database).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    pgbench.spawn().map_err(|e| format!("pgbench: {e}"))
}

/// Waits for its end, and says how many statements a second there were.
pub fn rate_of(pgbench: Child, load: &Load) -> Outcome<f64> {
    let output = pgbench.wait_with_output().map_err(|e| format!("pgbench: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
    match rate {
        Some(rate) if output.status.success() => Ok(rate * load.script().1 as f64),
        _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn program_folder() -> PathBuf {
    let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
    let output = Command::new(pg_config).arg("--bindir").output();
    output.map_or_else(|_| PathBuf::new(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
}
