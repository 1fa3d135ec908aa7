//! Reading cron expressions. An error says which character is wrong, and what would be right.

use super::calendar::DAY;
use super::cron::{ALL_WEEKDAYS, Cron, CronError, Days, Fields, Weekdays};

/// The longest expression, in bytes: one that lists every second, minute, hour and day takes 500.
const LONGEST: usize = 1000;

const HINT: &str = "Write five fields (minute, hour, day of month, month, day of week), such as '30 2 * * MON-FRI', six with the second first, \
     or an interval, such as '30 seconds'.";

/// What a field may hold.
struct Kind {
    name: &'static str,
    least: u32,
    most: u32,
    /// The names of its values, from the least on.
    names: &'static [&'static str],
    hint: &'static str,
}

const SECOND: Kind =
    Kind { name: "second", least: 0, most: 59, names: &[], hint: "A second is a number from 0 to 59." };
const MINUTE: Kind =
    Kind { name: "minute", least: 0, most: 59, names: &[], hint: "A minute is a number from 0 to 59." };
const HOUR: Kind = Kind { name: "hour", least: 0, most: 23, names: &[], hint: "An hour is a number from 0 to 23." };
const DAY_OF_MONTH: Kind = Kind {
    name: "day of month",
    least: 1,
    most: 31,
    names: &[],
    hint: "A day of month is a number from 1 to 31, L or $ for the last day, 15W for the weekday nearest to the 15th, or LW for the last weekday.",
};
const MONTH: Kind = Kind {
    name: "month",
    least: 1,
    most: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    hint: "A month is a number from 1 to 12, or a name from JAN to DEC.",
};
const DAY_OF_WEEK: Kind = Kind {
    name: "day of week",
    least: 0,
    most: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    hint: "A day of week is a number from 0 to 7 (0 and 7 are Sunday), a name from SUN to SAT, MON#2 for the second Monday of the month, or FRI#L for \
           the last Friday.",
};

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

const UNITS: [(&str, i64); 5] = [("second", 1), ("minute", 60), ("hour", 3600), ("day", DAY), ("week", 7 * DAY)];
const LONGEST_INTERVAL: i64 = 366 * DAY;

impl Kind {
    fn all(&self) -> u64 {
        set(self.least, self.most, 1)
    }
}

/// A word of the text, and the position of its first character.
#[derive(Clone, Copy)]
pub struct Word<'a> {
    pub text: &'a str,
    pub position: usize,
}

impl Cron {
    /// Reads five fields (minute, hour, day of month, month, day of week), six with the second first, a name such as
    /// `@hourly`, or an interval such as `30 seconds`.
    pub fn parse(text: &str) -> Result<Cron, CronError> {
        if text.len() > LONGEST {
            let message = format!("a cron expression has at most {LONGEST} characters");
            return Err(error(&message, LONGEST + 1, "Make several schedules of it."));
        }
        if let Some(at) = text.bytes().position(|byte| !matches!(byte, b' '..=b'~' | b'\t'..=b'\r')) {
            return Err(error("a cron expression has ASCII characters only", at + 1, HINT));
        }
        let words = words(text);
        match words[..] {
            [] => Err(error("the cron expression is empty", 1, HINT)),
            [name] if name.text.starts_with('@') => nickname(name),
            [number, unit] if unit.text.starts_with(|char: char| char.is_ascii_alphabetic()) => interval(number, unit),
            [minute, hour, day, month, weekday] => fields(None, [minute, hour, day, month, weekday]),
            [second, minute, hour, day, month, weekday] => fields(Some(second), [minute, hour, day, month, weekday]),
            _ => {
                let position = words.get(6).map_or(text.len() + 1, |word| word.position);
                Err(error(&format!("the cron expression has {} fields", words.len()), position, HINT))
            }
        }
    }
}

/// Splits a text at its white space.
pub fn words(text: &str) -> Vec<Word<'_>> {
    let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_ascii_whitespace().map(|word| Word { text: word, position: start(word) + 1 }).collect()
}

pub fn error(message: &str, position: usize, hint: &str) -> CronError {
    CronError { message: message.into(), line: 1, position, hint: hint.into() }
}

/// What an error shows of a text that it found.
fn shown(text: &str) -> String {
    if text.len() > 20 { format!("\"{}...\"", &text[..20]) } else { format!("\"{text}\"") }
}

fn nickname(name: Word<'_>) -> Result<Cron, CronError> {
    match NICKNAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.text)) {
        Some((_, expression)) => Cron::parse(expression),
        None => Err(error(
            &format!("{} is not a schedule", shown(name.text)),
            name.position,
            "The names are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly.",
        )),
    }
}

