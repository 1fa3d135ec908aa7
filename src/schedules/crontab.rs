//! Crontabs as graphile-worker reads them: `30 2 * * 1 send_report ?id=weekly&fill=1d {to: "all"}`.

use super::cron::CronError;
use super::json5;
use super::parse::{Word, error, words};
use std::collections::HashSet;

/// A line of a crontab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrontabEntry {
    /// Counted from 1.
    pub line: usize,
    /// Its five fields, for [`super::Cron::parse`].
    pub cron: String,
    pub task: String,
    /// `id=`, or else the task.
    pub identifier: String,
    /// `fill=`: how far back missed runs are made up for, in milliseconds; 0 if they are not.
    pub fill_ms: i64,
    /// `max=`
    pub max_attempts: Option<i32>,
    /// `queue=`
    pub queue_name: Option<String>,
    pub priority: Option<i32>,
    /// `jobKey=` and `jobKeyMode=`, which came with graphile-worker 0.14.
    pub job_key: Option<String>,
    pub job_key_mode: Option<String>,
    /// JSON, made of the line's JSON5.
    pub payload: Option<String>,
}

const LINE: &str = "A line has five fields, a task, and if need be options and a payload: 30 2 * * 1 send_report ?id=weekly&max=5 {to: \"all\"}.";
const OPTIONS: &str =
    "The options are id, fill, max, queue, priority, jobKey and jobKeyMode: ?id=weekly&fill=4h&max=5.";

