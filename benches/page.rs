//! The report as a page that needs nothing but a browser.

use crate::chart;
use crate::report::{Part, REQUIREMENT_HEAD, Report};

const STYLE: &str = "body { font: 15px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
.note { color: #666; font-size: 13px }
.failure, .MISSED, .FAILED { color: #b00020; white-space: pre-wrap }
.reached { color: #1b7a3d }";

pub fn html(report: &Report) -> String {
    let mut page =
        format!("<!doctype html><meta charset=utf-8><title>kongtask, measured</title><style>{STYLE}</style>");
    page += "<h1>kongtask, measured</h1>";
    let facts = report.environment.iter().map(|(name, value)| vec![name.clone(), value.clone()]);
    page += &table(&[], &facts.collect::<Vec<_>>());
    page += "<h2>Requirements</h2>";
    page += &table(&REQUIREMENT_HEAD.map(String::from), &report.requirements());
    for section in &report.sections {
        page += &format!("<h2>{}</h2>", escaped(&section.name));
        page += &format!("<p class=note>{}</p>", escaped(&section.circumstances()));
        for part in &section.parts {
            page += &match part {
                Part::Heading(text) => format!("<h3>{}</h3>", escaped(text)),
                Part::Note(text) | Part::Detail(text) => format!("<p class=note>{}</p>", escaped(text)),
                Part::Failure(text) => format!("<p class=failure>{}</p>", escaped(text)),
                Part::Table(head, rows) => table(head, rows),
                Part::Bars { unit, bars } => chart::bars(unit, bars),
                Part::Curves { x, y, curves } => chart::curves(x, y, curves),
            };
        }
    }
    page
}

fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let head: String = head.iter().map(|cell| format!("<th>{}</th>", escaped(cell))).collect();
    let row = |row: &Vec<String>| {
        let class = row.last().map(String::as_str).filter(|cell| ["reached", "MISSED", "FAILED"].contains(cell));
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        format!("<tr class='{}'>{cells}</tr>", class.unwrap_or_default())
    };
    format!("<table><tr>{head}</tr>{}</table>", rows.iter().map(row).collect::<String>())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
