//! Sizes and durations as they are typed.
//!
//! Promises: one meaning of `10G` and of `7d` wherever they are taken; what
//! does not fit is refused, never rounded to something else. Tested below.

use std::time::Duration;

/// The powers of a unit's letter.
const LETTERS: &str = "KMGTPE";

/// A size in bytes: `4096`, `10G` and `10GiB` (of 1024), `10GB` (of 1000),
/// `1.5T`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("a size is written like 500M, 10G, 10GiB or 10GB, not {text:?}");
    let (number, unit) = split(text).ok_or_else(bad)?;
    let unit = unit.to_ascii_uppercase();
    let letter = unit.chars().next().unwrap_or('B');
    let power = match LETTERS.find(letter) {
        Some(index) => index as u32 + 1,
        None => 0,
    };
    let base: u64 = match (power, unit.get(1..).unwrap_or_default()) {
        (0, "") if letter == 'B' => 1,
        (1.., "" | "IB") => 1024,
        (1.., "B") => 1000,
        _ => return Err(bad()),
    };
    let bytes = scaled(number, u128::from(base).pow(power)).ok_or_else(bad)?;
    u64::try_from(bytes).map_err(|_| format!("{text:?} is more than a size can be"))
}

/// A duration: `90` and `90s`, `500ms`, `15m`, `24h`, `7d`, `2w`, and sums of
/// these, as in `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("a duration is written like 30s, 15m, 24h, 7d or 1h30m, not {text:?}");
    let mut rest = text.trim();
    let mut nanos: u128 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| c != '.' && !c.is_ascii_digit());
        let (number, tail) = rest.split_at(number_end.unwrap_or(rest.len()));
        let unit_end = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let second = 1_000_000_000;
        let scale: u128 = match unit {
            "ms" => 1_000_000,
            "s" => second,
            "m" | "min" => 60 * second,
            "h" => 3600 * second,
            "d" => 86_400 * second,
            "w" => 604_800 * second,
            // Alone it is a number of seconds; in a sum it could be anything.
            "" if rest.len() == text.trim().len() => second,
            _ => return Err(bad()),
        };
        nanos = scaled(number, scale).and_then(|n| n.checked_add(nanos)).ok_or_else(bad)?;
        rest = tail;
    }
    let whole = u64::try_from(nanos / 1_000_000_000);
    let whole = whole.map_err(|_| format!("{text:?} is more than a duration can be"))?;
    Ok(Duration::new(whole, (nanos % 1_000_000_000) as u32))
}

/// A point in time in seconds since 1970: `2026-11-25` and `2026-11-25T18:30`
/// (their ends), `2026-11-25T18:30:00Z`, or how long before `now`, like `2h`.
/// All are in UTC.
pub(crate) fn time(text: &str, now: i64) -> Result<i64, String> {
    let bad = || {
        format!("a time is written like 2026-11-25, 2026-11-25T18:30, or 2h (ago), not {text:?}")
    };
    // A number alone could be a year.
    let has_unit = text.contains(|c: char| c.is_ascii_alphabetic());
    if let (true, Ok(ago)) = (has_unit, duration(text)) {
        let ago = i64::try_from(ago.as_secs()).map_err(|_| bad())?;
        return now.checked_sub(ago).ok_or_else(bad);
    }
    let text = text.trim();
    let stamp = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let (date, clock) = stamp.split_once(['T', 't', ' ']).unwrap_or((stamp, ""));
    let fields = |text: &str, mark: char| -> Option<Vec<i64>> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        text.split(mark).map(|part| digits(part).then(|| part.parse().ok()).flatten()).collect()
    };
    let date = fields(date, '-').ok_or_else(bad)?;
    let clock = if clock.is_empty() { Some(Vec::new()) } else { fields(clock, ':') };
    let clock = clock.ok_or_else(bad)?;
    let &[year @ 1..=9999, month @ 1..=12, day @ 1..=31] = date.as_slice() else {
        return Err(bad());
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // What is not said is at its end.
    let (hour, minute, second) = match clock.as_slice() {
        [] => (23, 59, 59),
        &[hour, minute] => (hour, minute, 59),
        &[hour, minute, second] => (hour, minute, second),
        _ => return Err(bad()),
    };
    if day > length || hour > 23 || minute > 59 || second > 59 {
        return Err(bad());
    }
    // Days since 1970 (Howard Hinnant's days-from-civil).
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Ok(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// A number and the unit behind it, with blanks between them if one likes.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    (!number.is_empty() && unit.is_ascii()).then_some((number, unit))
}

/// A decimal fraction times a scale, exact but for what is smaller than one.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    // Ten digits behind the point say more than any unit has room for.
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 10 {
        return None;
    }
    if number.contains('.') && fraction.is_empty() {
        return None;
    }
    let whole = whole.parse::<u128>().ok()?.checked_mul(scale)?;
    let part = fraction.parse::<u128>().unwrap_or(0) * scale / 10u128.pow(fraction.len() as u32);
    whole.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_mean_what_people_write() {
        let sizes = [
            ("0", 0),
            ("4096", 4096),
            ("512B", 512),
            ("1k", 1 << 10),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("10 gib", 10 << 30),
            ("10GB", 10_000_000_000),
            ("1.5T", 3 << 39),
            ("0.1KB", 100),
            ("15E", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in sizes {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in [
            "",
            " ",
            "G",
            "-1",
            "+1",
            "1X",
            "1GG",
            "1iB",
            "1BB",
            "1.",
            ".5G",
            "1.2.3G",
            "1e3",
            "16E",
            "18446744073709551616",
            "0x10",
            "10 G B",
            "1ſ",
            "9999999999999999999999999999E",
        ] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_mean_what_people_write() {
        let seconds = Duration::from_secs;
        let durations = [
            ("90", seconds(90)),
            ("90s", seconds(90)),
            ("500ms", Duration::from_millis(500)),
            ("0.5", Duration::from_millis(500)),
            ("1.5h", seconds(5400)),
            ("1h30m", seconds(5400)),
            ("24h", seconds(86_400)),
            ("7d", seconds(604_800)),
            ("2w", seconds(1_209_600)),
            ("0", seconds(0)),
        ];
        for (text, expected) in durations {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn times_mean_what_people_write() {
        let now = 1_795_674_756;
        for (text, seconds) in [
            ("2026-11-26T06:32:36Z", now),
            ("2026-11-26 06:32:36", now),
            ("2026-11-26T06:32", now + 23),
            ("2026-11-25", 1_795_651_199),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31", -1),
            ("2024-02-29T00:00:00", 1_709_164_800),
            ("2h", now - 7200),
            ("0s", now),
        ] {
            assert_eq!(time(text, now), Ok(seconds), "{text}");
        }
        for bad in [
            "",
            "x",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-11-31",
            "2026-11-25T24:00",
            "2026-11-25T12",
            "2026-11-25T12:00:60Z",
            "-1-2-3",
            "2026-11-25T12:00:00+01:00",
            "20000000000000w",
        ] {
            assert!(time(bad, now).is_err(), "{bad:?}");
        }
        let shown = crate::show::time(warp_format::record::Time { secs: now, nanos: 0 });
        assert_eq!(time(&shown, 0), Ok(now));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for bad in ["", "h", "-1s", "1x", "1h30", "1 h", "1.s", "1y", "1M", "99999999999999999999d"]
        {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
