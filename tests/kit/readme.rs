//! README.md, and the SQL in it.

pub const README: &str = include_str!("../../README.md");

/// The fenced blocks whose fence says this.
pub fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}
