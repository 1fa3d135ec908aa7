//! Schedules of pg_cron, which reads day fields as Vixie's cron does.

use super::cron::{Cron, CronError};
use super::parse::words;

impl Cron {
    /// Returns the expression that means here what `text` means to pg_cron. The two differ where both day fields
    /// restrict and one begins with `*` (`*/2`: pg_cron then takes the days that match both), and where one has all its
    /// values without a `*` (`1-31`: pg_cron then takes every day).
    pub fn from_pg_cron(text: &str) -> Result<String, CronError> {
        let Cron::Fields(fields) = Cron::parse(text)? else { return Ok(text.into()) };
        let words: Vec<&str> = words(text).iter().map(|word| word.text).collect();
        let [minute, hour, day, month, weekday] = words[..] else { return Ok(text.into()) };
        let has_star = day.starts_with('*') || weekday.starts_with('*');
        let both_restrict = fields.days.restrict() && fields.weekdays.restrict();
        Ok(match (has_star, both_restrict) {
            (true, true) => format!("{minute} {hour} {day} {month} +{weekday}"),
            (false, false) => format!("{minute} {hour} * {month} *"),
            _ => text.into(),
        })
    }
}
