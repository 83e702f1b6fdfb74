//! Dates, times of day and points in time.
//!
//! PostgreSQL's years reach from 4713 BC to 5874897, further than a calendar library goes. The
//! Gregorian calendar is the same every 400 years, so a date is a day of one such cycle, which the
//! library knows all about, and the number of the cycle.

use time::Month;

use super::{digits, split_at};

/// A value of a type that has a least and a greatest value beside all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bounded<T> {
    /// `-infinity`
    NegativeInfinity,
    /// Any other.
    Finite(T),
    /// `infinity`
    Infinity,
}

impl<T> Bounded<T> {
    /// The value, when it is none of the two.
    pub fn finite(self) -> Option<T> {
        match self {
            Self::Finite(value) => Some(value),
            Self::NegativeInfinity | Self::Infinity => None,
        }
    }

    fn parse(text: &[u8], finite: impl FnOnce(&[u8]) -> Option<T>) -> Option<Self> {
        match text {
            b"infinity" => Some(Self::Infinity),
            b"-infinity" => Some(Self::NegativeInfinity),
            _ => finite(text).map(Self::Finite),
        }
    }
}

/// Years, and days, after which the calendar repeats itself.
const CYCLE: (i32, i64) = (400, 146_097);
/// The first year of the cycle that the library is asked about.
const FIRST_YEAR: i32 = 2000;
/// 2000-01-01 in days since 1970-01-01.
const FIRST_DAY: i64 = 10_957;
/// 1970-01-01 as a Julian day.
const UNIX_EPOCH: i64 = 2_440_588;

/// A day of the Gregorian calendar, which is taken to have been in force for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    cycle: i32,
    within: time::Date,
}

impl Date {
    /// A day by its numbers; year 0 is 1 BC. `None` when there is no such day.
    #[must_use]
    pub fn new(year: i32, month: u8, day: u8) -> Option<Self> {
        let (cycle, of_cycle) = (year.div_euclid(CYCLE.0), year.rem_euclid(CYCLE.0));
        let within = time::Date::from_calendar_date(FIRST_YEAR + of_cycle, Month::try_from(month).ok()?, day).ok()?;
        Some(Self { cycle: cycle - FIRST_YEAR / CYCLE.0, within })
    }

    /// The day that is so many days after 1970-01-01.
    #[must_use]
    pub fn from_days(days: i64) -> Option<Self> {
        let since = days.checked_sub(FIRST_DAY)?;
        let (cycle, day) = (since.div_euclid(CYCLE.1), since.rem_euclid(CYCLE.1));
        let within = time::Date::from_julian_day(i32::try_from(UNIX_EPOCH + FIRST_DAY + day).ok()?).ok()?;
        Some(Self { cycle: i32::try_from(cycle).ok().filter(|cycle| cycle.unsigned_abs() < 5_000_000)?, within })
    }

    /// `2024-02-29`, `0044-03-15 BC`, `12345-01-01`, `infinity`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Bounded<Self>> {
        Bounded::parse(text, |text| {
            let (text, before_christ) = era(text);
            Self::parse_year_month_day(text, before_christ)
        })
    }

    fn parse_year_month_day(text: &[u8], before_christ: bool) -> Option<Self> {
        let (front, day) = text.split_at_checked(text.len().checked_sub(3)?)?;
        let (year, month) = front.split_at_checked(front.len().checked_sub(3)?)?;
        let part = |text: &[u8]| u8::try_from(digits(text.strip_prefix(b"-")?)?).ok();
        let year = i32::try_from(digits(year)?).ok().filter(|year| (1..=99_999_999).contains(year))?;
        Self::new(if before_christ { 1 - year } else { year }, part(month)?, part(day)?)
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub const fn days(self) -> i64 {
        self.cycle as i64 * CYCLE.1 + self.within.to_julian_day() as i64 - UNIX_EPOCH
    }

    /// The year; 0 is 1 BC.
    #[must_use]
    pub const fn year(self) -> i32 {
        self.cycle * CYCLE.0 + self.within.year()
    }

    /// 1 to 12.
    #[must_use]
    pub const fn month(self) -> u8 {
        self.within.month() as u8
    }

    /// 1 to 31.
    #[must_use]
    pub const fn day(self) -> u8 {
        self.within.day()
    }
}

/// A time of day in microseconds since midnight, `24:00:00` included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(i64);

impl Time {
    /// Microseconds of a day.
    pub const DAY: i64 = 86_400_000_000;

