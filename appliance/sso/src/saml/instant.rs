//! Instants of SAML: `xs:dateTime` in UTC with a `Z` (SAML Core 2.0 section 1.3.3).

use zixt_types::Timestamp;

/// Reads `YYYY-MM-DDThh:mm:ss[.fraction]Z` as milliseconds of Unix time. Anything else is `None`: offsets, leap seconds,
/// years before 1970 or after 9999.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.strip_suffix('Z')?.as_bytes();
    let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if bytes.len() < 19 || punctuation.iter().any(|(at, mark)| bytes[*at] != *mark) {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = &bytes[from..to];
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let fraction_ms = match &bytes[19..] {
        [] => 0,
        [b'.', digits @ ..]
            if !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit) =>
        {
            (0..3).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| u64::from(digit - b'0')))
        }
        _ => return None,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    if year < 1970 || day == 0 || day > length || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let leaps_before = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = (year - 1970) * 365 + leaps_before(year) - leaps_before(1970);
    let months: u64 = lengths.iter().take(usize::try_from(month - 1).ok()?).sum();
    let days = years + months + day - 1;
    Some(Timestamp((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + fraction_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_exactly() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-11-28T01:00:00Z", 1_795_827_600),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse(text), Some(Timestamp(seconds * 1000)), "{text}");
        }
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Some(Timestamp(1500)));
        assert_eq!(parse("1970-01-01T00:00:01.123456789Z"), Some(Timestamp(1123)));
    }

    #[test]
    fn anything_else_is_no_instant() {
        for text in [
            "",
            "Z",
            "2026-11-28T01:00:00",
            "2026-11-28T01:00:00+00:00",
            "2026-11-28 01:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T01:00:60Z",
            "2026-11-28T01:00:00.Z",
            "1969-12-31T23:59:59Z",
            "-2026-11-28T01:00:00Z",
            "2026-11-28T01:00:0\u{661}Z",
            "2026-11-28T01:00:00ZZ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
