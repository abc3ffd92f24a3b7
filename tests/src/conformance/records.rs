//! Records to fill a store with.

/// A message record with this payload, under topic number 1.
pub fn message(payload: &[u8]) -> Vec<u8> {
    let mut record = vec![0x40, 1];
    record.extend_from_slice(payload);
    record
}

/// A gap record that covers `count` numbers.
pub fn gap(count: u64) -> Vec<u8> {
    let mut record = vec![0x43, 1];
    put_varint(&mut record, count);
    record
}

/// Records one after the other, each with its length.
pub fn run<R: AsRef<[u8]>>(records: impl IntoIterator<Item = R>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        put_varint(&mut bytes, record.as_ref().len() as u64);
        bytes.extend_from_slice(record.as_ref());
    }
    bytes
}

/// The run of the messages `first..=last`, whose payloads tell their number and have different lengths.
pub fn numbered(first: u64, last: u64) -> Vec<u8> {
    run((first..=last).map(message_numbered))
}

/// One record of [`numbered`].
pub fn message_numbered(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend(core::iter::repeat_n(0xee, usize::try_from(number * 7 % 11).unwrap_or(0)));
    message(&payload)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number of 64 bits.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// Whether one in `n` comes up.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
