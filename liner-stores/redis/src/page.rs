//! Parts of lists, of so many bytes at most.

use crate::client::{Client, Failure};
use crate::resp::Reply;
use crate::script;

/// Bytes of a page, and one element beyond it.
pub(crate) const PAGE: u64 = 1 << 20;

/// Elements of a page.
const COUNT_MAX: u64 = 8192;

/// The elements of a list from `index` on, before `end`: until they are `room` bytes, and one at least if there is one. `average` are the
/// bytes of an element, roughly.
pub(crate) fn page(
    client: &mut Client,
    list: &str,
    index: u64,
    end: u64,
    room: u64,
    average: u64,
) -> Result<Vec<Vec<u8>>, Failure> {
    let count = COUNT_MAX.min(end.saturating_sub(index));
    // Inside the server no more than this is taken from the list at a time.
    let step = ((1 << 18) / average.max(1)).clamp(1, 512);
    let numbers = [index, index + count, room, step].map(|number| number.to_string());
    let arguments = numbers.each_ref().map(|number| number.as_bytes());
    let Reply::List(elements) = client.eval(script::PAGE, list, &arguments)? else {
        return Err(Failure::nonsense());
    };
    let bytes =
        |element| if let Reply::Bytes(bytes) = element { Ok(bytes) } else { Err(Failure::nonsense()) };
    elements.into_iter().map(bytes).collect()
}
