//! Text in the database's encoding: bytes in any of the server's encodings, or in none at all (SQL_ASCII). Not Rust's
//! `String`, which pgrx uses: that can hold UTF-8 only.
//!
//! Text is not converted on its way through here, so that no conversion can fail or lose anything. In each encoding
//! that a database can have, bytes below 128 are ASCII characters and nothing else. So our own texts, which are ASCII,
//! and the database's are joined by joining their bytes.
//!
//! Rust's `format!` knows UTF-8 only. Text on its way through it has one character for each byte, U+0000 to U+00FF:
//! [`Display`] writes that form, and whatever passes a `str` to Postgres reads it by [`AsText`] or [`From`]. A `String`
//! holds text of the database only between these two.
//!
//! Only [`DbText::of`] converts between encodings, for text that a process of another database has left in shared
//! memory.

use super::spi::Value;
use pgrx::pg_sys::{self, Datum, Oid};
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::{self, Display, Write};

/// Text in the database's encoding, owned.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DbText(Vec<u8>);

/// Returns the encoding of the database that this process is connected to; SQL_ASCII if to none.
pub fn encoding() -> i32 {
    // SAFETY: reads a variable.
    unsafe { pg_sys::GetDatabaseEncoding() }
}

impl DbText {
    pub fn new(bytes: &[u8]) -> DbText {
        DbText(bytes.to_vec())
    }

    /// Wraps a C string of Postgres's.
    pub fn of_c(text: &CStr) -> DbText {
        DbText::new(text.to_bytes())
    }

    /// Wraps text of Rust code. A character that the database may not have becomes `?`.
    pub fn of_rust(text: &str) -> DbText {
        match encoding() {
            UTF8 | SQL_ASCII => DbText::new(text.as_bytes()),
            _ => DbText(text.chars().map(|char| if char.is_ascii() { char as u8 } else { b'?' }).collect()),
        }
    }

