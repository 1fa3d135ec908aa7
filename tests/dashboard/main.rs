//! The dashboard: its pages' SQL on a cluster (`pages`), and the pages themselves in a browser (`browser`, by
//! `make dashboard-test`, as it takes minutes to build SQLPage).

mod browser;
mod pages;
mod shop;
mod sqlpage;
