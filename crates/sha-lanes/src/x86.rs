//! The compression function over the lanes of a vector register, and over two streams with the SHA
//! instructions.
//!
//! Lane `n` of register `w[t]` holds word `t` of message `n`'s block, and lane `n` of the five
//! state registers its state. Otherwise it follows FIPS 180-4, 6.1.2 word for word.

// Vectors are only passed to functions with the same target features, and indexed in plain loops.
// In an iterator or a closure of `std`, whose code does not have those features, a vector may not
// be inlined; it then goes through memory at a fortieth of the speed.
#![allow(clippy::needless_range_loop, reason = "see above")]

use super::{Block, State};

/// The constant of each 20 rounds, FIPS 180-4, 4.2.1.
const K: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];

/// The 80 rounds, unrolled so that the compiler knows every index and keeps all 16 words and the
/// state in registers.
macro_rules! rounds {
    // The five variables rotate their roles every round. After five rounds each has its old role.
    (five $s:ident $w:ident $f:ident $k:ident $t:literal) => {
        rounds!(one $s 0 1 2 3 4 $w $f $k $t);
        rounds!(one $s 4 0 1 2 3 $w $f $k $t + 1);
        rounds!(one $s 3 4 0 1 2 $w $f $k $t + 2);
        rounds!(one $s 2 3 4 0 1 $w $f $k $t + 3);
        rounds!(one $s 1 2 3 4 0 $w $f $k $t + 4);
    };
    (one $s:ident $a:literal $b:literal $c:literal $d:literal $e:literal
        $w:ident $f:ident $k:ident $t:expr) => {
        if $t >= 16 {
            let parity =
                xor3($w[($t + 13) % 16], $w[($t + 8) % 16], $w[($t + 2) % 16]);
            $w[$t % 16] = rotate::<1, 31>(xor(parity, $w[$t % 16]));
        }
        let known = add(add($s[$e], $k), $w[$t % 16]);
        let mixed = add($f($s[$b], $s[$c], $s[$d]), rotate::<5, 27>($s[$a]));
        $s[$e] = add(known, mixed);
        $s[$b] = rotate::<30, 2>($s[$b]);
    };
    (all $s:ident $w:ident) => {
        let k = splat(super::K[0]);
        rounds!(five $s $w choose k 0);
        rounds!(five $s $w choose k 5);
        rounds!(five $s $w choose k 10);
        rounds!(five $s $w choose k 15);
        let k = splat(super::K[1]);
        rounds!(five $s $w xor3 k 20);
        rounds!(five $s $w xor3 k 25);
        rounds!(five $s $w xor3 k 30);
        rounds!(five $s $w xor3 k 35);
        let k = splat(super::K[2]);
        rounds!(five $s $w majority k 40);
        rounds!(five $s $w majority k 45);
        rounds!(five $s $w majority k 50);
        rounds!(five $s $w majority k 55);
        let k = splat(super::K[3]);
        rounds!(five $s $w xor3 k 60);
        rounds!(five $s $w xor3 k 65);
        rounds!(five $s $w xor3 k 70);
        rounds!(five $s $w xor3 k 75);
    };
}

/// Loads the state into lanes and stores it, for a module's vector type.
macro_rules! lanes {
    ($features:literal, $lanes:literal) => {
        #[target_feature(enable = $features)]
        fn to_lanes(states: &[State; $lanes]) -> [Vector; 5] {
            let mut vectors = [splat(0); 5];
            for word in 0..5 {
                let mut lanes = [0; $lanes];
                for lane in 0..$lanes {
                    lanes[lane] = states[lane][word];
                }
                vectors[word] = load_words(&lanes);
            }
            vectors
        }

        #[target_feature(enable = $features)]
        fn from_lanes(vectors: &[Vector; 5], states: &mut [State; $lanes]) {
            for word in 0..5 {
                let lanes = store_words(vectors[word]);
                for lane in 0..$lanes {
                    states[lane][word] = lanes[lane];
                }
            }
        }
    };
}

/// Block number `at` of the four lanes from `4 * n` on: each 128 bits of the result hold one column
/// of four rows. Like `four_words`, it is a macro because it has to be inlined.
macro_rules! four_rows {
    ($n:literal of $blocks:ident, $at:expr, $rows:ident) => {
        let a = load_big_endian(&$blocks[4 * $n][$at]);
        let b = load_big_endian(&$blocks[4 * $n + 1][$at]);
        let c = load_big_endian(&$blocks[4 * $n + 2][$at]);
        let d = load_big_endian(&$blocks[4 * $n + 3][$at]);
        // Pairs of rows, word by word: two columns of two rows in each 128 bits.
        let (ab, ab_upper) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd, cd_upper) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        $rows[4 * $n] = _mm512_unpacklo_epi64(ab, cd);
        $rows[4 * $n + 1] = _mm512_unpackhi_epi64(ab, cd);
        $rows[4 * $n + 2] = _mm512_unpacklo_epi64(ab_upper, cd_upper);
        $rows[4 * $n + 3] = _mm512_unpackhi_epi64(ab_upper, cd_upper);
    };
}

