//! The 64 steps of MD5 (RFC 1321, section 3.4) as a table, for every instruction set alike.

/// How the state begins.
pub(super) const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// What each step adds.
pub(super) const ADDED: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501, 0x698098d8,
    0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340,
    0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87,
    0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a, 0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c,
    0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039,
    0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92,
    0xffeff47d, 0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb,
    0xeb86d391,
];

/// Calls `$four!(…)` for each group of four steps, after which the words of the state are in their first order again:
/// what it was given, the group's number, its function, the words of the block, the rotations.
macro_rules! groups {
    ($four:ident $given:tt) => {
        $four!($given, 0, f, [0, 1, 2, 3], [7, 12, 17, 22]);
        $four!($given, 1, f, [4, 5, 6, 7], [7, 12, 17, 22]);
        $four!($given, 2, f, [8, 9, 10, 11], [7, 12, 17, 22]);
        $four!($given, 3, f, [12, 13, 14, 15], [7, 12, 17, 22]);
        $four!($given, 4, g, [1, 6, 11, 0], [5, 9, 14, 20]);
        $four!($given, 5, g, [5, 10, 15, 4], [5, 9, 14, 20]);
        $four!($given, 6, g, [9, 14, 3, 8], [5, 9, 14, 20]);
        $four!($given, 7, g, [13, 2, 7, 12], [5, 9, 14, 20]);
        $four!($given, 8, h, [5, 8, 11, 14], [4, 11, 16, 23]);
        $four!($given, 9, h, [1, 4, 7, 10], [4, 11, 16, 23]);
        $four!($given, 10, h, [13, 0, 3, 6], [4, 11, 16, 23]);
        $four!($given, 11, h, [9, 12, 15, 2], [4, 11, 16, 23]);
        $four!($given, 12, i, [0, 7, 14, 5], [6, 10, 15, 21]);
        $four!($given, 13, i, [12, 3, 10, 1], [6, 10, 15, 21]);
        $four!($given, 14, i, [8, 15, 6, 13], [6, 10, 15, 21]);
        $four!($given, 15, i, [4, 11, 2, 9], [6, 10, 15, 21]);
    };
}
pub(super) use groups;

/// The body of a function that takes the blocks of each lane into its state; of lanes with more blocks than others only as
/// many. The module that uses it says what `load`, `store`, `load_blocks`, `splat`, `add`, `rotate` and the functions of the
/// four rounds are for its registers, of which a value holds a word of every lane.
macro_rules! in_lanes {
    ($states:ident, $blocks:ident) => {
        let count = $blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
        let [mut a, mut b, mut c, mut d] = $states.each_ref().map(|words| load(words));
        for index in 0..count {
            let words = load_blocks($blocks, index);
            let (a0, b0, c0, d0) = (a, b, c, d);
            md5::groups!(four_in_lanes(a, b, c, d, words));
            (a, b, c, d) = (add(a, a0), add(b, b0), add(c, c0), add(d, d0));
        }
        for (state, words) in $states.iter_mut().zip([a, b, c, d]) {
            store(state, words);
        }
    };
}
pub(super) use in_lanes;

/// Four steps in lanes, for [`groups`]; given the words of the state and of the block.
macro_rules! four_in_lanes {
    (($a:ident, $b:ident, $c:ident, $d:ident, $words:ident), $group:literal, $mix:ident,
        [$w0:literal, $w1:literal, $w2:literal, $w3:literal], [$r0:literal, $r1:literal, $r2:literal, $r3:literal]) => {
        md5::step_in_lanes!($mix, $a, $b, $c, $d, $words[$w0], $r0, 4 * $group);
        md5::step_in_lanes!($mix, $d, $a, $b, $c, $words[$w1], $r1, 4 * $group + 1);
        md5::step_in_lanes!($mix, $c, $d, $a, $b, $words[$w2], $r2, 4 * $group + 2);
        md5::step_in_lanes!($mix, $b, $c, $d, $a, $words[$w3], $r3, 4 * $group + 3);
    };
}
pub(super) use four_in_lanes;

macro_rules! step_in_lanes {
    ($mix:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:expr, $by:literal, $number:expr) => {
        let sum = add(add($a, add($word, splat(md5::ADDED[$number]))), $mix($b, $c, $d));
        $a = add(rotate::<$by, { 32 - $by }>(sum), $b);
    };
}
pub(super) use step_in_lanes;
