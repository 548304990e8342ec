//! MD5 of sixteen streams in the lanes of AVX-512.

use std::arch::x86_64::*;

use super::{Block, LANES, md5};

type Words = __m512i;

/// Takes the blocks of each lane into its state; of lanes with more blocks than others only as many.
#[target_feature(enable = "avx512f")]
pub(super) fn compress(states: &mut [[u32; LANES]; 4], blocks: &[&[Block]; LANES]) {
    let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
    let [mut a, mut b, mut c, mut d] = states.each_ref().map(|words| load(words));
    for index in 0..count {
        let words = transpose(load_blocks(blocks, index));
        let (a0, b0, c0, d0) = (a, b, c, d);
        macro_rules! step {
            ($mix:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $by:literal, $number:expr) => {
                let constant = _mm512_set1_epi32(md5::ADDED[$number] as i32);
                let sum =
                    _mm512_add_epi32(_mm512_add_epi32($a, _mm512_add_epi32(words[$word], constant)), $mix($b, $c, $d));
                $a = _mm512_add_epi32(_mm512_rol_epi32::<$by>(sum), $b);
            };
        }
        macro_rules! four {
            ($group:literal, $mix:ident, [$w0:literal, $w1:literal, $w2:literal, $w3:literal],
                [$r0:literal, $r1:literal, $r2:literal, $r3:literal]) => {
                step!($mix, a, b, c, d, $w0, $r0, 4 * $group);
                step!($mix, d, a, b, c, $w1, $r1, 4 * $group + 1);
                step!($mix, c, d, a, b, $w2, $r2, 4 * $group + 2);
                step!($mix, b, c, d, a, $w3, $r3, 4 * $group + 3);
            };
        }
        md5::groups!(four);
        a = _mm512_add_epi32(a, a0);
        b = _mm512_add_epi32(b, b0);
        c = _mm512_add_epi32(c, c0);
        d = _mm512_add_epi32(d, d0);
    }
    for (state, words) in states.iter_mut().zip([a, b, c, d]) {
        // SAFETY: the target has room for sixteen words of 32 bits, and needs no alignment.
        unsafe { _mm512_storeu_si512(state.as_mut_ptr().cast(), words) };
    }
}

#[target_feature(enable = "avx512f")]
fn load(words: &[u32; LANES]) -> Words {
    // SAFETY: the source has sixteen words of 32 bits, and needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Block `index` of each lane.
#[target_feature(enable = "avx512f")]
fn load_blocks(blocks: &[&[Block]; LANES], index: usize) -> [Words; LANES] {
    // SAFETY: a block has 64 bytes, and needs no alignment.
    blocks.map(|blocks| unsafe { _mm512_loadu_si512(blocks[index].as_ptr().cast()) })
}

// The functions of the four rounds; each number is a truth table.

#[target_feature(enable = "avx512f")]
fn f(b: Words, c: Words, d: Words) -> Words {
    _mm512_ternarylogic_epi32::<0xca>(b, c, d)
}

#[target_feature(enable = "avx512f")]
fn g(b: Words, c: Words, d: Words) -> Words {
    _mm512_ternarylogic_epi32::<0xe4>(b, c, d)
}

#[target_feature(enable = "avx512f")]
fn h(b: Words, c: Words, d: Words) -> Words {
    _mm512_ternarylogic_epi32::<0x96>(b, c, d)
}

#[target_feature(enable = "avx512f")]
fn i(b: Words, c: Words, d: Words) -> Words {
    _mm512_ternarylogic_epi32::<0x39>(b, c, d)
}

/// Sixteen blocks of sixteen words → word 0 of each block, word 1 of each, and so on.
#[target_feature(enable = "avx512f")]
fn transpose(rows: [Words; LANES]) -> [Words; LANES] {
    // Within each quarter of 128 bits: four rows' words side by side …
    let mut quads = [_mm512_setzero_si512(); LANES];
    for group in 0..4 {
        let [r0, r1, r2, r3] = [rows[4 * group], rows[4 * group + 1], rows[4 * group + 2], rows[4 * group + 3]];
        let low = [_mm512_unpacklo_epi32(r0, r1), _mm512_unpacklo_epi32(r2, r3)];
        let high = [_mm512_unpackhi_epi32(r0, r1), _mm512_unpackhi_epi32(r2, r3)];
        quads[4 * group] = _mm512_unpacklo_epi64(low[0], low[1]);
        quads[4 * group + 1] = _mm512_unpackhi_epi64(low[0], low[1]);
        quads[4 * group + 2] = _mm512_unpacklo_epi64(high[0], high[1]);
        quads[4 * group + 3] = _mm512_unpackhi_epi64(high[0], high[1]);
    }
    // … then the quarters themselves, of which the four groups have each the same ones.
    let mut words = [_mm512_setzero_si512(); LANES];
    for word in 0..4 {
        let [q0, q1, q2, q3] = [quads[word], quads[4 + word], quads[8 + word], quads[12 + word]];
        let even = [_mm512_shuffle_i32x4::<0x88>(q0, q1), _mm512_shuffle_i32x4::<0x88>(q2, q3)];
        let odd = [_mm512_shuffle_i32x4::<0xdd>(q0, q1), _mm512_shuffle_i32x4::<0xdd>(q2, q3)];
        words[word] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        words[8 + word] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        words[4 + word] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        words[12 + word] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    words
}
