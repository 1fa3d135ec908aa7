//! The page of the documentation: benches/benchmarks.md, with what the last run found put in.
//!
//! A line of it that begins with @ stands for what is put there: `@environment`, `@runs`, `@requirements`, and `@measure` with
//! the name of a measure. README.md has the first of its figures, between two comments: in a row, as
//! that page is to fit a first visit.

use crate::report::{Part, REQUIREMENT_HEAD, Report, Section, number};
use crate::{Outcome, chart};
use std::path::Path;

const TEMPLATE: &str = include_str!("benchmarks.md");
const PAGE: &str = "docs/benchmarks.md";
/// Beside the page.
const PICTURES: &str = "benchmarks";
const README: [&str; 2] = ["<!-- figures, by `make bench-page` -->\n", "<!-- end of figures -->\n"];

pub fn write(report: &Report, project: &Path) -> Outcome<()> {
    let told = |error: std::io::Error| error.to_string();
    let pictures = project.join("docs").join(PICTURES);
    // Those of measures that have gone are not kept.
    let _ = std::fs::remove_dir_all(&pictures);
    std::fs::create_dir_all(&pictures).map_err(told)?;
    let mut page = String::new();
    for line in TEMPLATE.lines() {
        match line.strip_prefix('@') {
            Some(what) => page += &put(report, what, &pictures)?,
            None => page += &format!("{line}\n"),
        }
    }
    std::fs::write(project.join(PAGE), page).map_err(told)?;
    let readme = project.join("README.md");
    let text = std::fs::read_to_string(&readme).map_err(told)?;
    std::fs::write(&readme, with_figures(&text, &(busy(report) + &first_figures(report)?))?).map_err(told)
}

/// What a line of the template stands for.
fn put(report: &Report, what: &str, pictures: &Path) -> Outcome<String> {
    if let Some(name) = what.strip_prefix("measure ") {
        return section_named(report, name).map_or_else(|_| Ok("Not measured.\n".into()), |s| section(s, pictures));
    }
    let pairs = |(name, value): &(String, String)| vec![name.clone(), value.clone()];
    match what {
        "environment" => Ok(table(&["", ""], &report.environment.iter().map(pairs).collect::<Vec<_>>())),
        "runs" => Ok(busy(report)
            + &table(
                &["measure", "begun (UTC)", "commit", "load", "rounds", "scale", "took"],
                &report.sections.iter().map(circumstances).collect::<Vec<_>>(),
            )),
        "requirements" => Ok(table(&REQUIREMENT_HEAD, &report.requirements())),
        _ => Err(format!("@{what} stands for nothing")),
    }
}

/// Says so if the machine had other things to do. What the bench itself does is part of the load behind a measure, and so
/// of that before the next.
fn busy(report: &Report) -> String {
    const ALMOST_IDLE: f64 = 1.0;
    let load = report.sections.first().and_then(|section| section.load[0].parse::<f64>().ok()).unwrap_or(0.0);
    if load <= ALMOST_IDLE {
        return String::new();
    }
    format!(
        "**The machine was busy with other work when this was measured** (load {load} before the first measure): all rates \
         are too low, latencies are too high, and ratios are rough.\n\n"
    )
}

fn circumstances(section: &Section) -> Vec<String> {
    let [before, after] = &section.load;
    vec![
        section.name.clone(),
        section.began.clone(),
        section.commit.clone(),
        format!("{before} to {after}"),
        section.rounds.to_string(),
        section.scale.to_string(),
        format!("{:.0} s", section.seconds),
    ]
}

fn section_named<'a>(report: &'a Report, name: &str) -> Outcome<&'a Section> {
    report.sections.iter().find(|section| section.name == name).ok_or(format!("{name} was not measured"))
}

fn section(section: &Section, pictures: &Path) -> Outcome<String> {
    let mut text = String::new();
    let mut title = section.name.clone();
    let mut charts = 0;
    for part in &section.parts {
        let svg = match part {
            Part::Detail(_) => continue,
            Part::Heading(heading) => {
                title = heading.clone();
                text += &format!("### {heading}\n\n");
                continue;
            }
            Part::Note(note) => {
                text += &format!("{}\n\n", cell(note));
                continue;
            }
            Part::Failure(failure) => {
                text += &format!("Failed: {}\n\n", cell(failure.lines().next().unwrap_or_default()));
                continue;
            }
            Part::Table(head, rows) => {
                text += &table(&head.iter().map(String::as_str).collect::<Vec<_>>(), rows);
                text += "\n";
                continue;
            }
            Part::Bars { unit, bars } => chart::bars(unit, bars),
            Part::Curves { x, y, curves } => chart::curves(x, y, curves),
        };
        charts += 1;
        let file = format!("{}-{charts}.svg", section.name);
        std::fs::write(pictures.join(&file), svg).map_err(|error| error.to_string())?;
        text += &format!("![{title}]({PICTURES}/{file})\n\n");
    }
    Ok(text.trim_end().to_string() + "\n")
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head.iter().map(|name| cell(name)).collect());
    text += &line(vec!["---".into(); head.len()]);
    for row in rows {
        text += &line(row.iter().map(|text| cell(text)).collect());
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

/// The first table of the first measure, without what is no queue.
fn first_figures(report: &Report) -> Outcome<String> {
    let writing = section_named(report, "writing")?;
    let bars = writing.parts.iter().find_map(|part| if let Part::Bars { bars, .. } = part { Some(bars) } else { None });
    let shown = bars.ok_or("writing has no figures")?.iter().filter(|(name, _)| !name.starts_with("the server alone"));
    let (names, rates): (Vec<&str>, Vec<String>) = shown.map(|(name, rate)| (name.as_str(), number(*rate))).unzip();
    Ok(table(&names, &[rates]))
}

fn with_figures(readme: &str, figures: &str) -> Outcome<String> {
    let [begin, end] = README;
    let lacks = || format!("README.md lacks {begin}");
    let (before, rest) = readme.split_once(begin).ok_or_else(lacks)?;
    let (_, after) = rest.split_once(end).ok_or_else(lacks)?;
    Ok(format!("{before}{begin}{figures}{end}{after}"))
}
