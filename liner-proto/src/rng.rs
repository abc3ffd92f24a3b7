//! A small generator for epochs, nonces and jitter, seeded by the caller.

/// xoroshiro128++ (Blackman and Vigna, 2019). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 2],
}

impl Rng {
    /// A generator whose output is fixed by `seed`. On a host the seed comes from the operating system: the node's
    /// epochs are only as unlike other nodes' epochs as their seeds are.
    pub const fn new(seed: [u64; 2]) -> Self {
        // The all-zero state is the one that never leaves itself.
        let [a, b] = seed;
        Self { state: [a, if a == 0 && b == 0 { 0x9e37_79b9_7f4a_7c15 } else { b }] }
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        let [s0, s1] = self.state;
        let result = s0.wrapping_add(s1).rotate_left(17).wrapping_add(s0);
        let mixed = s1 ^ s0;
        self.state = [s0.rotate_left(49) ^ mixed ^ (mixed << 21), mixed.rotate_left(28)];
        result
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
        (((self.next() >> 32) * bound as u64) >> 32) as u32
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