    /// Converts text from the encoding `from` of another database. A character that this database cannot have is shown
    /// by its bytes: `\xe9`. To be called within a transaction. Raises nothing.
    pub fn of(bytes: &[u8], from: i32) -> DbText {
        let to = encoding();
        if bytes.is_ascii() || from == to || to == SQL_ASCII {
            return DbText::new(bytes);
        }
        if from == SQL_ASCII {
            return DbText::new(bytes).valid();
        }
        by_character(bytes, from, |character| convert(character, from, to))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns it as a C string. Text of Postgres's has no NUL.
    pub fn c_string(&self) -> CString {
        CString::new(self.0.clone()).unwrap_or_else(|error| {
            let mut bytes = error.into_vec();
            bytes.retain(|&byte| byte != 0);
            CString::new(bytes).unwrap_or_default()
        })
    }

    pub fn push(&mut self, text: &(impl AsText + ?Sized)) {
        self.0.extend_from_slice(&text.encoded());
    }

    /// Cuts it before the character that goes beyond `most` bytes. Returns how many bytes were cut off.
    pub fn clip(&mut self, most: usize) -> usize {
        let length = self.0.len();
        if length > most {
            // No character is longer: what lies behind is not looked at.
            let looked_at = length.min(most + pg_sys::MAX_MULTIBYTE_CHAR_LEN as usize);
            // SAFETY: reads so many bytes at most.
            let end = unsafe { pg_sys::pg_mbcliplen(self.0.as_ptr().cast(), looked_at as c_int, most as c_int) };
            self.0.truncate(usize::try_from(end).unwrap_or(0));
        }
        length - self.0.len()
    }

    /// Returns it with the bytes that the database cannot have shown as `\xe9`. Names of databases and roles are in
    /// whatever encoding they were given, and so may be messages of libraries.
    pub fn valid(self) -> DbText {
        let encoding = encoding();
        if self.0.is_ascii() || is_valid(&self.0, encoding) {
            return self;
        }
        by_character(&self.0, encoding, |character| is_valid(character, encoding).then(|| character.to_vec()))
    }
}

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;

fn is_valid(bytes: &[u8], encoding: i32) -> bool {
    // SAFETY: reads so many bytes; told to raise nothing.
    unsafe { pg_sys::pg_verify_mbstr(encoding, bytes.as_ptr().cast(), bytes.len() as c_int, true) }
}

/// Converts each character beyond ASCII by `f`. Shows the bytes of those that `f` has nothing for, and of invalid ones.
fn by_character(bytes: &[u8], encoding: i32, f: impl Fn(&[u8]) -> Option<Vec<u8>>) -> DbText {
    let mut text = DbText::default();
    let mut rest = bytes;
    while let [first, ..] = rest {
        if first.is_ascii() {
            text.0.push(*first);
            rest = &rest[1..];
            continue;
        }
        // SAFETY: reads so many bytes at most.
        let length = unsafe { pg_sys::pg_encoding_verifymbchar(encoding, rest.as_ptr().cast(), rest.len() as c_int) };
        let character = usize::try_from(length).ok().and_then(|length| rest.get(..length.max(1)));
        match character.and_then(|character| Some((f(character)?, character.len()))) {
            Some((converted, length)) => {
                text.0.extend(converted);
                rest = &rest[length..];
            }
            None => {
                _ = write!(text, "\\x{first:02x}");
                rest = &rest[1..];
            }
        }
    }
    text
}

/// Converts a character; `None` if the other encoding has no such. Most encodings are converted by way of UTF-8.
fn convert(character: &[u8], from: i32, to: i32) -> Option<Vec<u8>> {
    let step = |bytes: &[u8], from: i32, to: i32| {
        if from == to {
            return Some(bytes.to_vec());
        }
        let mut converted = [0u8; 64];
        let mut source = bytes.to_vec();
        source.push(0);
        // SAFETY: a look-up, and a conversion between buffers of these sizes, which ends them with a NUL and raises
        // nothing.
        let read = unsafe {
            let function = pg_sys::FindDefaultConversionProc(from, to);
            if function == pg_sys::InvalidOid {
                return None;
            }
            let (source, target) = (source.as_mut_ptr(), converted.as_mut_ptr());
            pg_sys::pg_do_encoding_conversion_buf(
                function,
                from,
                to,
                source,
                bytes.len() as c_int,
                target,
                size_of_val(&converted) as c_int,
                true,
            )
        };
        let is_whole = usize::try_from(read) == Ok(bytes.len());
        is_whole.then(|| converted.iter().copied().take_while(|&byte| byte != 0).collect::<Vec<u8>>())
    };
    step(character, from, to).or_else(|| step(&step(character, from, UTF8)?, UTF8, to))
}

impl Display for DbText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if text.is_ascii() => f.write_str(text),
            _ => self.0.iter().try_for_each(|&byte| f.write_char(char::from(byte))),
        }
    }
}

impl Write for DbText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// A value that can be passed to Postgres as text.
pub trait AsText {
    /// Returns the bytes in the database's encoding.
    fn encoded(&self) -> Cow<'_, [u8]>;
}

impl AsText for DbText {
    fn encoded(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.0)
    }
}

impl AsText for str {
    fn encoded(&self) -> Cow<'_, [u8]> {
        if self.is_ascii() {
            return Cow::Borrowed(self.as_bytes());
        }
        Cow::Owned(self.chars().map(|char| u8::try_from(char).unwrap_or(b'?')).collect())
    }
}

impl AsText for String {
    fn encoded(&self) -> Cow<'_, [u8]> {
        self.as_str().encoded()
    }
}

impl<T: AsText + ?Sized> AsText for &T {
    fn encoded(&self) -> Cow<'_, [u8]> {
        (*self).encoded()
    }
}

impl<T: AsText + ?Sized> From<&T> for DbText {
    fn from(text: &T) -> DbText {
        DbText(text.encoded().into_owned())
    }
}

impl From<String> for DbText {
    fn from(text: String) -> DbText {
        if text.is_ascii() { DbText(text.into_bytes()) } else { DbText::from(text.as_str()) }
    }
}

impl PartialEq<str> for DbText {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other.encoded()
    }
}

