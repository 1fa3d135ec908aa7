//! JSON5, made into JSON as JavaScript's JSON5.parse and JSON.stringify do.
//!
//! Characters that are not ASCII stand for themselves in strings, comments and names: whatever encoding they are in,
//! they come out as they went in.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;

/// Values within values more than this are refused: each takes room on the stack.
const DEEPEST: usize = 500;

/// What is wrong, and the byte at which it is.
pub struct Json5Error {
    pub message: String,
    pub at: usize,
}

type Result<T> = std::result::Result<T, Json5Error>;

/// Returns the JSON that a JSON5 text stands for.
pub fn to_json(text: &str) -> Result<String> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let mut json = String::with_capacity(text.len());
    reader.value(&mut json)?;
    reader.skip_space()?;
    if reader.next().is_some() { Err(reader.unexpected()) } else { Ok(json) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn next(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn eats(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        self.at += if is_next { text.len() } else { 0 };
        is_next
    }

    fn error(&self, message: &str) -> Json5Error {
        Json5Error { message: message.into(), at: self.at }
    }

    fn unexpected(&self) -> Json5Error {
        match self.next() {
            Some(next) if next.is_ascii_graphic() => self.error(&format!("'{next}' is not expected here")),
            Some(_) => self.error("this character is not expected here"),
            None => self.error("the payload ends too soon"),
        }
    }

    /// Skips white space and comments.
    fn skip_space(&mut self) -> Result<()> {
        loop {
            self.at +=
                self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\u{b}', '\u{c}', '\r', '\n']).len();
            if self.eats("//") {
                self.at += self.rest().find(['\r', '\n']).unwrap_or(self.rest().len());
            } else if self.eats("/*") {
                let Some(end) = self.rest().find("*/") else { return Err(self.error("the comment does not end")) };
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn value(&mut self, json: &mut String) -> Result<()> {
        self.skip_space()?;
        match self.next() {
            Some('{') => self.nested(json, Reader::object),
            Some('[') => self.nested(json, Reader::array),
            Some('"' | '\'') => {
                quote(json, &self.string()?);
                Ok(())
            }
            _ => self.plain(json),
        }
    }

    fn nested(&mut self, json: &mut String, read: fn(&mut Self, &mut String) -> Result<()>) -> Result<()> {
        if self.depth == DEEPEST {
            return Err(self.error("the payload is nested too deeply"));
        }
        self.take();
        self.depth += 1;
        read(self, json)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self, json: &mut String) -> Result<()> {
        json.push('[');
        let mut has_values = false;
        while !self.is_over(']')? {
            json.push_str(if has_values { "," } else { "" });
            self.value(json)?;
            self.separator(']')?;
            has_values = true;
        }
        json.push(']');
        Ok(())
    }

    /// Of two members with the same key, the second counts.
    fn object(&mut self, json: &mut String) -> Result<()> {
        let mut members: Vec<(String, String)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        while !self.is_over('}')? {
            let key = if matches!(self.next(), Some('"' | '\'')) { self.string()? } else { self.name()? };
            self.skip_space()?;
            if !self.eats(":") {
                return Err(self.unexpected());
            }
            let mut value = String::new();
            self.value(&mut value)?;
            self.separator('}')?;
            match places.entry(key.clone()) {
                Entry::Occupied(place) => members[*place.get()].1 = value,
                Entry::Vacant(place) => {
                    place.insert(members.len());
                    members.push((key, value));
                }
            }
        }
        json.push('{');
        for (n, (key, value)) in members.iter().enumerate() {
            json.push_str(if n > 0 { "," } else { "" });
            quote(json, key);
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
        Ok(())
    }

    /// Reads the end of an array or an object, if it comes next.
    fn is_over(&mut self, end: char) -> Result<bool> {
        self.skip_space()?;
        Ok(self.eats(end.encode_utf8(&mut [0; 4])))
    }

    /// Reads a comma, unless the end comes next.
    fn separator(&mut self, end: char) -> Result<()> {
        self.skip_space()?;
        if self.next() == Some(end) || self.eats(",") { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Reads a string, and returns what JSON has between the quotes.
    fn string(&mut self) -> Result<String> {
        let quote = self.take();
        let mut text = String::new();
        loop {
            match self.next() {
                None | Some('\n' | '\r') => return Err(self.error("the string does not end")),
                next if next == quote => break,
                Some('\\') => self.escape(&mut text)?,
                Some(next) => push(&mut text, next),
            }
            self.take();
        }
        self.take();
        Ok(text)
    }

    /// Reads an escape up to its last character.
    fn escape(&mut self, text: &mut String) -> Result<()> {
        self.take();
        match self.next() {
            Some('b') => text.push_str("\\b"),
            Some('f') => text.push_str("\\f"),
            Some('n') => text.push_str("\\n"),
            Some('r') => text.push_str("\\r"),
            Some('t') => text.push_str("\\t"),
            Some('v') => text.push_str("\\u000b"),
            Some('0') if !self.rest()[1..].starts_with(|next: char| next.is_ascii_digit()) => text.push_str("\\u0000"),
            Some('x') => self.code_unit(text, 2)?,
            Some('u') => self.code_unit(text, 4)?,
            Some('\n') => {}
            Some('\r') if self.rest().starts_with("\r\n") => _ = self.take(),
            Some('\r') => {}
            Some('0'..='9') | None => return Err(self.unexpected()),
            Some(next) => push(text, next),
        }
        Ok(())
    }

    /// Reads `x41` or `u0041` up to its last digit.
    fn code_unit(&mut self, text: &mut String, digits: usize) -> Result<()> {
        self.take();
        let code = self.rest().get(..digits).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        let code = code.ok_or_else(|| self.error(&format!("{digits} hexadecimal digits are expected here")))?;
        match char::from_u32(code).filter(char::is_ascii) {
            Some(char) => push(text, char),
            None => _ = write!(text, "\\u{code:04x}"),
        }
        self.at += digits - 1;
        Ok(())
    }

    /// Reads the name of a member that has no quotes, and returns what JSON has between them.
    fn name(&mut self) -> Result<String> {
        let mut name = String::new();
        while let Some(next) = self.next() {
            match next {
                '$' | '_' | 'a'..='z' | 'A'..='Z' | '\u{80}'.. => name.push(next),
                '0'..='9' if !name.is_empty() => name.push(next),
                '\\' if self.rest().starts_with("\\u") => self.escape(&mut name)?,
                _ => break,
            }
            self.take();
        }
        if name.is_empty() { Err(self.unexpected()) } else { Ok(name) }
    }

    /// Reads a number, `true`, `false` or `null`.
    fn plain(&mut self, json: &mut String) -> Result<()> {
        for word in ["true", "false", "null"] {
            if self.eats(word) {
                json.push_str(word);
                return Ok(());
            }
        }
        let is_negative = self.eats("-");
        if !is_negative {
            self.eats("+");
        }
        let number = if self.eats("Infinity") || self.eats("NaN") { f64::NAN } else { self.number()? };
        // As JavaScript: numbers are 64 bits wide, 0 has no sign, and what is no number is null.
        _ = match if is_negative { -number } else { number } {
            number if !number.is_finite() => write!(json, "null"),
            0.0 => write!(json, "0"),
            number if (1e-6..1e21).contains(&number.abs()) => write!(json, "{number}"),
            number => write!(json, "{number:e}"),
        };
        Ok(())
    }

    fn number(&mut self) -> Result<f64> {
        if self.eats("0x") || self.eats("0X") {
            let digits = self.digits(|digit| digit.is_ascii_hexdigit());
            if digits.is_empty() {
                return Err(self.unexpected());
            }
            return Ok(digits
                .chars()
                .filter_map(|digit| digit.to_digit(16))
                .fold(0.0, |n, digit| n * 16.0 + f64::from(digit)));
        }
        let start = self.at;
        let has_whole = self.eats("0") || !self.digits(|digit| digit.is_ascii_digit()).is_empty();
        let has_fraction = self.eats(".") && !self.digits(|digit| digit.is_ascii_digit()).is_empty();
        if !has_whole && !has_fraction {
            return Err(self.unexpected());
        }
        if self.eats("e") || self.eats("E") {
            _ = self.eats("+") || self.eats("-");
            if self.digits(|digit| digit.is_ascii_digit()).is_empty() {
                return Err(self.unexpected());
            }
        }
        // Rust reads "1." and ".5" as well.
        self.text[start..self.at].parse().map_err(|_| self.unexpected())
    }

    fn digits(&mut self, is_digit: fn(&char) -> bool) -> String {
        let digits: String = self.rest().chars().take_while(is_digit).collect();
        self.at += digits.len();
        digits
    }
}

/// Adds a character as JSON has it between quotes.
fn push(text: &mut String, char: char) {
    match char {
        '"' | '\\' => text.extend(['\\', char]),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\0'..='\x1f' => _ = write!(text, "\\u{:04x}", char as u32),
        _ => text.push(char),
    }
}

fn quote(json: &mut String, text: &str) {
    json.push('"');
    json.push_str(text);
    json.push('"');
}
