//! What a cron expression needs to know of dates and of time zones. All times are whole seconds since 2000-01-01 00:00,
//! either by UTC or as the clocks of a zone show them.

pub const DAY: i64 = 24 * 60 * 60;

/// The clocks of a time zone.
pub trait Calendar {
    /// Returns the offset from UTC that is in force at an instant, and the first change after it; `None` if there is
    /// none.
    fn offset_at(&self, utc: i64) -> (i64, Option<Change>);
}

/// A change of a zone's offset from UTC. The offset before it may be the same, where only the name of the offset
/// changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The first instant with the new offset.
    pub at: i64,
    pub offset: i64,
}

/// A month of the Gregorian calendar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Month {
    pub year: i64,
    /// From 1 to 12.
    pub number: u32,
}

/// From 0000-03-01 to 2000-01-01.
const DAYS_BEFORE_2000: i64 = 730_425;
const DAYS_OF_400_YEARS: i64 = 146_097;

impl Month {
    /// Returns the month that a day (counted from 2000-01-01) belongs to, and which day of it that is, from 1.
    pub fn of_day(day: i64) -> (Month, u32) {
        // Years begin in March here: so the leap day, if there is one, is the last of its year.
        let day = day + DAYS_BEFORE_2000;
        let (cycle, day) = (day.div_euclid(DAYS_OF_400_YEARS), day.rem_euclid(DAYS_OF_400_YEARS));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let of_month = day - (153 * month + 2) / 5 + 1;
        let number = if month < 10 { month + 3 } else { month - 9 };
        let year = cycle * 400 + year + i64::from(number <= 2);
        (Month { year, number: number as u32 }, of_month as u32)
    }

    /// Returns its first day, counted from 2000-01-01.
    pub fn first_day(self) -> i64 {
        let year = self.year - i64::from(self.number <= 2);
        let month = i64::from(if self.number > 2 { self.number - 3 } else { self.number + 9 });
        let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
        cycle * DAYS_OF_400_YEARS + 365 * year + year / 4 - year / 100 + (153 * month + 2) / 5 - DAYS_BEFORE_2000
    }

    /// Returns how many days it has.
    pub fn length(self) -> u32 {
        let is_leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        if is_leap && self.number == 2 { 29 } else { LENGTHS[self.number as usize - 1] }
    }

    pub fn next(self) -> Month {
        match self.number {
            12 => Month { year: self.year + 1, number: 1 },
            number => Month { number: number + 1, ..self },
        }
    }
}

/// How many days the months have in a common year.
pub const LENGTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Returns the day of the week of a day counted from 2000-01-01: 0 is Sunday.
pub fn weekday(day: i64) -> u32 {
    // That was a Saturday.
    (day + 6).rem_euclid(7) as u32
}
