//! What is done with stores as a whole.

#[cfg_attr(not(test), expect(dead_code, reason = "the commands that use it come next"))]
mod transfer;
