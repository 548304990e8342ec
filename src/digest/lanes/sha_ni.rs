//! SHA-256 by the instructions that x86 has for it (SHA-NI): of several streams at once, and of one or two together with
//! their MD5.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Block, Lane, md5};

/// The constants of the 64 rounds (FIPS 180-4, section 4.2.2).
const ROUNDS: [[u32; 4]; 16] = [
    [0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5],
    [0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5],
    [0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3],
    [0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174],
    [0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc],
    [0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da],
    [0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7],
    [0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967],
    [0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13],
    [0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85],
    [0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3],
    [0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070],
    [0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5],
    [0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3],
    [0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208],
    [0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2],
];

/// A state in the order that the instructions want.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

/// The words of a block that are needed next, the nearest first.
type Schedule = [__m128i; 4];

/// Takes the blocks of several streams into their states, the rounds of the one between those of the others: the
/// instructions take longer than the processor needs to begin the next one.
#[target_feature(enable = "sha,sse4.1,ssse3")]
pub(super) fn compress<const STREAMS: usize>(lanes: &mut [Lane<'_>; STREAMS], range: Range<usize>) {
    let blocks = lanes.each_ref().map(|lane| &lane.blocks[range.clone()]);
    let mut now = lanes.each_ref().map(|lane| load(&lane.state.sha256));
    for index in 0..range.len() {
        let before = now;
        let mut schedules = blocks.map(|blocks| load_block(&blocks[index]));
        macro_rules! groups {
            ($($group:literal)*) => {
                $(
                    for stream in 0..STREAMS {
                        four_rounds::<$group>(&mut now[stream], &mut schedules[stream]);
                    }
                )*
            };
        }
        groups!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for stream in 0..STREAMS {
            now[stream] = add(now[stream], before[stream]);
        }
    }
    for (lane, now) in lanes.iter_mut().zip(now) {
        store(&mut lane.state.sha256, now);
    }
}

/// Takes the blocks of one stream or two into both their digests, four steps of MD5 between four rounds of SHA-256. MD5 is
/// a chain in which each step waits for the one before it; SHA-256 runs on other parts of the processor in the meantime,
/// and so does the second stream's MD5.
#[target_feature(enable = "sha,sse4.1,ssse3")]
pub(super) fn compress_both<const STREAMS: usize>(lanes: &mut [Lane<'_>; STREAMS], range: Range<usize>) {
    // If the compiler knew the constants, it would add each last and so make the chain longer: 0.65 instead of 0.75 GB/s.
    let added = std::hint::black_box(&md5::ADDED);
    let blocks = lanes.each_ref().map(|lane| &lane.blocks[range.clone()]);
    let [mut a, mut b, mut c, mut d] = std::array::from_fn(|word| lanes.each_ref().map(|lane| lane.state.md5[word]));
    let mut now = lanes.each_ref().map(|lane| load(&lane.state.sha256));
    for index in 0..range.len() {
        let before = now;
        let (a0, b0, c0, d0) = (a, b, c, d);
        let mut schedules = blocks.map(|blocks| load_block(&blocks[index]));
        let words = blocks.map(|blocks| blocks[index].as_chunks::<4>().0);
        macro_rules! step {
            ($mix:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $by:literal, $number:expr) => {
                for stream in 0..STREAMS {
                    let word = u32::from_le_bytes(words[stream][$word]);
                    let sum = $a[stream].wrapping_add(word).wrapping_add(added[$number]);
                    let sum = $mix(sum, $b[stream], $c[stream], $d[stream]);
                    $a[stream] = sum.rotate_left($by).wrapping_add($b[stream]);
                }
            };
        }
        macro_rules! four {
            ((), $group:literal, $mix:ident, [$w0:literal, $w1:literal, $w2:literal, $w3:literal],
                [$r0:literal, $r1:literal, $r2:literal, $r3:literal]) => {
                step!($mix, a, b, c, d, $w0, $r0, 4 * $group);
                step!($mix, d, a, b, c, $w1, $r1, 4 * $group + 1);
                step!($mix, c, d, a, b, $w2, $r2, 4 * $group + 2);
                step!($mix, b, c, d, a, $w3, $r3, 4 * $group + 3);
                for stream in 0..STREAMS {
                    four_rounds::<$group>(&mut now[stream], &mut schedules[stream]);
                }
            };
        }
        md5::groups!(four());
        for stream in 0..STREAMS {
            a[stream] = a[stream].wrapping_add(a0[stream]);
            b[stream] = b[stream].wrapping_add(b0[stream]);
            c[stream] = c[stream].wrapping_add(c0[stream]);
            d[stream] = d[stream].wrapping_add(d0[stream]);
            now[stream] = add(now[stream], before[stream]);
        }
    }
    for (stream, lane) in lanes.iter_mut().enumerate() {
        lane.state.md5 = [a[stream], b[stream], c[stream], d[stream]];
        store(&mut lane.state.sha256, now[stream]);
    }
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn four_rounds<const GROUP: usize>(state: &mut State, schedule: &mut Schedule) {
    let [w0, w1, w2, w3] = *schedule;
    let [k0, k1, k2, k3] = ROUNDS[GROUP].map(|constant| constant as i32);
    let words = _mm_add_epi32(w0, _mm_set_epi32(k3, k2, k1, k0));
    state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, words);
    state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32::<0x0e>(words));
    let next = if GROUP < 12 {
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
        _mm_sha256msg2_epu32(sum, w3)
    } else {
        w0
    };
    *schedule = [w1, w2, w3, next];
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn add(x: State, y: State) -> State {
    State { abef: _mm_add_epi32(x.abef, y.abef), cdgh: _mm_add_epi32(x.cdgh, y.cdgh) }
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn load([a, b, c, d, e, f, g, h]: &[u32; 8]) -> State {
    let words = |high: &u32, second: &u32, third: &u32, low: &u32| {
        _mm_set_epi32(*high as i32, *second as i32, *third as i32, *low as i32)
    };
    State { abef: words(a, b, e, f), cdgh: words(c, d, g, h) }
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn store(state: &mut [u32; 8], State { abef, cdgh }: State) {
    let word = |word: i32| word as u32;
    *state = [
        word(_mm_extract_epi32::<3>(abef)),
        word(_mm_extract_epi32::<2>(abef)),
        word(_mm_extract_epi32::<3>(cdgh)),
        word(_mm_extract_epi32::<2>(cdgh)),
        word(_mm_extract_epi32::<1>(abef)),
        word(_mm_extract_epi32::<0>(abef)),
        word(_mm_extract_epi32::<1>(cdgh)),
        word(_mm_extract_epi32::<0>(cdgh)),
    ];
}

/// A block's words, which are big-endian.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn load_block(block: &Block) -> Schedule {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (quarters, _) = block.as_chunks::<16>();
    std::array::from_fn(|quarter| {
        // SAFETY: a quarter of a block has 16 bytes, and needs no alignment.
        let words = unsafe { _mm_loadu_si128(quarters[quarter].as_ptr().cast()) };
        _mm_shuffle_epi8(words, swap)
    })
}

// The functions of MD5's four rounds, added to a sum. Where two of its terms have no bit in common they are added one by
// one, since then only one of them waits for the step before.

fn f(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(d ^ (b & (c ^ d)))
}

fn g(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(c & !d).wrapping_add(b & d)
}

fn h(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(b ^ (c ^ d))
}

fn i(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(c ^ (b | !d))
}
