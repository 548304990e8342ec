use ::md5::Md5;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

/// What the reference says about whole blocks and a rest.
fn expected(bytes: &[u8]) -> ([u8; 16], [u8; 32]) {
    (Md5::digest(bytes).into(), Sha256::digest(bytes).into())
}

/// Bytes that differ between streams and within them.
fn bytes(stream: usize, len: usize) -> Vec<u8> {
    let mut state = stream as u64 + 1;
    let next = || {
        // Knuth's constants (MMIX).
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// The digests of streams whose blocks are taken side by side until each has ended.
fn side_by_side(instructions: Instructions, streams: &[Vec<u8>]) -> Vec<([u8; 16], [u8; 32])> {
    let mut states = vec![State::START; streams.len()];
    let mut taken = vec![0; streams.len()];
    loop {
        let mut lanes = Vec::new();
        let mut numbers = Vec::new();
        for (number, state) in states.iter_mut().enumerate() {
            let blocks = &streams[number].as_chunks().0[taken[number]..];
            if !blocks.is_empty() && lanes.len() < LANES {
                lanes.push(Lane { state, blocks });
                numbers.push(number);
            }
        }
        let count = instructions.side_by_side(&mut lanes);
        numbers.iter().for_each(|number| taken[*number] += count);
        if numbers.is_empty() {
            break;
        }
        assert!(count > 0);
    }
    let finish = |(state, bytes): (State, &Vec<u8>)| state.finish(bytes.as_chunks::<64>().1, bytes.len() as u64);
    states.into_iter().zip(streams).map(finish).collect()
}

#[test]
fn the_digests_of_an_alphabet_are_the_published_ones_in_every_lane() {
    // RFC 1321, appendix A.5, and FIPS 180-2, appendix B.2.
    let stream = b"12345678901234567890123456789012345678901234567890123456789012345678901234567890".to_vec();
    for instructions in Instructions::all() {
        for (md5, _) in side_by_side(instructions, &vec![stream.clone(); LANES]) {
            assert_eq!(u128::from_be_bytes(md5), 0x57ed_f4a2_2be3_c955_ac49_da2e_2107_b67a, "{}", instructions.name());
        }
    }
}

#[test]
fn every_number_of_lanes_gives_what_the_reference_gives() {
    for instructions in Instructions::all() {
        for count in 1..=LANES {
            let streams: Vec<_> =
                (0..count).map(|stream| bytes(stream, 64 * (STEP_BLOCKS + 6) + 13 * stream)).collect();
            let expected: Vec<_> = streams.iter().map(|stream| expected(stream)).collect();
            assert_eq!(side_by_side(instructions, &streams), expected, "{count} streams, {}", instructions.name());
        }
    }
}

#[test]
fn every_length_of_the_last_block_is_padded_as_the_reference_does() {
    for len in 0..=192 {
        let stream = bytes(len, len);
        assert_eq!(
            side_by_side(Instructions::best(), std::slice::from_ref(&stream)),
            [expected(&stream)],
            "{len} bytes"
        );
    }
}

#[test]
fn no_streams_are_no_work() {
    for instructions in Instructions::all() {
        assert_eq!(instructions.side_by_side(&mut []), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn streams_of_any_lengths_give_what_the_reference_gives(
        lens in proptest::collection::vec(prop_oneof![0..200_usize, 0..5_000_usize], 0..40),
    ) {
        let streams: Vec<_> = lens.iter().enumerate().map(|(stream, len)| bytes(stream, *len)).collect();
        let expected: Vec<_> = streams.iter().map(|stream| expected(stream)).collect();
        for instructions in Instructions::all() {
            prop_assert_eq!(&side_by_side(instructions, &streams), &expected, "{}", instructions.name());
        }
    }
}
