//! Crontabs as graphile-worker reads them.

use super::cron::CronError;

/// A line of a crontab.
#[derive(Clone, Debug)]
pub struct CrontabEntry {
    /// Its line, counted from 1.
    pub line: usize,
    /// The five fields as written, for [`super::Cron::parse`].
    pub cron: String,
    pub task: String,
    /// `?id=`, or else the task.
    pub identifier: String,
    /// `fill=`: how far back missed runs are made up for, in milliseconds; 0 if they are not.
    pub fill_ms: i64,
    pub max_attempts: Option<i32>,
    pub queue_name: Option<String>,
    pub priority: Option<i32>,
    /// Of later versions of graphile-worker, as the next one.
    pub job_key: Option<String>,
    pub job_key_mode: Option<String>,
    /// JSON, made of the line's JSON5.
    pub payload: Option<String>,
}

/// Reads a whole crontab. The message of an error names the line.
pub fn crontab(_text: &str) -> Result<Vec<CrontabEntry>, CronError> {
    unimplemented!()
}
