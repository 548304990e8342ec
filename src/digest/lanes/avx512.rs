//! MD5 of sixteen streams in the lanes of AVX2, by two instructions that AVX-512 adds for registers of that size: it rotates
//! in one instead of three, and has any function of three words in one.
//!
//! Its own registers of sixteen lanes measured slower: each step waits for the one before it, and two registers whose
//! steps alternate fill the wait.

use std::arch::x86_64::*;

use super::avx2::{Words, add, load, load_blocks, splat, store};
use super::md5::{self, four_in_lanes};
use super::{Block, LANES};

/// Takes the blocks of each lane into its state; of lanes with more blocks than others only as many.
#[target_feature(enable = "avx512vl")]
pub(super) fn compress(states: &mut [[u32; LANES]; 4], blocks: &[&[Block]; LANES]) {
    md5::in_lanes!(states, blocks);
}

/// `RIGHT` is for registers that have to shift both ways.
#[target_feature(enable = "avx512vl")]
fn rotate<const LEFT: i32, const RIGHT: i32>(x: Words) -> Words {
    x.map(|x| _mm256_rol_epi32::<LEFT>(x))
}

// The functions of the four rounds; each number is a truth table.

#[target_feature(enable = "avx512vl")]
fn f(b: Words, c: Words, d: Words) -> Words {
    by_table::<0xca>(b, c, d)
}

#[target_feature(enable = "avx512vl")]
fn g(b: Words, c: Words, d: Words) -> Words {
    by_table::<0xe4>(b, c, d)
}

#[target_feature(enable = "avx512vl")]
fn h(b: Words, c: Words, d: Words) -> Words {
    by_table::<0x96>(b, c, d)
}

#[target_feature(enable = "avx512vl")]
fn i(b: Words, c: Words, d: Words) -> Words {
    by_table::<0x39>(b, c, d)
}

#[target_feature(enable = "avx512vl")]
fn by_table<const TABLE: i32>(x: Words, y: Words, z: Words) -> Words {
    std::array::from_fn(|eight| _mm256_ternarylogic_epi32::<TABLE>(x[eight], y[eight], z[eight]))
}
