//! Bytes → MD5 and SHA-256, their count and their type. The only CPU work of a run.
//!
//! A [`Hasher`] takes an attachment piece by piece and keeps nothing of it but the first bytes, from which
//! [`content_type`] tells what it is. [`HashPool`] is where the work is done: hashing 256 KB may take half a millisecond,
//! which is too long for a thread that serves the network. What waits there at the same time is hashed side by side
//! ([`lanes`]).
//!
//! May use: `error`, `limits`. Does no I/O, has no async, and sees bytes only: not where they come from, nor why.

pub mod content_type;
mod lanes;
mod pool;

pub use lanes::Instructions;
pub use pool::HashPool;

use lanes::{BLOCK_BYTES, Block, State};

use crate::limits;

/// What identifies an attachment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// The MD5.
    pub md5: [u8; 16],
    /// The SHA-256.
    pub sha256: [u8; 32],
    /// How many bytes there were.
    pub size_bytes: u64,
}

impl Digests {
    /// The MD5 as 32 lower-case hexadecimal digits.
    pub fn md5_hex(&self) -> String {
        hex(&self.md5)
    }

    /// The SHA-256 as 64 lower-case hexadecimal digits.
    pub fn sha256_hex(&self) -> String {
        hex(&self.sha256)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// An attachment on its way: takes its bytes in order, in pieces of any size.
#[derive(Clone)]
pub struct Hasher {
    state: State,
    /// Bytes of a block that is not whole yet; how many there are follows from the size.
    begun: Block,
    size_bytes: u64,
    /// The first [`limits::SNIFF_BYTES`], and nothing after them.
    prefix: Vec<u8>,
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self { state: State::START, begun: [0; BLOCK_BYTES], size_bytes: 0, prefix: Vec::new() }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let blocks = self.take_ends(bytes);
        Instructions::best().one(&mut self.state, blocks);
    }

    /// Takes the next bytes except for the whole blocks among them, and returns those: the state has to take them before
    /// anything else.
    #[must_use]
    fn take_ends<'a>(&mut self, bytes: &'a [u8]) -> &'a [Block] {
        let wanted = limits::SNIFF_BYTES.saturating_sub(self.prefix.len()).min(bytes.len());
        self.prefix.extend_from_slice(&bytes[..wanted]);
        let begun = self.begun_bytes();
        self.size_bytes += bytes.len() as u64;
        let mut bytes = bytes;
        if begun > 0 {
            let (end, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - begun));
            self.begun[begun..begun + end.len()].copy_from_slice(end);
            if begun + end.len() < BLOCK_BYTES {
                return &[];
            }
            Instructions::best().one(&mut self.state, &[self.begun]);
            bytes = rest;
        }
        let (blocks, rest) = bytes.as_chunks();
        self.begun[..rest.len()].copy_from_slice(rest);
        blocks
    }

    fn begun_bytes(&self) -> usize {
        (self.size_bytes % BLOCK_BYTES as u64) as usize
    }

    /// How many bytes were taken so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The digests, and the type that the first bytes show, where they show one.
    pub fn finish(self) -> (Digests, Option<&'static str>) {
        let is_whole = self.size_bytes == self.prefix.len() as u64;
        let mime_type = content_type::by_bytes(&self.prefix, is_whole);
        let (md5, sha256) = self.state.finish(&self.begun[..self.begun_bytes()], self.size_bytes);
        (Digests { md5, sha256, size_bytes: self.size_bytes }, mime_type)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_digests_are_the_published_ones() {
        let mut hasher = Hasher::new();
        hasher.update(b"abc");
        let (digests, mime_type) = hasher.finish();
        assert_eq!(digests.md5_hex(), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(digests.sha256_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((digests.size_bytes, mime_type), (3, Some("text/plain")));
    }

    #[test]
    fn no_bytes_have_digests_and_no_type() {
        let (digests, mime_type) = Hasher::new().finish();
        assert_eq!(digests.md5_hex(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!((digests.size_bytes, mime_type), (0, None));
    }

    #[test]
    fn only_the_first_bytes_are_kept() {
        let mut hasher = Hasher::new();
        for _ in 0..100 {
            hasher.update(&[b'x'; 4096]);
        }
        assert_eq!((hasher.prefix.len(), hasher.size_bytes()), (limits::SNIFF_BYTES, 409_600));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_does_not_matter(
            bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
            piece in 1..20_000_usize,
        ) {
            let mut whole = Hasher::new();
            whole.update(&bytes);
            let mut cut = Hasher::new();
            bytes.chunks(piece).for_each(|piece| cut.update(piece));
            prop_assert_eq!(whole.finish(), cut.finish());
        }
    }
}
