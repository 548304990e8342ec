//! MD5 of sixteen streams in the lanes of NEON: four registers of four, whose steps alternate, so that one does not wait
//! for the others.

use std::arch::aarch64::*;

use super::md5::{self, four_in_lanes};
use super::{Block, LANES};

/// A word of each of sixteen streams.
type Words = [uint32x4_t; 4];

/// Takes the blocks of each lane into its state; of lanes with more blocks than others only as many.
#[target_feature(enable = "neon")]
pub(super) fn compress(states: &mut [[u32; LANES]; 4], blocks: &[&[Block]; LANES]) {
    md5::in_lanes!(states, blocks);
}

#[target_feature(enable = "neon")]
fn load(words: &[u32; LANES]) -> Words {
    let (fours, _) = words.as_chunks::<4>();
    // SAFETY: the source has four words of 32 bits, and needs no alignment.
    std::array::from_fn(|four| unsafe { vld1q_u32(fours[four].as_ptr()) })
}

#[target_feature(enable = "neon")]
fn store(target: &mut [u32; LANES], words: Words) {
    for (four, words) in target.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        // SAFETY: the target has room for four words of 32 bits, and needs no alignment.
        unsafe { vst1q_u32(four.as_mut_ptr(), words) };
    }
}

#[target_feature(enable = "neon")]
fn add(x: Words, y: Words) -> Words {
    std::array::from_fn(|four| vaddq_u32(x[four], y[four]))
}

#[target_feature(enable = "neon")]
fn splat(word: u32) -> Words {
    [vdupq_n_u32(word); 4]
}

#[target_feature(enable = "neon")]
fn rotate<const LEFT: i32, const RIGHT: i32>(x: Words) -> Words {
    x.map(|x| vsriq_n_u32::<RIGHT>(vshlq_n_u32::<LEFT>(x), x))
}

// The functions of the four rounds. `vbslq` takes bits of its second where the first is set, else of its third.

#[target_feature(enable = "neon")]
fn f(b: Words, c: Words, d: Words) -> Words {
    std::array::from_fn(|four| vbslq_u32(b[four], c[four], d[four]))
}

#[target_feature(enable = "neon")]
fn g(b: Words, c: Words, d: Words) -> Words {
    f(d, b, c)
}

#[target_feature(enable = "neon")]
fn h(b: Words, c: Words, d: Words) -> Words {
    std::array::from_fn(|four| veorq_u32(b[four], veorq_u32(c[four], d[four])))
}

#[target_feature(enable = "neon")]
fn i(b: Words, c: Words, d: Words) -> Words {
    std::array::from_fn(|four| veorq_u32(c[four], vornq_u32(b[four], d[four])))
}

/// Block `index` of each lane, as word 0 of each, word 1 of each, and so on.
#[target_feature(enable = "neon")]
fn load_blocks(blocks: &[&[Block]; LANES], index: usize) -> [Words; 16] {
    let mut words = [[vdupq_n_u32(0); 4]; 16];
    for four in 0..4 {
        for quarter in 0..4 {
            let rows = std::array::from_fn(|row| {
                let (quarters, _) = blocks[4 * four + row][index].as_chunks::<16>();
                // SAFETY: a quarter of a block has 16 bytes, and needs no alignment.
                vreinterpretq_u32_u8(unsafe { vld1q_u8(quarters[quarter].as_ptr()) })
            });
            for (word, column) in transpose(rows).into_iter().enumerate() {
                words[4 * quarter + word][four] = column;
            }
        }
    }
    words
}

/// Four rows of four words → word 0 of each row, word 1 of each, and so on.
#[target_feature(enable = "neon")]
fn transpose([r0, r1, r2, r3]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let (even, odd) = (vtrn1q_u32(r0, r1), vtrn2q_u32(r0, r1));
    let (even_below, odd_below) = (vtrn1q_u32(r2, r3), vtrn2q_u32(r2, r3));
    let pair = |above, below, first: bool| {
        let (above, below) = (vreinterpretq_u64_u32(above), vreinterpretq_u64_u32(below));
        vreinterpretq_u32_u64(if first { vtrn1q_u64(above, below) } else { vtrn2q_u64(above, below) })
    };
    [
        pair(even, even_below, true),
        pair(odd, odd_below, true),
        pair(even, even_below, false),
        pair(odd, odd_below, false),
    ]
}
