//! Where all this was measured.

use crate::peer_process::node;
use crate::server::{SETTINGS, Server};
use std::process::Command;

pub fn describe(server: &Server) -> Vec<(String, String)> {
    let fact = |name: &str, value: String| (name.to_string(), value);
    vec![
        fact("CPU", format!("{}, {} cores", cpu(), std::thread::available_parallelism().map_or(0, usize::from))),
        fact("memory", memory()),
        fact("kernel", output("uname", &["-sr"])),
        fact("server", server.cluster().text("select version()")),
        fact("kongtask", version(server)),
        fact("settings", SETTINGS.join(", ")),
        fact("Node.js of the peers", output(&node().display().to_string(), &["--version"])),
    ]
}

fn version(server: &Server) -> String {
    server.cluster().text("select default_version from pg_available_extensions where name = 'kongtask'")
}

pub fn commit() -> String {
    let changed = if output("git", &["status", "--porcelain"]).is_empty() { "" } else { ", with changes" };
    output("git", &["rev-parse", "--short", "HEAD"]) + changed
}

/// Now, as UTC.
pub fn date() -> String {
    output("date", &["-u", "+%Y-%m-%d %H:%M"])
}

pub fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().into()
}

fn cpu() -> String {
    line_of("/proc/cpuinfo", "model name")
}

fn memory() -> String {
    line_of("/proc/meminfo", "MemTotal")
}

/// What a file of `name: value` lines says.
fn line_of(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
    value.map_or_else(|| "unknown".into(), |(_, value)| value.trim().to_string())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|e| e.to_string(), |output| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
