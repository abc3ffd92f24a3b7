//! Messages between programs with no broker process.
