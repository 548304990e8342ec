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
/// the group's number, its function, the words of the block, the rotations.
macro_rules! groups {
    ($four:ident) => {
        $four!(0, f, [0, 1, 2, 3], [7, 12, 17, 22]);
        $four!(1, f, [4, 5, 6, 7], [7, 12, 17, 22]);
        $four!(2, f, [8, 9, 10, 11], [7, 12, 17, 22]);
        $four!(3, f, [12, 13, 14, 15], [7, 12, 17, 22]);
        $four!(4, g, [1, 6, 11, 0], [5, 9, 14, 20]);
        $four!(5, g, [5, 10, 15, 4], [5, 9, 14, 20]);
        $four!(6, g, [9, 14, 3, 8], [5, 9, 14, 20]);
        $four!(7, g, [13, 2, 7, 12], [5, 9, 14, 20]);
        $four!(8, h, [5, 8, 11, 14], [4, 11, 16, 23]);
        $four!(9, h, [1, 4, 7, 10], [4, 11, 16, 23]);
        $four!(10, h, [13, 0, 3, 6], [4, 11, 16, 23]);
        $four!(11, h, [9, 12, 15, 2], [4, 11, 16, 23]);
        $four!(12, i, [0, 7, 14, 5], [6, 10, 15, 21]);
        $four!(13, i, [12, 3, 10, 1], [6, 10, 15, 21]);
        $four!(14, i, [8, 15, 6, 13], [6, 10, 15, 21]);
        $four!(15, i, [4, 11, 2, 9], [6, 10, 15, 21]);
    };
}
pub(super) use groups;
