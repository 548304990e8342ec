//! Both digests of many streams side by side, block by block.
//!
//! Within one stream each step of MD5 waits for the one before it, whatever the processor could do in the meantime. But
//! attachments are independent of each other, so the same step of sixteen of them is one instruction on sixteen numbers:
//!
//! ```text
//!            lane 0     lane 1     lane 2   …  lane 15
//!   state     a b c d    a b c d    a b c d     a b c d          each stream has its own
//!   block     w0…w15     w0…w15     w0…w15      w0…w15           64 bytes of each
//!                 ╲         │          ╱
//!   word 5   [ w5 of 0,  w5 of 1,  w5 of 2, … w5 of 15 ]         transposed, once for each block
//!   step 5   [ d += …    d += …    d += …     d += …   ]         64 times
//! ```
//!
//! The instructions for SHA-256 work on one stream, but they take longer than the processor needs to begin the next one,
//! so that the rounds of several streams alternate. For one stream or two the rounds of SHA-256 alternate with the steps of
//! their own MD5, and cost nothing beside them.
//!
//! | streams | MD5, where there is | | SHA-256, where there is | |
//! |---|---|---|---|---|
//! | 4 to 16 (2 without SHA-NI) | AVX2 | two registers of 8 lanes that alternate | SHA-NI | 4, 2 or 1 streams alternate |
//! | | AVX-512 (VL) | the same, in fewer instructions | none | `sha2`, one after the other |
//! | | NEON | four registers of 4 lanes that alternate | | |
//! | fewer, or no lanes | SHA-NI | 2 or 1 streams, with their SHA-256 | SHA-NI | with their MD5 |
//! | | none | `md-5` | none | `sha2` |
//!
//! Lanes that no stream fills repeat the first one's blocks; what comes of it is dropped. All `unsafe` of Waybill is in
//! this folder: calls of functions that need a processor's feature, and loads and stores of whole registers.

#![expect(unsafe_code, reason = "instructions that not every processor has are unsafe to call")]

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod md5;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(test)]
mod tests;

/// Streams that are hashed side by side, at most.
pub(super) const LANES: usize = 16;

/// What both digests take at a time.
pub(super) type Block = [u8; BLOCK_BYTES];

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 64;

/// Blocks that go through both digests in turn: they stay in the fast caches for the second one, and measured best.
const STEP_BLOCKS: usize = 64;

/// Both digests of one stream between two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) md5: [u32; 4],
    pub(super) sha256: [u32; 8],
}

impl State {
    /// Before the first block.
    pub(super) const START: Self = Self {
        md5: md5::START,
        // FIPS 180-4, section 5.3.3.
        sha256: [
            0x6a09_e667,
            0xbb67_ae85,
            0x3c6e_f372,
            0xa54f_f53a,
            0x510e_527f,
            0x9b05_688c,
            0x1f83_d9ab,
            0x5be0_cd19,
        ],
    };

    /// The digests of a stream of this size, given its bytes after the last whole block.
    pub(super) fn finish(mut self, rest: &[u8], size_bytes: u64) -> ([u8; 16], [u8; 32]) {
        // Both end with a bit, zeros, and the size in bits, of which each has its own order.
        let mut blocks = [[0; BLOCK_BYTES]; 2];
        blocks.as_flattened_mut()[..rest.len()].copy_from_slice(rest);
        blocks.as_flattened_mut()[rest.len()] = 0x80;
        let count = if rest.len() + 1 + 8 <= BLOCK_BYTES { 1 } else { 2 };
        let size = count * BLOCK_BYTES - 8..count * BLOCK_BYTES;
        let size_bits = size_bytes.wrapping_mul(8);
        blocks.as_flattened_mut()[size.clone()].copy_from_slice(&size_bits.to_le_bytes());
        ::md5::block_api::compress(&mut self.md5, &blocks[..count]);
        blocks.as_flattened_mut()[size].copy_from_slice(&size_bits.to_be_bytes());
        sha2::block_api::compress256(&mut self.sha256, &blocks[..count]);
        let (mut md5, mut sha256) = ([0; 16], [0; 32]);
        md5.as_chunks_mut().0.iter_mut().zip(self.md5).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        sha256.as_chunks_mut().0.iter_mut().zip(self.sha256).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
        (md5, sha256)
    }
}

/// A stream among others: its state, and the blocks that it takes next.
pub(super) struct Lane<'a> {
    pub(super) state: &'a mut State,
    pub(super) blocks: &'a [Block],
}

/// Instructions that this processor has: a value exists only where they were found, so whoever has it may use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions {
    lanes: Lanes,
    has_sha_ni: bool,
}

/// What MD5 runs on side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lanes {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    None,
}

impl Instructions {
    /// The fastest ones.
    pub fn best() -> Self {
        // Without optimisation our code is twenty times slower than the two crates, which every profile optimises.
        if cfg!(debug_assertions) {
            return Self { lanes: Lanes::None, has_sha_ni: false };
        }
        Self { lanes: Lanes::found().next().unwrap_or(Lanes::None), has_sha_ni: has_sha_ni() }
    }

    /// Every choice that this processor offers, the fastest first; for tests and measurements.
    pub fn all() -> Vec<Self> {
        let lanes = || Lanes::found().chain([Lanes::None]);
        let with = |has_sha_ni| lanes().map(move |lanes| Self { lanes, has_sha_ni });
        if has_sha_ni() { with(true).chain(with(false)).collect() } else { with(false).collect() }
    }

