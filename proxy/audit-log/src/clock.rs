//! Wall time as RFC 3339 text.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::value::push_number;

/// Microseconds since 1970, 0 for clocks set before.
#[must_use]
pub fn unix_micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|age| u64::try_from(age.as_micros()).ok())
        .unwrap_or(0)
}

/// `2026-11-24T11:49:13.000250Z`; always 27 bytes until the year 9999.
#[must_use]
pub fn rfc3339(unix_micros: u64) -> String {
    let mut text = Vec::with_capacity(27);
    push_rfc3339(&mut text, unix_micros);
    // It is ASCII.
    String::from_utf8(text).unwrap_or_default()
}

pub(crate) fn push_rfc3339(text: &mut Vec<u8>, unix_micros: u64) {
    let (seconds, micros) = (unix_micros / 1_000_000, unix_micros % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    if year > 9999 {
        push_number(text, year);
    } else {
        push_digits::<4>(text, year);
    }
    for (before, number) in [
        (b'-', month),
        (b'-', day),
        (b'T', second / 3600),
        (b':', second / 60 % 60),
        (b':', second % 60),
    ] {
        text.push(before);
        push_digits::<2>(text, number);
    }
    text.push(b'.');
    push_digits::<6>(text, micros);
    text.push(b'Z');
}

/// The last `N` decimal digits.
fn push_digits<const N: usize>(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        // Below ten.
        *digit += (number % 10) as u8;
        number /= 10;
    }
    text.extend_from_slice(&digits);
}

/// Reads what [`rfc3339`] writes, a plain date, or a date and time without fraction, all UTC, as
/// microseconds since 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut date = date.split('-');
    let (year, month, day) = (
        number(date.next()?)?,
        number(date.next()?)?,
        number(date.next()?)?,
    );
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.split(':');
    let (hour, minute) = (number(time.next()?)?, number(time.next()?)?);
    let second = time.next().map_or(Some(0), number)?;
    if fraction.len() > 6 || !(1970..=9999).contains(&year) || date.next().is_some() {
        return None;
    }
    let micros = number(&format!("{fraction:0<6}"))?;
    if hour > 23 || minute > 59 || second > 60 || time.next().is_some() {
        return None;
    }
    let days = days_since_epoch(year, month, day)?;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) * 1_000_000 + micros)
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The date of a day since 1970. Years begin in March here, so that the day that comes and goes is
/// the last of one; 400 years have 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // March to January have 31, 30, 31, 30, 31, 31, 30, … days: 153 in five months.
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (era * 400 + year, month + 3)
    } else {
        (era * 400 + year + 1, month - 9)
    };
    (year, month, day_of_month)
}

fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=month_days(year, month)).contains(&day) {
        return None;
    }
    let years = (1970..year)
        .map(|y| if leap(y) { 366 } else { 365 })
        .sum::<u64>();
    let months = (1..month).map(|m| month_days(year, m)).sum::<u64>();
    Some(years + months + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(rfc3339(253_402_300_800_000_000).len(), 28);
        assert_eq!(parse_rfc3339("2000-02-29"), Some(951_782_400_000_000));
        assert_eq!(
            parse_rfc3339("2000-02-29T00:00:01.5Z"),
            Some(951_782_401_500_000)
        );
        for text in [
            "",
            "2000-02-30",
            "2000-13-01",
            "2000-01-01T24:00",
            "x",
            "2000-01-01-01",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(micros in 0u64..253_402_300_800_000_000) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(micros)), Some(micros));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = parse_rfc3339(&text);
        }
    }
}