/// Returns a name as an SQL identifier: quoted where SQL needs that.
pub fn quoted(name: &DbText) -> DbText {
    let name = name.c_string();
    // SAFETY: reads a NUL-terminated name, and returns it or a palloc'd copy.
    unsafe { DbText::of_c(CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr()))) }
}

/// How many characters of the database's encoding a text has.
pub fn characters(text: &(impl AsText + ?Sized)) -> usize {
    let bytes = text.encoded();
    // SAFETY: reads so many bytes.
    let count = unsafe { pg_sys::pg_mbstrlen_with_len(bytes.as_ptr().cast(), bytes.len() as c_int) };
    usize::try_from(count).unwrap_or(0)
}

/// Makes a `text` value in the current memory context.
pub fn text(value: &(impl AsText + ?Sized)) -> Value {
    let bytes = value.encoded();
    // SAFETY: copies so many bytes.
    let text = unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as c_int) };
    Some(Datum::from(text))
}

/// Makes a `text[]` value in the current memory context.
pub fn texts(values: &[impl AsText]) -> Value {
    let mut elements: Vec<Datum> = values.iter().filter_map(text).collect();
    let (length, by_value, alignment) = TEXT;
    // SAFETY: copies so many varlenas.
    let array = unsafe {
        pg_sys::construct_array(
            elements.as_mut_ptr(),
            elements.len() as c_int,
            pg_sys::TEXTOID,
            length,
            by_value,
            alignment,
        )
    };
    Some(Datum::from(array))
}

/// Makes a `text[]` value; NULL if there are no elements.
pub fn texts_or_null(values: &[impl AsText]) -> Value {
    if values.is_empty() { None } else { texts(values) }
}

/// Returns the elements of a `text[]`. NULL has none, and NULL elements are left out.
pub fn elements(array: Value) -> Vec<DbText> {
    array.map(nullable_elements).into_iter().flatten().flatten().collect()
}

/// Returns the elements of a `text[]`.
pub fn nullable_elements(array: Datum) -> Vec<Option<DbText>> {
    let (length, by_value, alignment) = TEXT;
    let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: by the caller's word a text[]; two arrays of `count` are made of it.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        pg_sys::deconstruct_array(
            array,
            pg_sys::TEXTOID,
            length,
            by_value,
            alignment,
            &mut elements,
            &mut nulls,
            &mut count,
        );
        (0..usize::try_from(count).unwrap_or(0))
            .map(|at| (!*nulls.add(at)).then(|| super::args::Text::new(*elements.add(at)).read()))
            .collect()
    }
}

/// Length, by value, alignment: what pg_type says of `text`.
const TEXT: (c_int, bool, c_char) = (-1, false, pg_sys::TYPALIGN_INT as c_char);

/// Makes a `name` value in the current memory context, from a name in any encoding.
pub fn name(value: DbText) -> Value {
    let mut name = value.valid();
    // Names of the catalog fit, except for those whose bytes have to be shown.
    name.clip(pg_sys::NAMEDATALEN as usize - 1);
    // SAFETY: a fresh, zeroed palloc of a name's size, the last byte left NUL.
    unsafe {
        let value = pg_sys::palloc0(size_of::<pg_sys::NameData>()).cast::<pg_sys::NameData>();
        std::ptr::copy_nonoverlapping(name.0.as_ptr(), (*value).data.as_mut_ptr().cast(), name.0.len());
        Some(Datum::from(value))
    }
}

/// A type as which a value can be read. There is no `String`: text is [`DbText`].
pub trait Read: Sized {
    /// # Safety
    /// The value is of a type that fits.
    unsafe fn read(value: Datum) -> Option<Self>;
}

macro_rules! read {
    ($($type:ty),+) => {
        $(impl Read for $type {
            unsafe fn read(value: Datum) -> Option<Self> {
                // SAFETY: by the caller's word.
                unsafe { pgrx::FromDatum::from_datum(value, false) }
            }
        })+
    };
}
read!(bool, i16, i32, i64, f64, Oid, Vec<Oid>, Vec<i64>);

impl Read for DbText {
    unsafe fn read(value: Datum) -> Option<Self> {
        Some(super::args::Text::new(value).read())
    }
}
