//! The one source of chance in a world.

use liner_proto::rng::Rng;

/// Draws everything that a world leaves to chance, from one seed.
#[derive(Clone, Debug)]
pub struct Dice {
    rng: Rng,
}

impl Dice {
    /// Dice whose throws are fixed by `seed` and, for independent dice of one seed, by `stream`.
    pub const fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Rng::new([seed ^ 0x6c69_6e65_7277_6f72, stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)]);
        // Seeds that follow one another begin with states that are much alike.
        let mut throw = 0;
        while throw < 8 {
            rng.next();
            throw += 1;
        }
        Self { rng }
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.rng.next()
    }

    /// A number below `bound`; 0 if that is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    /// A number from `low` to `high`, both included.
    pub const fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.rng.below(high - low + 1)
    }

    /// An index below `len`.
    pub const fn index(&mut self, len: usize) -> usize {
        self.rng.below(len as u64) as usize
    }

    /// True in `permille` of 1,000 cases.
    pub const fn chance(&mut self, permille: u64) -> bool {
        self.rng.below(1000) < permille
    }

    /// One of `choices`, which is not empty.
    pub const fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// A number from `low` to `high` of which each magnitude is as likely as the others. `1 <= low <= high`.
    pub const fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let (shortest, longest) = (low.ilog2() as u64, high.ilog2() as u64);
        let bits = self.range(shortest, longest);
        let floor = 1 << bits;
        let value = floor + self.below(floor);
        if value < low {
            low
        } else if value > high {
            high
        } else {
            value
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_stay_within_their_bounds() {
        let mut dice = Dice::new(1, 0);
        for _ in 0..1000 {
            let value = dice.magnitude(3, 1000);
            assert!((3..=1000).contains(&value));
        }
        assert_eq!(dice.magnitude(1, 1), 1);
    }

    #[test]
    fn neighbouring_seeds_throw_differently() {
        let first = |seed| Dice::new(seed, 0).below(1_000_000);
        assert_ne!(first(1), first(2));
    }
}