    /// So many microseconds after midnight; `None` outside of a day.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (0..=Self::DAY).contains(&micros).then_some(Self(micros))
    }

    /// `04:05:06.789`, `24:00:00`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let [h1, h2, b':', m1, m2, b':', s1, s2, fraction @ ..] = text else { return None };
        let part = |high: &u8, low: &u8| digits(&[*high, *low]);
        let (hour, minute, second) = (part(h1, h2)?, part(m1, m2)?, part(s1, s2)?);
        let micros = match fraction {
            [] => 0,
            [b'.', fraction @ ..] => fraction_micros(fraction)?,
            _ => return None,
        };
        if minute > 59 || second > 59 {
            return None;
        }
        Self::from_micros(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
    }

    /// `04:05:06.789+02`, `04:05:06-05:30`, `04:05:06+01:02:03`: the time, and how many seconds its
    /// zone is ahead of UTC.
    #[must_use]
    pub fn parse_zoned(text: &[u8]) -> Option<(Self, i32)> {
        let place = text.iter().rposition(|byte| matches!(byte, b'+' | b'-'))?;
        let (time, zone) = text.split_at(place);
        let mut seconds = 0;
        for (part, unit) in zone.get(1..)?.split(|byte| *byte == b':').zip([3600, 60, 1, 0]) {
            if unit == 0 || part.len() != 2 {
                return None;
            }
            seconds += i32::try_from(digits(part)?).ok()? * unit;
        }
        Some((Self::parse(time)?, if zone.first() == Some(&b'-') { -seconds } else { seconds }))
    }

    /// The time of day in UTC of a time in a zone that is so many seconds ahead.
    #[must_use]
    pub fn to_utc(self, ahead: i32) -> Self {
        Self((self.0 - i64::from(ahead) * 1_000_000).rem_euclid(Self::DAY))
    }

    /// Microseconds since midnight.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// 0 to 24.
    #[must_use]
    pub const fn hour(self) -> u8 {
        (self.0 / 3_600_000_000) as u8
    }

    /// 0 to 59.
    #[must_use]
    pub const fn minute(self) -> u8 {
        (self.0 / 60_000_000 % 60) as u8
    }

    /// 0 to 59.
    #[must_use]
    pub const fn second(self) -> u8 {
        (self.0 / 1_000_000 % 60) as u8
    }

    /// The microseconds of the second.
    #[must_use]
    pub const fn microsecond(self) -> u32 {
        (self.0 % 1_000_000) as u32
    }
}

/// A day and a time of it: `timestamp`, or `timestamptz` in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime {
    /// The day.
    pub date: Date,
    /// The time.
    pub time: Time,
}

impl DateTime {
    /// `2024-02-29 13:14:15.123456`, `0044-03-15 01:02:03 BC`; of a `timestamptz` with `+00`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Bounded<Self>> {
        Bounded::parse(text, |text| {
            let (text, before_christ) = era(text);
            let text = text.strip_suffix(b"+00").unwrap_or(text);
            let (date, time) = split_at(text, b' ')?;
            Some(Self { date: Date::parse_year_month_day(date, before_christ)?, time: Time::parse(time)? })
        })
    }

    /// The point so many microseconds after 1970-01-01 00:00:00.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Option<Self> {
        let date = Date::from_days(micros.div_euclid(Time::DAY))?;
        Some(Self { date, time: Time(micros.rem_euclid(Time::DAY)) })
    }

    /// Microseconds since 1970-01-01 00:00:00; `None` after the year 294246, where they do not fit.
    #[must_use]
    pub const fn unix_micros(self) -> Option<i64> {
        match self.date.days().checked_mul(Time::DAY) {
            Some(micros) => micros.checked_add(self.time.0),
            None => None,
        }
    }

    /// Milliseconds since 1970-01-01 00:00:00; what is below a millisecond is cut off towards the
    /// past.
    #[must_use]
    pub const fn unix_millis(self) -> i64 {
        self.date.days() * 86_400_000 + self.time.0 / 1000
    }
}

fn era(text: &[u8]) -> (&[u8], bool) {
    text.strip_suffix(b" BC").map_or((text, false), |text| (text, true))
}

