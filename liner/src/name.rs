//! Names for whoever was given none.

use std::hash::{BuildHasher as _, RandomState};

/// A name with so many random bits, 64 at most: few where names are remembered.
pub(crate) fn random_name(kind: &str, bits: u32) -> String {
    // Seeded by the operating system.
    let random = RandomState::new().hash_one(std::process::id());
    let mask = u64::MAX.checked_shr(64_u32.saturating_sub(bits)).unwrap_or(0);
    let digits = bits.div_ceil(4) as usize;
    format!("{kind}-{:0digits$x}", random & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_made_up_differ() {
        let name = random_name("sub", 32);
        assert_eq!(name.len(), "sub-".len() + 8);
        assert!((0..8).any(|_| random_name("sub", 32) != name));
    }

    #[test]
    fn names_that_are_remembered_are_few() {
        let number = |name: String| u64::from_str_radix(&name["pub-".len()..], 16).unwrap();
        assert!((0..100).all(|_| number(random_name("pub", 10)) < 1024));
    }
}
