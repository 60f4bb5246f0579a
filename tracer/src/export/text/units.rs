//! Numbers for people.

use super::canvas::Glyphs;

/// A duration with three significant digits: `850 ns`, `12.3 µs`, `1.20 ms`, `4.00 s`.
pub(super) fn duration(ns: u64, glyphs: &Glyphs) -> String {
    const UNITS: [(u64, &str); 4] = [(1, "n"), (1_000, "u"), (1_000_000, "m"), (1_000_000_000, "")];
    if ns == 0 {
        return "0".to_owned();
    }
    for (i, (unit, prefix)) in UNITS.into_iter().enumerate() {
        let value = ns as f64 / unit as f64;
        // What would round to four digits belongs to the next unit.
        if value >= 999.5 && i + 1 < UNITS.len() {
            continue;
        }
        let digits = match value {
            _ if i == 0 => 0,
            v if v < 9.995 => 2,
            v if v < 99.95 => 1,
            _ => 0,
        };
        let prefix = if prefix == "u" { glyphs.micro } else { prefix };
        return format!("{value:.digits$} {prefix}s");
    }
    format!("{ns} ns")
}

/// How exact something is: `±12.0 µs`; nothing where it is exact, `±?` where nobody knows.
pub(super) fn within(error_ns: Option<u64>, glyphs: &Glyphs) -> Option<String> {
    match error_ns {
        Some(0) => None,
        Some(error) => Some(format!("{}{}", glyphs.plus_minus, duration(error, glyphs))),
        None => Some(format!("{}?", glyphs.plus_minus)),
    }
}

/// `1 packet`, `5 packets`.
pub(super) fn count(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::TextOptions;
    use super::super::canvas::Canvas;
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let unicode = Canvas::new(&TextOptions::default());
        let ascii = Canvas::new(&TextOptions { unicode: false, ..TextOptions::default() });
        for (ns, text) in [
            (0, "0"),
            (1, "1 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_996, "10.0 µs"),
            (12_345, "12.3 µs"),
            (99_960, "100 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (1_204_000, "1.20 ms"),
            (3_050_000_000, "3.05 s"),
            (86_400_000_000_000, "86400 s"),
            (u64::MAX, "18446744074 s"),
        ] {
            assert_eq!(duration(ns, unicode.glyphs()), text);
        }
        assert_eq!(duration(12_345, ascii.glyphs()), "12.3 us");
    }

    #[test]
    fn counts_agree_in_number() {
        assert_eq!(count(1, "packet"), "1 packet");
        assert_eq!(count(0, "packet"), "0 packets");
    }
}
