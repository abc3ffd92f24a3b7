//! What the core says of its work to somebody who looks for why nothing arrives: through `log`, `defmt`, both, or to nobody.
//!
//! The levels: `warn` for what is lost or held up, `info` for sessions that begin and end, `debug` for what explains them,
//! `trace` for frames.
//!
//! A text is a literal that both loggers understand: `{}`, `{:?}` and `{:#x}`, each with an argument behind the text. Arguments have
//! no effects, as each logger evaluates them for itself. Names and other texts of peers are given as
//! [`Text`](crate::wire::text::Text), which shows control characters by their escapes; payloads are never given.

macro_rules! tell {
    ($level:ident, $text:literal $(, $argument:expr)*) => {{
        #[cfg(feature = "log")]
        ::log::$level!($text $(, $argument)*);
        #[cfg(feature = "defmt")]
        ::defmt::$level!($text $(, $argument)*);
        // So that an argument counts as used, and costs nothing.
        #[cfg(not(any(feature = "log", feature = "defmt")))]
        if false {
            let _ = ($text, $(&$argument,)*);
        }
    }};
}

macro_rules! trace {
    ($($arguments:tt)*) => { $crate::logging::tell!(trace, $($arguments)*) };
}

macro_rules! debug {
    ($($arguments:tt)*) => { $crate::logging::tell!(debug, $($arguments)*) };
}

macro_rules! info {
    ($($arguments:tt)*) => { $crate::logging::tell!(info, $($arguments)*) };
}

// Under the attribute's own name it could not be exported.
macro_rules! warning {
    ($($arguments:tt)*) => { $crate::logging::tell!(warn, $($arguments)*) };
}

pub(crate) use {debug, info, tell, trace, warning as warn};
