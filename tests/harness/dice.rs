//! Random choices that a seed repeats.

/// A stream of random numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// A seed of this run's own, printed, so that a failed test shows what [`Dice::of`] repeats it with.
    pub fn new() -> Dice {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        println!("seed {seed}");
        Dice(seed)
    }

    /// The numbers of a seed.
    pub fn of(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Further dice, whose numbers follow from these ones'.
    pub fn split(&mut self) -> Dice {
        Dice(self.below(u64::MAX))
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % limit
    }

    /// The same for lengths and positions.
    pub fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).expect("below a usize")
    }

    /// One of several.
    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.index(from.len())]
    }
}

impl Default for Dice {
    fn default() -> Dice {
        Dice::new()
    }
}
