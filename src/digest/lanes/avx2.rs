//! MD5 of sixteen streams in the lanes of AVX2: two registers of eight, whose steps alternate, so that one does not wait
//! for the other.

use std::arch::x86_64::*;

use super::md5::{self, four_in_lanes};
use super::{Block, LANES};

/// A word of each of sixteen streams.
pub(super) type Words = [__m256i; 2];

/// Takes the blocks of each lane into its state; of lanes with more blocks than others only as many.
#[target_feature(enable = "avx2")]
pub(super) fn compress(states: &mut [[u32; LANES]; 4], blocks: &[&[Block]; LANES]) {
    md5::in_lanes!(states, blocks);
}

#[target_feature(enable = "avx2")]
pub(super) fn load(words: &[u32; LANES]) -> Words {
    let (eights, _) = words.as_chunks::<8>();
    // SAFETY: the source has eight words of 32 bits, and needs no alignment.
    std::array::from_fn(|eight| unsafe { _mm256_loadu_si256(eights[eight].as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
pub(super) fn store(target: &mut [u32; LANES], words: Words) {
    for (eight, words) in target.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        // SAFETY: the target has room for eight words of 32 bits, and needs no alignment.
        unsafe { _mm256_storeu_si256(eight.as_mut_ptr().cast(), words) };
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn add(x: Words, y: Words) -> Words {
    [_mm256_add_epi32(x[0], y[0]), _mm256_add_epi32(x[1], y[1])]
}

#[target_feature(enable = "avx2")]
pub(super) fn splat(word: u32) -> Words {
    [_mm256_set1_epi32(word as i32); 2]
}

#[target_feature(enable = "avx2")]
fn and(x: Words, y: Words) -> Words {
    [_mm256_and_si256(x[0], y[0]), _mm256_and_si256(x[1], y[1])]
}

#[target_feature(enable = "avx2")]
fn or(x: Words, y: Words) -> Words {
    [_mm256_or_si256(x[0], y[0]), _mm256_or_si256(x[1], y[1])]
}

#[target_feature(enable = "avx2")]
fn xor(x: Words, y: Words) -> Words {
    [_mm256_xor_si256(x[0], y[0]), _mm256_xor_si256(x[1], y[1])]
}

#[target_feature(enable = "avx2")]
fn rotate<const LEFT: i32, const RIGHT: i32>(x: Words) -> Words {
    or(x.map(|x| _mm256_slli_epi32::<LEFT>(x)), x.map(|x| _mm256_srli_epi32::<RIGHT>(x)))
}

// The functions of the four rounds.

#[target_feature(enable = "avx2")]
fn f(b: Words, c: Words, d: Words) -> Words {
    xor(d, and(b, xor(c, d)))
}

#[target_feature(enable = "avx2")]
fn g(b: Words, c: Words, d: Words) -> Words {
    xor(c, and(d, xor(b, c)))
}

#[target_feature(enable = "avx2")]
fn h(b: Words, c: Words, d: Words) -> Words {
    xor(b, xor(c, d))
}

#[target_feature(enable = "avx2")]
fn i(b: Words, c: Words, d: Words) -> Words {
    xor(c, or(b, xor(d, splat(u32::MAX))))
}

/// Block `index` of each lane, as word 0 of each, word 1 of each, and so on.
#[target_feature(enable = "avx2")]
pub(super) fn load_blocks(blocks: &[&[Block]; LANES], index: usize) -> [Words; 16] {
    let mut words = [[_mm256_setzero_si256(); 2]; 16];
    for side in 0..2 {
        for half in 0..2 {
            let rows = std::array::from_fn(|row| {
                let (halves, _) = blocks[8 * side + row][index].as_chunks::<32>();
                // SAFETY: half a block has 32 bytes, and needs no alignment.
                unsafe { _mm256_loadu_si256(halves[half].as_ptr().cast()) }
            });
            for (word, column) in transpose(rows).into_iter().enumerate() {
                words[8 * half + word][side] = column;
            }
        }
    }
    words
}

/// Eight rows of eight words → word 0 of each row, word 1 of each, and so on.
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    // Within each half of 128 bits: four rows' words side by side …
    let mut quads = [_mm256_setzero_si256(); 8];
    for group in 0..2 {
        let [r0, r1, r2, r3] = [rows[4 * group], rows[4 * group + 1], rows[4 * group + 2], rows[4 * group + 3]];
        let low = [_mm256_unpacklo_epi32(r0, r1), _mm256_unpacklo_epi32(r2, r3)];
        let high = [_mm256_unpackhi_epi32(r0, r1), _mm256_unpackhi_epi32(r2, r3)];
        quads[4 * group] = _mm256_unpacklo_epi64(low[0], low[1]);
        quads[4 * group + 1] = _mm256_unpackhi_epi64(low[0], low[1]);
        quads[4 * group + 2] = _mm256_unpacklo_epi64(high[0], high[1]);
        quads[4 * group + 3] = _mm256_unpackhi_epi64(high[0], high[1]);
    }
    // … then the halves themselves.
    let mut words = [_mm256_setzero_si256(); 8];
    for word in 0..4 {
        words[word] = _mm256_permute2x128_si256::<0x20>(quads[word], quads[4 + word]);
        words[4 + word] = _mm256_permute2x128_si256::<0x31>(quads[word], quads[4 + word]);
    }
    words
}