/// Words `n`, `n + 4`, `n + 8` and `n + 12` of all lanes, from the result of `four_rows`.
macro_rules! four_words {
    ($n:literal of $rows:ident, $words:ident) => {
        let (a, b) = ($rows[$n], $rows[$n + 4]);
        let (c, d) = ($rows[$n + 8], $rows[$n + 12]);
        // Four times four quarters: even ones (0x88), odd ones (0xdd), and those again.
        let even = (_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(c, d, 0x88));
        let odd = (_mm512_shuffle_i32x4(a, b, 0xdd), _mm512_shuffle_i32x4(c, d, 0xdd));
        $words[$n] = _mm512_shuffle_i32x4(even.0, even.1, 0x88);
        $words[$n + 4] = _mm512_shuffle_i32x4(odd.0, odd.1, 0x88);
        $words[$n + 8] = _mm512_shuffle_i32x4(even.0, even.1, 0xdd);
        $words[$n + 12] = _mm512_shuffle_i32x4(odd.0, odd.1, 0xdd);
    };
}

/// 16 messages in 512-bit registers: rotation and any function of three bits are one instruction
/// each.
pub(super) mod avx512 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{Block, State};

    type Vector = __m512i;

    lanes!("avx512f,avx512bw", 16);

    /// Compresses the first blocks of each lane into its state: as many of each as the shortest
    /// lane has.
    ///
    /// On some processors, rotations and shuffles share two of the four units, and the shuffles
    /// that put words in order would leave the other two idle. So the shuffles of the next blocks
    /// are done among the rounds of the current ones: this takes a seventh less time than one after
    /// the other.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) fn compress(states: &mut [State; 16], blocks: [&[Block]; 16]) {
        let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
        if count == 0 {
            return;
        }
        // The compiler must not know these numbers. It adds a known number last, when the next
        // round waits for it, and an unknown one first, when nothing waits.
        let Aligned(k) = black_box(Aligned(super::K));
        let mut state = to_lanes(states);
        let (mut rows, mut next) = ([splat(0); 16], [splat(0); 16]);
        four_rows!(0 of blocks, 0, rows);
        four_rows!(1 of blocks, 0, rows);
        four_rows!(2 of blocks, 0, rows);
        four_rows!(3 of blocks, 0, rows);
        four_words!(0 of rows, next);
        four_words!(1 of rows, next);
        four_words!(2 of rows, next);
        four_words!(3 of rows, next);
        for at in 0..count {
            let (mut s, mut w) = (state, next);
            // After the last block there is nothing to prepare, so the last one is prepared again.
            let ahead = (at + 1).min(count - 1);

            let added = splat(k[0]);
            rounds!(five s w choose added 0);
            rounds!(five s w choose added 5);
            rounds!(five s w choose added 10);
            rounds!(five s w choose added 15);
            four_rows!(0 of blocks, ahead, rows);

            let added = splat(k[1]);
            rounds!(five s w xor3 added 20);
            rounds!(five s w xor3 added 25);
            four_rows!(1 of blocks, ahead, rows);
            rounds!(five s w xor3 added 30);
            rounds!(five s w xor3 added 35);
            four_rows!(2 of blocks, ahead, rows);

            let added = splat(k[2]);
            rounds!(five s w majority added 40);
            rounds!(five s w majority added 45);
            four_rows!(3 of blocks, ahead, rows);
            rounds!(five s w majority added 50);
            rounds!(five s w majority added 55);
            four_words!(0 of rows, next);

            let added = splat(k[3]);
            rounds!(five s w xor3 added 60);
            four_words!(1 of rows, next);
            rounds!(five s w xor3 added 65);
            four_words!(2 of rows, next);
            rounds!(five s w xor3 added 70);
            four_words!(3 of rows, next);
            rounds!(five s w xor3 added 75);

            for word in 0..5 {
                state[word] = add(state[word], s[word]);
            }
        }
        from_lanes(&state, states);
    }

    /// An aligned value on the stack aligns the whole frame. Words that do not fit into registers
    /// then lie in one cache line, not in two.
    #[repr(align(64))]
    struct Aligned([u32; 4]);

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn load_big_endian(block: &Block) -> Vector {
        // SAFETY: 64 bytes after a reference to 64 bytes may be read. The load needs no alignment.
        let row = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        _mm512_shuffle_epi8(row, _mm512_broadcast_i32x4(order))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load_words(words: &[u32; 16]) -> Vector {
        // SAFETY: 64 bytes after a reference to 64 bytes may be read. The load needs no alignment.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store_words(vector: Vector) -> [u32; 16] {
        let mut words = [0; 16];
        // SAFETY: `words` has 64 bytes and is ours. The store needs no alignment.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
        words
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn splat(word: u32) -> Vector {
        _mm512_set1_epi32(word.cast_signed())
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn add(a: Vector, b: Vector) -> Vector {
        _mm512_add_epi32(a, b)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn xor(a: Vector, b: Vector) -> Vector {
        _mm512_xor_si512(a, b)
    }

    /// Rotates left by `LEFT`. `RIGHT` is 32 - `LEFT`, for processors that cannot rotate.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn rotate<const LEFT: i32, const RIGHT: i32>(a: Vector) -> Vector {
        _mm512_rol_epi32(a, LEFT)
    }

    // The immediate is the truth table of the function: bit `4a + 2b + c` is its value at a, b, c.

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32(a, b, c, 0x96)
    }

    /// Selects b where a is set, otherwise c.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32(a, b, c, 0xca)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32(a, b, c, 0xe8)
    }
}

