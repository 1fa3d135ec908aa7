//! What was measured, printed as it comes, and kept for the page.

use crate::server::{rounds, scale};
use crate::{Outcome, docs, environment, page};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a measured ratio is to be.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// It is told for comparison.
    None,
}

impl Target {
    pub fn is_reached(self, measured: f64) -> bool {
        match self {
            Target::AtLeast(least) => measured >= least,
            Target::AtMost(most) => measured <= most,
            Target::None => true,
        }
    }

    pub fn told(self) -> String {
        match self {
            Target::AtLeast(least) => format!("at least {least}"),
            Target::AtMost(most) => format!("at most {most}"),
            Target::None => String::new(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct Requirement {
    pub what: String,
    pub settings: String,
    pub measured: Outcome<f64>,
    pub target: Target,
}

impl Requirement {
    /// Measured ratio, target, and whether it was reached.
    pub fn cells(&self) -> Vec<String> {
        let (measured, verdict) = match &self.measured {
            Ok(ratio) => (format!("{ratio:.3}"), self.verdict(*ratio)),
            Err(error) => (error.lines().next().unwrap_or_default().into(), "FAILED"),
        };
        vec![self.what.clone(), self.settings.clone(), measured, self.target.told(), verdict.into()]
    }
}

impl Requirement {
    fn verdict(&self, measured: f64) -> &'static str {
        match self.target {
            Target::None => "",
            target if target.is_reached(measured) => "reached",
            _ => "MISSED",
        }
    }
}

pub const REQUIREMENT_HEAD: [&str; 5] = ["", "settings", "ratio", "target", ""];

/// Parts of a section, in the order in which they came.
#[derive(Serialize, Deserialize)]
pub enum Part {
    Heading(String),
    Note(String),
    /// What only those look at who doubt the rest.
    Detail(String),
    Table(Vec<String>, Vec<Vec<String>>),
    Failure(String),
    Bars {
        unit: String,
        bars: Vec<(String, f64)>,
    },
    Curves {
        x: String,
        y: String,
        curves: Vec<Curve>,
    },
}

/// A name and points.
pub type Curve = (String, Vec<(f64, f64)>);

/// What one measure found, and under which circumstances.
#[derive(Serialize, Deserialize)]
pub struct Section {
    pub name: String,
    pub began: String,
    pub seconds: f64,
    /// The machine's load before it and behind it: the mean number of running processes in the last minute.
    pub load: [String; 2],
    pub commit: String,
    pub rounds: usize,
    pub scale: f64,
    pub parts: Vec<Part>,
    pub requirements: Vec<Requirement>,
}

impl Section {
    pub fn new(name: &str) -> Section {
        println!("\n==== {name}");
        Section {
            name: name.into(),
            began: environment::date(),
            seconds: 0.0,
            load: [environment::load(), String::new()],
            commit: environment::commit(),
            rounds: rounds(),
            scale: scale(),
            parts: Vec::new(),
            requirements: Vec::new(),
        }
    }

    pub fn end(&mut self, begun: Instant) {
        self.seconds = begun.elapsed().as_secs_f64();
        self.load[1] = environment::load();
        println!("  {} took {:.0} s", self.name, self.seconds);
    }

    pub fn circumstances(&self) -> String {
        let Section { began, seconds, load: [before, after], commit, rounds, scale, .. } = self;
        format!(
            "{began} UTC, commit {commit}, load {before} to {after}, {rounds} rounds, scale {scale}, {seconds:.0} s"
        )
    }

    pub fn heading(&mut self, text: &str) {
        println!("\n-- {text}");
        self.parts.push(Part::Heading(text.into()));
    }

    pub fn note(&mut self, text: &str) {
        println!("  {text}");
        self.parts.push(Part::Note(text.into()));
    }

    pub fn detail(&mut self, text: &str) {
        println!("  {text}");
        self.parts.push(Part::Detail(text.into()));
    }

    pub fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) {
        print_table(head, &rows);
        self.parts.push(Part::Table(head.iter().map(ToString::to_string).collect(), rows));
    }

    pub fn failed(&mut self, what: &str, error: &str) {
        println!("  FAILED {what}: {error}");
        self.parts.push(Part::Failure(format!("{what}: {error}")));
    }

    pub fn require(&mut self, what: &str, settings: &str, measured: Outcome<f64>, target: Target) {
        let measured = measured.and_then(|ratio| if ratio.is_finite() { Ok(ratio) } else { Err(ratio.to_string()) });
        let requirement = Requirement { what: what.into(), settings: settings.into(), measured, target };
        println!("  => {}", requirement.cells().join("  "));
        self.requirements.push(requirement);
    }

    pub fn chart(&mut self, unit: &str, bars: &[(String, f64)]) {
        self.parts.push(Part::Bars { unit: unit.into(), bars: bars.to_vec() });
    }

    pub fn curves(&mut self, x: &str, y: &str, curves: &[Curve]) {
        self.parts.push(Part::Curves { x: x.into(), y: y.into(), curves: curves.to_vec() });
    }
}

#[derive(Serialize, Deserialize)]
pub struct Report {
    pub environment: Vec<(String, String)>,
    pub sections: Vec<Section>,
}

impl Report {
    pub fn of(environment: Vec<(String, String)>) -> Report {
        for (name, value) in &environment {
            println!("{name}: {value}");
        }
        Report { environment, sections: Vec::new() }
    }

    /// What the last run has left.
    pub fn last() -> Outcome<Report> {
        let file = file("results.json");
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))
    }

    /// Keeps the sections that the last run has left, of the same measures in the same order, until they are measured anew.
    pub fn keep_last(&mut self) {
        if let Ok(last) = Report::last() {
            self.sections = last.sections;
        }
    }

    /// The files are written anew with each section: a run that is stopped leaves what it has.
    pub fn add(&mut self, section: Section, order: &[&str]) {
        self.sections.retain(|kept| kept.name != section.name);
        self.sections.push(section);
        self.sections.sort_by_key(|section| order.iter().position(|name| *name == section.name));
        std::fs::create_dir_all(file("").as_path()).expect("target/bench");
        let json = serde_json::to_string_pretty(self).expect("plain data");
        std::fs::write(file("results.json"), json).expect("the results");
        std::fs::write(file("report.html"), page::html(self)).expect("the report");
    }

    pub fn requirements(&self) -> Vec<Vec<String>> {
        self.sections.iter().flat_map(|section| &section.requirements).map(Requirement::cells).collect()
    }

    pub fn finish(&self) {
        println!("\n==== all requirements");
        print_table(&REQUIREMENT_HEAD, &self.requirements());
        println!("\nthe report is {}", file("report.html").display());
    }

    /// Writes the page of the documentation.
    pub fn document(&self) -> Outcome<()> {
        docs::write(self, &project())
    }
}

/// The project's folder.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project").to_path_buf()
}

/// A file of the last run.
fn file(name: &str) -> PathBuf {
    project().join("target/bench").join(name)
}

fn print_table(head: &[&str], rows: &[Vec<String>]) {
    let width = |i: usize| {
        rows.iter().map(|row| row[i].chars().count()).chain([head[i].chars().count()]).max().unwrap_or(0).min(100)
    };
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().enumerate().map(|(i, cell)| format!("{cell:<width$}", width = width(i)));
        println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(head.to_vec());
    rows.iter().for_each(|row| line(row.iter().map(String::as_str).collect()));
}

/// A figure as people read it: 12,345 or 0.123.
pub fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{}", (value * 1000.0).round() / 1000.0);
    }
    let digits = format!("{value:.0}");
    let mut told = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            told.push(',');
        }
        told.push(digit);
    }
    told
}
