//! A small generator for epochs, nonces and jitter, seeded by the caller.

/// xoshiro128++ (Blackman and Vigna, 2019). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u32; 4],
}

impl Rng {
    /// A generator whose output is fixed by `seed`. On a host the seed comes from the operating system: the node's
    /// epochs are only as unlike other nodes' epochs as their seeds are.
    pub const fn new(seed: [u64; 2]) -> Self {
        let [a, b] = seed;
        // The all-zero state is the one that never leaves itself.
        let last = (b >> 32) as u32 | (a == 0 && b == 0) as u32;
        let mut rng = Self { state: [a as u32, (a >> 32) as u32, b as u32, last] };
        // The first numbers depend on a part of the state only, and seeds may differ in a counter's lowest bit.
        let mut unused = 8;
        while unused > 0 {
            rng.next32();
            unused -= 1;
        }
        rng
    }

    /// Makes the output depend on `more`, too.
    pub const fn mix(&mut self, more: u64) {
        self.state[0] ^= more as u32;
        self.state[1] ^= (more >> 32) as u32;
        // In case that nothing is left of it.
        self.state[2] |= 1;
    }

    /// The next 32 bits.
    #[cfg_attr(target_os = "none", inline(never))]
    pub const fn next32(&mut self) -> u32 {
        let [a, b, c, d] = self.state;
        let (mixed, turned) = (c ^ a, d ^ b);
        self.state = [a ^ turned, b ^ mixed, mixed ^ (b << 9), turned.rotate_left(11)];
        a.wrapping_add(d).rotate_left(7).wrapping_add(a)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        let low = self.next32();
        (self.next32() as u64) << 32 | low as u64
    }

    /// The next 64 bits that are not zero, since zero stands for "none" in epochs and nonces.
    pub const fn next_nonzero(&mut self) -> u64 {
        loop {
            let value = self.next();
            if value != 0 {
                return value;
            }
        }
    }

    /// A number below `bound`; 0 if `bound` is 0. Biased by less than `bound` in 2^32.
    pub const fn below32(&mut self, bound: u32) -> u32 {
        ((self.next32() as u64 * bound as u64) >> 32) as u32
    }

    /// A number below `bound`; 0 if `bound` is 0. Biased by less than `bound` in 2^64.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_its_authors() {
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let first = [641, 1_573_767, 3_222_811_527, 3_517_856_514, 836_907_274, 4_247_214_768];
        assert_eq!(first, core::array::from_fn(|_| rng.next32()));
    }

    /// A device's seed may be its chip's number and a counter of its starts, in whatever place.
    #[test]
    fn seeds_that_count_begin_with_different_numbers() {
        let seeds: [fn(u64) -> [u64; 2]; 4] =
            [|count| [7, count], |count| [count, 7], |count| [7, count << 32], |count| [count << 32, 7]];
        for seed in seeds {
            let first = (1..1000).map(|count| Rng::new(seed(count)).next());
            assert_eq!(first.collect::<alloc::collections::BTreeSet<_>>().len(), 999);
        }
    }

    /// A chip is replaced by its neighbour, which has been started a few times more or less.
    #[test]
    fn seeds_of_neighbours_that_count_begin_with_different_numbers() {
        let seeds = (0..200).flat_map(|serial| (1..=200).map(move |start| [0x56_3412 + serial, start]));
        let first = seeds.map(|seed| Rng::new(seed).next());
        assert_eq!(first.collect::<alloc::collections::BTreeSet<_>>().len(), 200 * 200);
    }

    #[test]
    fn zero_seed_is_not_a_fixed_point() {
        let mut rng = Rng::new([0, 0]);
        assert_ne!(rng.next(), rng.next());
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::new([1, 2]);
        assert!((0..1000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
        assert!((0..1000).all(|_| rng.below32(7) < 7));
        assert_eq!(rng.below32(0), 0);
    }
}
