//! A session and a delivery for one peer.