/// One to six digits after a point, as microseconds.
pub(super) fn fraction_micros(fraction: &[u8]) -> Option<i64> {
    let places = u32::try_from(fraction.len()).ok().filter(|places| (1..=6).contains(places))?;
    Some(digits(fraction)? * 10_i64.pow(6 - places))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        Date::parse(text.as_bytes()).and_then(Bounded::finite).unwrap()
    }

    fn point(text: &str) -> DateTime {
        DateTime::parse(text.as_bytes()).and_then(Bounded::finite).unwrap()
    }

    #[test]
    fn dates_are_days_since_1970() {
        for (text, days, year) in [
            ("1970-01-01", 0, 1970),
            ("2024-02-29", 19_782, 2024),
            ("0001-01-01", -719_162, 1),
            ("0001-12-31 BC", -719_163, 0),
            ("0044-03-15 BC", -735_160, -43),
            ("4713-01-01 BC", -2_440_550, -4712),
            ("5874897-12-31", 2_145_042_905, 5_874_897),
        ] {
            let date = date(text);
            assert_eq!((date.days(), date.year()), (days, year), "{text}");
            assert_eq!(Date::from_days(days), Some(date), "{text}");
        }
        assert_eq!(Date::parse(b"infinity"), Some(Bounded::Infinity));
        assert_eq!(Date::parse(b"-infinity"), Some(Bounded::NegativeInfinity));
        for bad in
            ["", "2023-02-29", "2024-13-01", "2024-1-1", "0000-01-01", "-001-01-01", "2024-01-01 ad", "2024-01-0x"]
        {
            assert_eq!(Date::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn each_day_of_a_thousand_years_follows_the_one_before_it() {
        let mut last = Date::from_days(-400_000).unwrap();
        for days in -399_999..0 {
            let next = Date::from_days(days).unwrap();
            assert!(next > last && Date::new(next.year(), next.month(), next.day()) == Some(next), "{next:?}");
            last = next;
        }
    }

    #[test]
    fn times_of_day_have_microseconds_and_end_at_24_hours() {
        for (text, micros) in [
            ("00:00:00", 0),
            ("13:14:15.123456", 47_655_123_456),
            ("13:14:15.1", 47_655_100_000),
            ("24:00:00", Time::DAY),
        ] {
            assert_eq!(Time::parse(text.as_bytes()).map(Time::micros), Some(micros), "{text}");
        }
        for bad in ["24:00:01", "1:00:00", "00:60:00", "00:00:60", "00:00:00.", "00:00:00.1234567", "00:00"] {
            assert_eq!(Time::parse(bad.as_bytes()), None, "{bad}");
        }
        for (text, utc, ahead) in [
            ("13:14:15.123456+02", "11:14:15.123456", 7200),
            ("00:30:00+05:30", "19:00:00", 19_800),
            ("23:00:00-01:00:01", "00:00:01", -3601),
        ] {
            let (time, found) = Time::parse_zoned(text.as_bytes()).unwrap();
            assert_eq!((time.to_utc(found), found), (Time::parse(utc.as_bytes()).unwrap(), ahead), "{text}");
        }
        for bad in ["13:14:15", "13:14:15+", "13:14:15+2", "13:14:15+02:00:00:00"] {
            assert_eq!(Time::parse_zoned(bad.as_bytes()), None, "{bad}");
        }
        let time = Time::parse(b"13:14:15.123456").unwrap();
        assert_eq!((time.hour(), time.minute(), time.second(), time.microsecond()), (13, 14, 15, 123_456));
    }

    #[test]
    fn points_in_time_are_microseconds_since_1970_as_far_as_these_go() {
        for (text, micros) in [
            ("1970-01-01 00:00:00", 0),
            ("1969-12-31 23:59:59.999999", -1),
            ("2024-02-29 13:14:15.123456+00", 1_709_212_455_123_456),
            ("0044-03-15 01:02:03 BC", -63_517_820_277_000_000),
        ] {
            let point = point(text);
            assert_eq!(point.unix_micros(), Some(micros), "{text}");
            assert_eq!(point.unix_millis(), micros.div_euclid(1000), "{text}");
            assert_eq!(DateTime::from_unix_micros(micros), Some(point), "{text}");
        }
        let last = point("294276-12-31 23:59:59.999999+00");
        assert_eq!((last.unix_micros(), last.unix_millis(), last.date.year()), (None, 9_224_318_015_999_999, 294_276));
        assert_eq!(DateTime::parse(b"-infinity"), Some(Bounded::NegativeInfinity));
        assert_eq!(DateTime::parse(b"2024-02-29"), None);
    }
}