fn interval(number: Word<'_>, unit: Word<'_>) -> Result<Cron, CronError> {
    const HINT: &str = "An interval is a number and one of seconds, minutes, hours, days and weeks, such as '30 seconds', and no longer than 366 days.";
    let name = unit.text.to_ascii_lowercase();
    let name = name.strip_suffix('s').unwrap_or(&name);
    let Some((_, seconds)) = UNITS.iter().find(|(known, _)| *known == name) else {
        return Err(error(&format!("{} is not a unit of time", shown(unit.text)), unit.position, HINT));
    };
    let is_number = number.text.bytes().all(|byte| byte.is_ascii_digit());
    let length = number.text.parse::<i64>().ok().and_then(|number| number.checked_mul(*seconds));
    match length.filter(|length| is_number && (1..=LONGEST_INTERVAL).contains(length)) {
        Some(length) => Ok(Cron::Interval(length)),
        None => Err(error(&format!("{} is not the number of an interval", shown(number.text)), number.position, HINT)),
    }
}

fn fields(second: Option<Word<'_>>, words: [Word<'_>; 5]) -> Result<Cron, CronError> {
    let [minute, hour, day, month, weekday] = words;
    let seconds = second.map_or(Ok(1), |second| numbers(second, &SECOND))?;
    let (minutes, hours) = (numbers(minute, &MINUTE)?, numbers(hour, &HOUR)?);
    let (days, months) = (days(day)?, numbers(month, &MONTH)?);
    let both_days = weekday.text.starts_with('+');
    let weekdays = weekdays(if both_days { weekday.after(1) } else { weekday })?;
    let is_wildcard = |word: Word<'_>| word.text.contains('*');
    let follows_clocks = [second, Some(minute), Some(hour)].into_iter().flatten().any(is_wildcard)
        || [seconds, minutes, hours].into_iter().zip([&SECOND, &MINUTE, &HOUR]).any(|(set, kind)| set == kind.all());
    let fields = Fields { seconds, minutes, hours, days, months, weekdays, both_days, follows_clocks };
    if fields.are_impossible() {
        return Err(error(
            "there is no such day in any year",
            day.position,
            "A month has a day 31, 30 or 29 only if it is that long; with + before the day of week, both day fields must be able to match.",
        ));
    }
    Ok(Cron::Fields(fields))
}

/// Reads a field that holds only numbers and their names.
fn numbers(word: Word<'_>, kind: &Kind) -> Result<u64, CronError> {
    let mut set = 0;
    for mut item in items(word, kind)? {
        set |= item.range(kind)?;
        item.end(kind)?;
    }
    Ok(set)
}

fn days(word: Word<'_>) -> Result<Days, CronError> {
    let mut days = Days::default();
    for mut item in items(word, &DAY_OF_MONTH)? {
        if item.eats(b'$') {
            days.last = true;
        } else if item.eats(b'L') {
            *(if item.eats(b'W') { &mut days.last_weekday } else { &mut days.last }) = true;
        } else {
            let set = item.range(&DAY_OF_MONTH)?;
            let is_nearest = item.is_single(set) && item.eats(b'W');
            *(if is_nearest { &mut days.nearest } else { &mut days.set }) |= set;
        }
        item.end(&DAY_OF_MONTH)?;
    }
    Ok(days)
}

fn weekdays(word: Word<'_>) -> Result<Weekdays, CronError> {
    let mut weekdays = Weekdays::default();
    for mut item in items(word, &DAY_OF_WEEK)? {
        let set = item.range(&DAY_OF_WEEK)?;
        // 7 is Sunday, as 0.
        let set = (set | set >> 7) & ALL_WEEKDAYS;
        let is_of_month = !item.has_wildcard && (item.eats(b'#') || item.next() == Some(b'L'));
        *(if !is_of_month {
            &mut weekdays.every
        } else if item.eats(b'L') {
            &mut weekdays.last
        } else {
            let at = item.at;
            let nth = item.number(&DAY_OF_WEEK)?;
            let hint = "After # comes which of the month it is: 1 to 5, or L for the last.";
            let place = (nth as usize).checked_sub(1).and_then(|place| weekdays.nth.get_mut(place));
            place.ok_or_else(|| {
                error(&format!("a month does not have a weekday {nth} times"), item.word.position + at, hint)
            })?
        }) |= set;
        item.end(&DAY_OF_WEEK)?;
    }
    Ok(weekdays)
}

/// Splits a field at its commas.
fn items<'a>(word: Word<'a>, kind: &Kind) -> Result<Vec<Item<'a>>, CronError> {
    let mut position = word.position;
    let mut items = Vec::new();
    for text in word.text.split(',') {
        if text.is_empty() {
            return Err(error(&format!("a value of the {} field is missing", kind.name), position, kind.hint));
        }
        items.push(Item { word: Word { text, position }, at: 0, has_wildcard: false });
        position += text.len() + 1;
    }
    Ok(items)
}

