// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sizes for people.

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size with one decimal and the unit that fits, as Nix 2.33 and newer print it: `0.3 KiB` is the smallest unit.
pub(crate) fn size_text(bytes: u64) -> String {
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be rounded to 1024.0 is one of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_fits_the_size() {
        let check = |bytes, expected| assert_eq!(size_text(bytes), expected);
        check(0, "0.0 KiB");
        check(300, "0.3 KiB");
        check(1024, "1.0 KiB");
        check(1024 * 1024 - 1, "1.0 MiB");
        check(5 << 30, "5.0 GiB");
        check(u64::MAX, "16.0 EiB");
    }
}