    /// What MD5 has, and what SHA-256; the portable code of `sha2` looks itself for what the processor has.
    pub fn name(self) -> String {
        let md5 = match self.lanes {
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx2 => "AVX2",
            #[cfg(target_arch = "aarch64")]
            Lanes::Neon => "NEON",
            Lanes::None => "no lanes",
        };
        let sha256 = if self.has_sha_ni { "SHA-NI" } else { "portable" };
        format!("{md5}, {sha256}")
    }

    /// Takes the blocks of one stream into its state.
    pub(super) fn one(self, state: &mut State, blocks: &[Block]) {
        self.few(&mut [Lane { state, blocks }], 0..blocks.len());
    }

    /// Takes as many blocks of each stream into its state as the shortest one has, and says how many that were. There
    /// are [`LANES`] streams at most.
    pub(super) fn side_by_side(self, lanes: &mut [Lane<'_>]) -> usize {
        let count = lanes.iter().map(|lane| lane.blocks.len()).min().unwrap_or(0);
        if lanes.len() < self.fewest_lanes() {
            self.few(lanes, 0..count);
            return count;
        }
        for start in (0..count).step_by(STEP_BLOCKS) {
            let end = count.min(start + STEP_BLOCKS);
            self.md5(lanes, start..end);
            self.sha256(lanes, start..end);
        }
        count
    }

    /// Streams from which lanes are faster than one stream after the other, as measured.
    fn fewest_lanes(self) -> usize {
        match (self.lanes, self.has_sha_ni) {
            (Lanes::None, _) => usize::MAX,
            (_, true) => 4,
            (_, false) => 2,
        }
    }

    /// Both digests of streams that are too few for lanes.
    fn few(self, lanes: &mut [Lane<'_>], range: Range<usize>) {
        #[cfg(target_arch = "x86_64")]
        if self.has_sha_ni {
            let (twos, rest) = lanes.as_chunks_mut::<2>();
            let (ones, _) = rest.as_chunks_mut::<1>();
            // SAFETY: SHA-NI was found.
            unsafe {
                twos.iter_mut().for_each(|lanes| sha_ni::compress_both(lanes, range.clone()));
                ones.iter_mut().for_each(|lanes| sha_ni::compress_both(lanes, range.clone()));
            }
            return;
        }
        for lane in lanes {
            for blocks in lane.blocks[range.clone()].chunks(STEP_BLOCKS) {
                ::md5::block_api::compress(&mut lane.state.md5, blocks);
                sha2::block_api::compress256(&mut lane.state.sha256, blocks);
            }
        }
    }

    fn md5(self, lanes: &mut [Lane<'_>], range: Range<usize>) {
        let mut states = [[0; LANES]; 4];
        let mut blocks = [&lanes[0].blocks[range.clone()]; LANES];
        for (number, lane) in lanes.iter().enumerate() {
            blocks[number] = &lane.blocks[range.clone()];
            for (states, word) in states.iter_mut().zip(lane.state.md5) {
                states[number] = word;
            }
        }
        match self.lanes {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: AVX-512 (VL) was found.
            Lanes::Avx512 => unsafe { avx512::compress(&mut states, &blocks) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: AVX2 was found.
            Lanes::Avx2 => unsafe { avx2::compress(&mut states, &blocks) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON was found.
            Lanes::Neon => unsafe { neon::compress(&mut states, &blocks) },
            Lanes::None => unreachable!("without lanes streams are taken one after the other"),
        }
        for (number, lane) in lanes.iter_mut().enumerate() {
            lane.state.md5 = states.map(|states| states[number]);
        }
    }

    fn sha256(self, lanes: &mut [Lane<'_>], range: Range<usize>) {
        #[cfg(target_arch = "x86_64")]
        if self.has_sha_ni {
            let (fours, rest) = lanes.as_chunks_mut::<4>();
            let (twos, rest) = rest.as_chunks_mut::<2>();
            let (ones, _) = rest.as_chunks_mut::<1>();
            // SAFETY: SHA-NI was found.
            unsafe {
                fours.iter_mut().for_each(|lanes| sha_ni::compress(lanes, range.clone()));
                twos.iter_mut().for_each(|lanes| sha_ni::compress(lanes, range.clone()));
                ones.iter_mut().for_each(|lanes| sha_ni::compress(lanes, range.clone()));
            }
            return;
        }
        for lane in lanes {
            sha2::block_api::compress256(&mut lane.state.sha256, &lane.blocks[range.clone()]);
        }
    }
}

impl Lanes {
    /// What this processor has, the fastest first.
    fn found() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let found = [
            std::arch::is_x86_feature_detected!("avx512vl").then_some(Self::Avx512),
            std::arch::is_x86_feature_detected!("avx2").then_some(Self::Avx2),
        ];
        #[cfg(target_arch = "aarch64")]
        let found = [std::arch::is_aarch64_feature_detected!("neon").then_some(Self::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let found: [Option<Self>; 0] = [];
        found.into_iter().flatten()
    }
}

fn has_sha_ni() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = std::arch::is_x86_feature_detected!("sha")
        && std::arch::is_x86_feature_detected!("sse4.1")
        && std::arch::is_x86_feature_detected!("ssse3");
    #[cfg(not(target_arch = "x86_64"))]
    let found = false;
    found
}