/// 8 messages in 256-bit registers.
pub(super) mod avx2 {
    use std::arch::x86_64::*;

    use super::{Block, State};

    type Vector = __m256i;

    lanes!("avx2", 8);

    /// Compresses the first blocks of each lane into its state: as many of each as the shortest
    /// lane has.
    #[target_feature(enable = "avx2")]
    pub(crate) fn compress(states: &mut [State; 8], blocks: [&[Block]; 8]) {
        let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
        let mut state = to_lanes(states);
        for at in 0..count {
            let (mut s, mut w) = (state, words(&blocks, at));
            rounds!(all s w);
            for word in 0..5 {
                state[word] = add(state[word], s[word]);
            }
        }
        from_lanes(&state, states);
    }

    /// Returns the words of block number `at` of each lane. Each half of a block is a row of 8
    /// words.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn words(blocks: &[&[Block]; 8], at: usize) -> [Vector; 16] {
        let mut words = [splat(0); 16];
        for half in 0..2 {
            let mut rows = [splat(0); 8];
            for lane in 0..8 {
                rows[lane] = load_big_endian(&blocks[lane][at].as_chunks().0[half]);
            }
            let columns = transpose(&rows);
            for n in 0..8 {
                words[8 * half + n] = columns[n];
            }
        }
        words
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn transpose(rows: &[Vector; 8]) -> [Vector; 8] {
        let zero = splat(0);
        // Pairs of rows, word by word: two columns of two rows in each 128 bits.
        let mut pairs = [zero; 8];
        for n in 0..4 {
            let (a, b) = (rows[2 * n], rows[2 * n + 1]);
            pairs[2 * n] = _mm256_unpacklo_epi32(a, b);
            pairs[2 * n + 1] = _mm256_unpackhi_epi32(a, b);
        }
        // Fours of rows: one column of four rows in each 128 bits.
        let mut fours = [zero; 8];
        for n in 0..2 {
            let (a, b) = (pairs[4 * n], pairs[4 * n + 1]);
            let (c, d) = (pairs[4 * n + 2], pairs[4 * n + 3]);
            fours[4 * n] = _mm256_unpacklo_epi64(a, c);
            fours[4 * n + 1] = _mm256_unpackhi_epi64(a, c);
            fours[4 * n + 2] = _mm256_unpacklo_epi64(b, d);
            fours[4 * n + 3] = _mm256_unpackhi_epi64(b, d);
        }
        // The lower halves, then the upper ones.
        let mut words = [zero; 8];
        for n in 0..4 {
            words[n] = _mm256_permute2x128_si256(fours[n], fours[n + 4], 0x20);
            words[n + 4] = _mm256_permute2x128_si256(fours[n], fours[n + 4], 0x31);
        }
        words
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load_big_endian(row: &[u8; 32]) -> Vector {
        // SAFETY: 32 bytes after a reference to 32 bytes may be read. The load needs no alignment.
        let row = unsafe { _mm256_loadu_si256(row.as_ptr().cast()) };
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        _mm256_shuffle_epi8(row, _mm256_broadcastsi128_si256(order))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load_words(words: &[u32; 8]) -> Vector {
        // SAFETY: 32 bytes after a reference to 32 bytes may be read. The load needs no alignment.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn store_words(vector: Vector) -> [u32; 8] {
        let mut words = [0; 8];
        // SAFETY: `words` has 32 bytes and is ours. The store needs no alignment.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) };
        words
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn splat(word: u32) -> Vector {
        _mm256_set1_epi32(word.cast_signed())
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn add(a: Vector, b: Vector) -> Vector {
        _mm256_add_epi32(a, b)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn xor(a: Vector, b: Vector) -> Vector {
        _mm256_xor_si256(a, b)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn rotate<const LEFT: i32, const RIGHT: i32>(a: Vector) -> Vector {
        _mm256_or_si256(_mm256_slli_epi32(a, LEFT), _mm256_srli_epi32(a, RIGHT))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
        xor(xor(a, b), c)
    }

    /// Selects b where a is set, otherwise c.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
        xor(c, _mm256_and_si256(a, xor(b, c)))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
        // Where b and c agree, their value; elsewhere the value of a.
        xor(b, _mm256_and_si256(xor(a, b), xor(b, c)))
    }
}

/// Two messages with the SHA-1 instructions of the processor. Every four rounds wait for the four
/// before them, so the other message finds the unit idle.
pub(super) mod sha {
    use std::arch::x86_64::*;

    use super::{Block, State};

    /// Compresses the first blocks of both messages into their states: as many of each as both
    /// have.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(crate) fn compress(states: &mut [State; 2], blocks: [&[Block]; 2]) {
        let mut pair = [load_state(states[0]), load_state(states[1])];
        for at in 0..blocks[0].len().min(blocks[1].len()) {
            pair = compress_one(pair, [load_words(&blocks[0][at]), load_words(&blocks[1][at])]);
        }
        *states = [store_state(pair[0]), store_state(pair[1])];
    }

    /// a to d from the top down, and e at the top.
    type Registers = [__m128i; 2];

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    #[inline]
    fn compress_one(state: [Registers; 2], mut w: [[__m128i; 4]; 2]) -> [Registers; 2] {
        let mut abcd = [state[0][0], state[1][0]];
        // e plus the words: first e itself, later the a of four rounds ago, rotated.
        let mut e = [_mm_add_epi32(state[0][1], w[0][0]), _mm_add_epi32(state[1][1], w[1][0])];
        macro_rules! four {
            ($t:literal, $f:literal) => {
                for m in 0..2 {
                    let before = abcd[m];
                    abcd[m] = _mm_sha1rnds4_epu32(abcd[m], e[m], $f);
                    if $t < 19 {
                        let w = &mut w[m];
                        let next = ($t + 1) % 4;
                        if $t >= 3 {
                            let mixed = _mm_sha1msg1_epu32(w[next], w[(next + 1) % 4]);
                            let mixed = _mm_xor_si128(mixed, w[(next + 2) % 4]);
                            w[next] = _mm_sha1msg2_epu32(mixed, w[(next + 3) % 4]);
                        }
                        e[m] = _mm_sha1nexte_epu32(before, w[next]);
                    } else {
                        e[m] = before;
                    }
                }
            };
        }
        four!(0, 0);
        four!(1, 0);
        four!(2, 0);
        four!(3, 0);
        four!(4, 0);
        four!(5, 1);
        four!(6, 1);
        four!(7, 1);
        four!(8, 1);
        four!(9, 1);
        four!(10, 2);
        four!(11, 2);
        four!(12, 2);
        four!(13, 2);
        four!(14, 2);
        four!(15, 3);
        four!(16, 3);
        four!(17, 3);
        four!(18, 3);
        four!(19, 3);
        let mut sums = state;
        for m in 0..2 {
            sums[m] = [_mm_add_epi32(state[m][0], abcd[m]), _mm_sha1nexte_epu32(e[m], state[m][1])];
        }
        sums
    }

    #[target_feature(enable = "sse2,ssse3")]
    #[inline]
    fn load_words(block: &Block) -> [__m128i; 4] {
        let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
        let mut words = [order; 4];
        for n in 0..4 {
            let row = &block.as_chunks::<16>().0[n];
            // SAFETY: 16 bytes after a reference to 16 bytes may be read. The load needs no
            // alignment.
            let row = unsafe { _mm_loadu_si128(row.as_ptr().cast()) };
            words[n] = _mm_shuffle_epi8(row, order);
        }
        words
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn load_state(state: State) -> Registers {
        let word = |at: usize| state[at].cast_signed();
        [_mm_set_epi32(word(0), word(1), word(2), word(3)), _mm_set_epi32(word(4), 0, 0, 0)]
    }

    #[target_feature(enable = "sse2,sse4.1")]
    #[inline]
    fn store_state([abcd, e]: Registers) -> State {
        [
            _mm_extract_epi32(abcd, 3),
            _mm_extract_epi32(abcd, 2),
            _mm_extract_epi32(abcd, 1),
            _mm_extract_epi32(abcd, 0),
            _mm_extract_epi32(e, 3),
        ]
        .map(i32::cast_unsigned)
    }
}