/// Reads a whole crontab. Empty lines and those that begin with # are left out.
pub fn parse(text: &str) -> Result<Vec<CrontabEntry>, CronError> {
    let mut entries = Vec::new();
    let mut identifiers = HashSet::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        let content = line.trim_ascii();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let entry = entry(line, number).map_err(|error| CronError { line: number, ..error })?;
        if !identifiers.insert(entry.identifier.clone()) {
            let message = format!("two entries of the crontab have the identifier \"{}\"", entry.identifier);
            let position = words(line).first().map_or(1, |word| word.position);
            return Err(CronError {
                line: number,
                ..error(&message, position, "Give each its own by an option: ?id=weekly.")
            });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(line: &str, number: usize) -> Result<CrontabEntry, CronError> {
    let words = words(line);
    let [minute, hour, day, month, weekday, task, ..] = words[..] else {
        return Err(error("the line of the crontab ends too soon", line.trim_ascii_end().len() + 1, LINE));
    };
    let fields = [minute, hour, day, month, weekday];
    for field in fields {
        check_field(field)?;
    }
    let cron = fields.map(|field| field.text).join(" ");
    super::cron::Cron::parse(&cron).map_err(|error| in_line(error, &fields))?;
    check(
        task,
        is_task,
        "the task's name",
        "A task begins with a letter or _, and goes on with letters, digits, and _ : / -.",
    )?;
    let mut entry = CrontabEntry {
        line: number,
        cron,
        task: task.text.into(),
        identifier: task.text.into(),
        fill_ms: 0,
        max_attempts: None,
        queue_name: None,
        priority: None,
        job_key: None,
        job_key_mode: None,
        payload: None,
    };
    let mut rest = after(line, task);
    if let Some(options) = words.get(6).filter(|word| word.text.starts_with('?')) {
        read_options(&mut entry, *options)?;
        rest = after(line, *options);
    }
    if !rest.text.is_empty() {
        entry.payload = Some(payload(rest)?);
    }
    Ok(entry)
}

/// What comes after a word of a line.
fn after<'a>(line: &'a str, word: Word<'_>) -> Word<'a> {
    let text = line[word.position - 1 + word.text.len()..].trim_ascii();
    Word { text, position: text.as_ptr() as usize - line.as_ptr() as usize + 1 }
}

/// graphile-worker's fields have numbers, ranges, and wildcards with or without a step.
fn check_field(field: Word<'_>) -> Result<(), CronError> {
    let mut position = field.position;
    for part in field.text.split(',') {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = |digits: &str| digits.parse().unwrap_or(u64::MAX);
        let is_range = part
            .split_once('-')
            .is_some_and(|(first, last)| is_number(first) && is_number(last) && value(first) < value(last));

        let is_wildcard = part == "*" || part.strip_prefix("*/").is_some_and(is_number);
        if !(is_number(part) || is_range || is_wildcard) {
            return Err(error(
                "this is not a number, a range or a wildcard",
                position,
                "A field of a crontab has values such as 5, 1-5, * or */5, with commas between them.",
            ));
        }
        position += part.len() + 1;
    }
    Ok(())
}

/// An error in the fields joined by single spaces, as one in the line.
fn in_line(error: CronError, fields: &[Word<'_>; 5]) -> CronError {
    let mut start = 1;
    for field in fields {
        let end = start + field.text.len();
        if error.position <= end {
            return CronError { position: field.position + error.position - start, ..error };
        }
        start = end + 1;
    }
    error
}

fn check(word: Word<'_>, is_valid: fn(&str) -> bool, what: &str, hint: &str) -> Result<(), CronError> {
    if is_valid(word.text) { Ok(()) } else { Err(error(&format!("{what} is not valid"), word.position, hint)) }
}

/// True for what graphile-worker takes for one, and for the task that runs commands.
fn is_task(text: &str) -> bool {
    is_name(text, b":/_-") || text == "kongtask.sql"
}

fn is_identifier(text: &str) -> bool {
    is_name(text, b"_-")
}

/// True if it begins with a letter or `_`, and goes on with letters, digits and these.
fn is_name(text: &str, others: &[u8]) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && has_only(text, others)
}

fn has_only(text: &str, others: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

fn read_options(entry: &mut CrontabEntry, options: Word<'_>) -> Result<(), CronError> {
    let mut seen = HashSet::new();
    let mut position = options.position + 1;
    if options.text.len() == 1 {
        return Err(error("there are no options after ?", options.position, OPTIONS));
    }
    for option in options.text[1..].split('&') {
        if !option.is_empty() {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let [key, value] = [key, value]
                .map(|text| decode(text).ok_or_else(|| error("this character is not ASCII", position, OPTIONS)));
            let (key, value) = (key?, value?);
            if !set_option(entry, &key, &value) {
                return Err(error(&format!("the option {} is not valid", shown(&key)), position, OPTIONS));
            }
            if !seen.insert(key) {
                return Err(error("an option is given twice", position, OPTIONS));
            }
        }
        position += option.len() + 1;
    }
    Ok(())
}

/// What an error shows of a text.
fn shown(text: &str) -> String {
    text.chars().take(20).collect()
}

/// False if there is no such option, or its value is none.
fn set_option(entry: &mut CrontabEntry, key: &str, value: &str) -> bool {
    let text = Some(value.to_string());
    let number = || {
        value
            .strip_prefix('-')
            .unwrap_or(value)
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| value.parse().ok())?
    };
    match key {
        "id" if is_identifier(value) => entry.identifier = value.into(),
        "fill" => match duration(value) {
            Some(length) => entry.fill_ms = length,
            None => return false,
        },
        "max" if !value.starts_with('-') => entry.max_attempts = number(),
        "queue" if !value.is_empty() && has_only(value, b"-_:") => entry.queue_name = text,
        "priority" => entry.priority = number(),
        "jobKey" => entry.job_key = text.filter(|key| !key.is_empty()),
        "jobKeyMode" if ["replace", "preserve_run_at"].contains(&value) => entry.job_key_mode = text,
        _ => return false,
    }
    match key {
        "max" => entry.max_attempts.is_some(),
        "priority" => entry.priority.is_some(),
        _ => true,
    }
}

/// Reads a length of time such as `4w3d2h1m30s`, in milliseconds.
fn duration(text: &str) -> Option<i64> {
    let mut total: Option<i64> = None;
    let mut number: Option<i64> = None;
    for char in text.chars() {
        if let Some(digit) = char.to_digit(10) {
            number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(i64::from(digit)));
            continue;
        }
        let unit = match char {
            's' => 1000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            'w' => 7 * 86_400_000,
            _ => return None,
        };
        total = Some(total.unwrap_or(0).saturating_add(number.take()?.saturating_mul(unit)));
    }
    total.filter(|_| number.is_none())
}

/// Decodes what a query string has: `+` for a space, and `%41`; what is not the code of a character stays as it is.
/// `None` if one is not ASCII.
fn decode(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let code = rest.strip_prefix('%').and_then(|code| code.get(..2));
        let code = code
            .filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        decoded.push(match code {
            Some(code) if !code.is_ascii() || code == 0 => return None,
            Some(code) => char::from(code),
            None if next == '+' => ' ',
            None => next,
        });
        rest = &rest[code.map_or(next.len_utf8(), |_| 3)..];
    }
    Some(decoded)
}

fn payload(text: Word<'_>) -> Result<String, CronError> {
    const HINT: &str = "A payload is an object of JSON5, such as {to: \"all\"}.";
    if !text.text.starts_with('{') {
        return Err(error("what comes after the task is neither options nor a payload", text.position, LINE));
    }
    json5::to_json(text.text).map_err(|wrong| error(&wrong.message, text.position + wrong.at, HINT))
}
