//! Texts as PostgreSQL can keep them: none may hold a NUL, and names of liner may.

use std::borrow::Cow;

/// Stands before `0` for a NUL, and before itself. It is a character for private use, which no name is likely to hold.
const ESCAPE: char = '\u{f8fe}';

/// A text as a column keeps it.
pub(crate) fn to_column(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return text.into();
    }
    let mut column = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match char {
            '\0' => column.extend([ESCAPE, '0']),
            ESCAPE => column.extend([ESCAPE, ESCAPE]),
            other => column.push(other),
        }
    }
    column.into()
}

/// A text that a column has kept, or that somebody wrote there by hand.
pub(crate) fn from_column(column: &str) -> Cow<'_, str> {
    if !column.contains(ESCAPE) {
        return column.into();
    }
    let mut text = String::with_capacity(column.len());
    let mut chars = column.chars();
    while let Some(char) = chars.next() {
        if char != ESCAPE {
            text.push(char);
            continue;
        }
        match chars.next() {
            Some('0') => text.push('\0'),
            Some(ESCAPE) | None => text.push(ESCAPE),
            Some(other) => text.extend([ESCAPE, other]),
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_none_has_a_nul() {
        for text in ["", "a", "\0", "a\0b\0", "\u{f8fe}", "\u{f8fe}0", "\0\u{f8fe}", "ü\u{f8fe}\u{f8fe}\0"] {
            let column = to_column(text);
            assert!(!column.contains('\0'));
            assert_eq!(from_column(&column), text);
        }
        assert_eq!(to_column("plain"), "plain");
    }
}
