//! Time zones, as Postgres knows them.

use super::text::DbText;
use pgrx::pg_sys::{self, pg_tz};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_long};

// Not among pgrx's bindings.
unsafe extern "C-unwind" {
    fn pg_open_tzfile(name: *const c_char, canonical: *mut c_char) -> c_int;
}

/// Seconds from 1970-01-01, from which Postgres's zones count, to 2000-01-01.
const EPOCH: i64 = 946_684_800;

/// What a zone's name has at most, its NUL included.
const LONGEST_NAME: usize = 256;

/// A time zone of pg_timezone_names. A process keeps the zones that it has loaded, and what it knows of them, until it
/// ends.
#[derive(Clone, Copy)]
pub struct Zone(*mut pg_tz);

thread_local! {
    /// The zones that were asked for, by their names in upper case: to find a zone's file takes a look at a directory.
    static KNOWN: RefCell<HashMap<Vec<u8>, Zone>> = RefCell::default();
}

impl Zone {
    /// Returns the zone of this full name, in upper or lower case; `None` if pg_timezone_names has none.
    pub fn named(name: &DbText) -> Option<Zone> {
        let key = name.as_bytes().to_ascii_uppercase();
        if let Some(zone) = KNOWN.with_borrow(|known| known.get(&key).copied()) {
            return Some(zone);
        }
        let zone = load(name)?;
        KNOWN.with_borrow_mut(|known| known.insert(key, zone));
        Some(zone)
    }

    /// Returns its name as pg_timezone_names spells it.
    pub fn name(&self) -> DbText {
        // SAFETY: a zone of Postgres's, which has a NUL-terminated name.
        DbText::of_c(unsafe { CStr::from_ptr(pg_sys::pg_get_timezone_name(self.0)) })
    }

    /// Returns the offset from UTC at an instant (seconds since 2000-01-01 00:00 UTC), and the first change after it:
    /// when, and the offset from then on.
    pub fn clocks_at(&self, utc: i64) -> (i64, Option<(i64, i64)>) {
        let (offset, change) = self.boundary_after(utc);
        // At the last instant of the 400 years that Postgres has a table of, it knows of no change to come; one second
        // later it does.
        let change = change.or_else(|| self.boundary_after(utc + 1).1);
        (offset, change)
    }

    fn boundary_after(&self, utc: i64) -> (i64, Option<(i64, i64)>) {
        let time = utc + EPOCH;
        let (mut before, mut after): (c_long, c_long) = (0, 0);
        let (mut before_is_dst, mut after_is_dst, mut boundary) = (0, 0, 0);
        // SAFETY: fills in what it is given, from a zone of Postgres's; raises nothing.
        let found = unsafe {
            pg_sys::pg_next_dst_boundary(
                &time,
                &mut before,
                &mut before_is_dst,
                &mut boundary,
                &mut after,
                &mut after_is_dst,
                self.0,
            )
        };
        (before, (found == 1).then(|| (boundary - EPOCH, after)))
    }
}

/// Loads a zone that has a file. Postgres makes a zone of a POSIX string as well, and keeps it for ever: so it is not
/// asked for that.
fn load(name: &DbText) -> Option<Zone> {
    let name = name.c_string();
    if name.as_bytes().is_empty() || name.as_bytes().len() >= LONGEST_NAME {
        return None;
    }
    let mut canonical = [0 as c_char; LONGEST_NAME];
    // SAFETY: NUL-terminated names, and room for one; the descriptor is ours to close. Postgres never frees a zone.
    unsafe {
        let file = pg_open_tzfile(name.as_ptr(), canonical.as_mut_ptr());
        if file < 0 {
            return None;
        }
        libc::close(file);
        let zone = pg_sys::pg_tzset(canonical.as_ptr());
        (!zone.is_null() && pg_sys::pg_tz_acceptable(zone)).then_some(Zone(zone))
    }
}