impl<'a> Word<'a> {
    fn after(self, bytes: usize) -> Word<'a> {
        Word { text: &self.text[bytes..], position: self.position + bytes }
    }
}

/// One item of a field, read from left to right.
struct Item<'a> {
    word: Word<'a>,
    /// How much of it has been read.
    at: usize,
    has_wildcard: bool,
}

impl Item<'_> {
    fn rest(&self) -> &str {
        &self.word.text[self.at..]
    }

    /// The next character, in upper case.
    fn next(&self) -> Option<u8> {
        self.rest().bytes().next().map(|byte| byte.to_ascii_uppercase())
    }

    fn eats(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn error(&self, at: usize, message: &str, hint: &str) -> CronError {
        error(message, self.word.position + at, hint)
    }

    /// Reads `*`, `a` or `a-b`, and `/n` after the first and the last of these.
    fn range(&mut self, kind: &Kind) -> Result<u64, CronError> {
        let start = self.at;
        self.has_wildcard = self.eats(b'*');
        let (first, last) = if self.has_wildcard { (kind.least, kind.most) } else { self.bounds(kind)? };
        if self.next() != Some(b'/') {
            return Ok(set(first, last, 1));
        }
        if !self.has_wildcard && !self.word.text[start..self.at].contains('-') {
            let hint = format!("Write {first}-{}{}, or */n.", kind.most, self.rest());
            return Err(self.error(self.at, "a step follows * or a range only", &hint));
        }
        self.at += 1;
        let at = self.at;
        match self.number(kind)? {
            0 => Err(self.error(at, "a step must not be 0", "Write a number from 1 on.")),
            step => Ok(set(first, last, step)),
        }
    }

    fn bounds(&mut self, kind: &Kind) -> Result<(u32, u32), CronError> {
        let start = self.at;
        let first = self.value(kind)?;
        if !self.eats(b'-') {
            return Ok((first, first));
        }
        let is_name = self.next().is_some_and(|byte| byte.is_ascii_alphabetic());
        let last = match self.value(kind)? {
            // A range may end with Sunday.
            0 if kind.most == 7 && is_name && first > 0 => 7,
            last => last,
        };
        if last < first {
            let hint = format!("Write {first}-{},{}-{last}.", if kind.most == 7 { 6 } else { kind.most }, kind.least);
            return Err(self.error(
                start,
                &format!("the range {} ends before it begins", shown(&self.word.text[start..self.at])),
                &hint,
            ));
        }
        Ok((first, last))
    }

    /// Reads a number or a name.
    fn value(&mut self, kind: &Kind) -> Result<u32, CronError> {
        let start = self.at;
        if self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            let value = self.number(kind)?;
            if !(kind.least..=kind.most).contains(&value) {
                let message = format!(
                    "{} {} is out of range",
                    kind.name,
                    shown(&self.word.text[start..self.at]).replace('"', "")
                );
                return Err(self.error(start, &message, kind.hint));
            }
            return Ok(value);
        }
        let name = self.rest().get(..3).unwrap_or("");
        let value = (kind.least..).zip(kind.names).find(|(_, known)| known.eq_ignore_ascii_case(name));
        let value = value.map(|(value, _)| value).ok_or_else(|| self.not_understood(kind))?;
        self.at += 3;
        // MONDAY; but FRIL is the last Friday.
        if self.next().is_some_and(|byte| byte.is_ascii_alphabetic() && byte != b'L') {
            self.at = start;
            return Err(self.not_understood(kind));
        }
        Ok(value)
    }

    /// Reads a number; one that is too large to matter is some large number.
    fn number(&mut self, kind: &Kind) -> Result<u32, CronError> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit);
        let number = digits
            .clone()
            .fold(0u32, |number, digit| number.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
        let length = digits.count();
        if length == 0 {
            return Err(self.not_understood(kind));
        }
        self.at += length;
        Ok(number)
    }

    fn is_single(&self, set: u64) -> bool {
        set.count_ones() == 1 && self.rest().len() <= 1 && !self.word.text.contains(['-', '/', '*'])
    }

    fn end(&self, kind: &Kind) -> Result<(), CronError> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.not_understood(kind)) }
    }

    fn not_understood(&self, kind: &Kind) -> CronError {
        match self.rest() {
            "" => self.error(self.at, &format!("a value of the {} field is missing", kind.name), kind.hint),
            rest => {
                self.error(self.at, &format!("{} is not understood in the {} field", shown(rest), kind.name), kind.hint)
            }
        }
    }
}

/// The values from `first` to `last`, in steps.
fn set(first: u32, last: u32, step: u32) -> u64 {
    (first..=last).step_by(step as usize).fold(0, |set, value| set | 1 << value)
}
