// SPDX-License-Identifier: MIT OR Apache-2.0
//! The search for references, compared with a search that cannot go wrong.

use proptest::prelude::*;
use superpose_nar::ReferenceScanner;
use superpose_store_path::HashPart;

/// Bytes among which hash parts, parts of them, and long runs of digits are frequent.
fn text(parts: &[HashPart]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let digits: Vec<_> = parts.iter().map(|part| part.digits().to_vec()).collect();
    let cut = (
        proptest::sample::select(digits.clone()),
        0..32_usize,
        0..=32_usize,
    )
        .prop_map(|(digits, from, to)| digits[from.min(to)..from.max(to)].to_vec());
    let piece = prop_oneof![
        3 => proptest::sample::select(digits),
        2 => cut,
        2 => proptest::collection::vec(proptest::sample::select(b"0123abc".to_vec()), 0..40),
        2 => proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Candidates, one of them a run of a single digit.
fn parts() -> Vec<HashPart> {
    (0..6_u8)
        .map(|seed| HashPart::new(std::array::from_fn(|index| seed.wrapping_mul(37 + index as u8))))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_a_plain_search_finds(
        text in text(&parts()),
        mut borders in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut scanner = ReferenceScanner::new(parts());
        let mut borders: Vec<_> = borders.drain(..).map(|border| border.index(text.len() + 1)).collect();
        borders.extend([0, text.len()]);
        borders.sort_unstable();
        for pair in borders.windows(2) {
            scanner.update(&text[pair[0]..pair[1]]);
        }
        let mut expected: Vec<_> =
            parts().into_iter().filter(|part| text.windows(32).any(|window| window == part.digits())).collect();
        expected.sort_unstable_by_key(HashPart::digits);
        prop_assert_eq!(scanner.found(), expected);
    }
}
