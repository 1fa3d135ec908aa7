//! What was measured, printed as it comes, and kept for the page.

use crate::{Outcome, chart, page};
use std::path::Path;

pub const PAGE: &str = "target/bench/report.html";

/// What a measured ratio is to be.
#[derive(Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub fn is_reached(self, measured: f64) -> bool {
        match self {
            Target::AtLeast(least) => measured >= least,
            Target::AtMost(most) => measured <= most,
        }
    }

    pub fn told(self) -> String {
        match self {
            Target::AtLeast(least) => format!("at least {least}"),
            Target::AtMost(most) => format!("at most {most}"),
        }
    }
}

#[derive(Clone)]
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
            Ok(ratio) => (format!("{ratio:.3}"), if self.target.is_reached(*ratio) { "reached" } else { "MISSED" }),
            Err(error) => (error.lines().next().unwrap_or_default().into(), "FAILED"),
        };
        vec![self.what.clone(), self.settings.clone(), measured, self.target.told(), verdict.into()]
    }
}

pub const REQUIREMENT_HEAD: [&str; 5] = ["", "settings", "ratio", "target", ""];

/// Parts of a section, in the order in which they came.
pub enum Part {
    Heading(String),
    Note(String),
    Table(Vec<String>, Vec<Vec<String>>),
    Failure(String),
    Chart(String),
}

pub struct Section {
    pub name: String,
    pub parts: Vec<Part>,
    pub requirements: Vec<Requirement>,
}

impl Section {
    pub fn new(name: &str) -> Section {
        println!("\n==== {name}");
        Section { name: name.into(), parts: Vec::new(), requirements: Vec::new() }
    }

    pub fn heading(&mut self, text: &str) {
        println!("\n-- {text}");
        self.parts.push(Part::Heading(text.into()));
    }

    pub fn note(&mut self, text: &str) {
        println!("  {text}");
        self.parts.push(Part::Note(text.into()));
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
        let requirement = Requirement { what: what.into(), settings: settings.into(), measured, target };
        println!("  => {}", requirement.cells().join("  "));
        self.requirements.push(requirement);
    }

    pub fn chart(&mut self, unit: &str, bars: &[(String, f64)]) {
        self.parts.push(Part::Chart(chart::bars(unit, bars)));
    }

    pub fn curves(&mut self, x: &str, y: &str, curves: &[(String, Vec<(f64, f64)>)]) {
        self.parts.push(Part::Chart(chart::curves(x, y, curves)));
    }
}

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

    /// The page is written anew with each section: a run that is stopped leaves what it has.
    pub fn add(&mut self, section: Section) {
        self.sections.push(section);
        std::fs::create_dir_all(Path::new(PAGE).parent().expect("a folder")).expect("target/bench");
        std::fs::write(PAGE, page::html(self)).expect("the report");
    }

    pub fn requirements(&self) -> Vec<Vec<String>> {
        self.sections.iter().flat_map(|section| &section.requirements).map(Requirement::cells).collect()
    }

    pub fn finish(&self) {
        println!("\n==== all requirements");
        print_table(&REQUIREMENT_HEAD, &self.requirements());
        println!("\nthe report is {PAGE}");
    }
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
