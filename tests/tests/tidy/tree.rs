//! The files of the checkout, and Rust source with its comments and literals blanked out.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A text file of the checkout.
pub(crate) struct File {
    /// Relative to the root, with `/` between folders.
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Every text file that is written by hand: what is built, fetched or hidden from version control is left out.
pub(crate) fn files() -> Vec<File> {
    let mut files = Vec::new();
    walk(&root(), "", &mut files);
    assert!(files.len() > 20, "the tree was not found at {}", root().display());
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

pub(crate) fn rust_files() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | ".cache" | "__pycache__") {
                walk(&entry.path(), &format!("{path}/"), files);
            }
        } else if kind.is_file()
            && name != "Cargo.lock"
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.push(File { path, text });
        }
    }
}

/// The source with every comment turned into blanks and every literal into underscores; lines stay where they are.
pub(crate) fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let (end, fill) = if let Some(end) = comment_end(&chars, at) {
            (end, ' ')
        } else if let Some(end) = literal_end(&chars, at) {
            (end, '_')
        } else {
            code.push(chars[at]);
            at += 1;
            continue;
        };
        code.extend(chars[at..end].iter().map(|&c| if c == '\n' { c } else { fill }));
        at = end;
    }
    code
}

/// Code without its inline test modules.
pub(crate) fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut kept = String::with_capacity(code.len());
    while let Some(at) = rest.find("#[cfg(test)]") {
        let after = &rest[at..];
        let item = after["#[cfg(test)]".len()..].trim_start();
        let open = after.find(['{', ';']).filter(|&open| after.as_bytes()[open] == b'{');
        match open {
            Some(open) if item.starts_with("mod ") => {
                kept.push_str(&rest[..at]);
                rest = &after[block_end(after, open)..];
            }
            _ => {
                let next = at + 1;
                kept.push_str(&rest[..next]);
                rest = &rest[next..];
            }
        }
    }
    kept.push_str(rest);
    kept
}

/// Index behind the brace that closes the one at `open`.
pub(crate) fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Where `word` stands in the code as a word of its own.
pub(crate) fn word_positions<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The identifier at the start of the text; empty if there is none.
pub(crate) fn identifier(text: &str) -> &str {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn comment_end(chars: &[char], at: usize) -> Option<usize> {
    match chars.get(at..at + 2)? {
        ['/', '/'] => Some(find(chars, at, |rest| rest[0] == '\n').unwrap_or(chars.len())),
        ['/', '*'] => {
            let mut depth = 0_usize;
            let mut at = at;
            while at < chars.len() {
                match chars.get(at..at + 2) {
                    Some(['/', '*']) => {
                        depth += 1;
                        at += 2;
                    }
                    Some(['*', '/']) => {
                        depth -= 1;
                        at += 2;
                        if depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => at += 1,
                }
            }
            Some(chars.len())
        }
        _ => None,
    }
}

fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    if chars[at] == '\'' {
        return character_end(chars, at);
    }
    let inside_word = at > 0 && is_word(chars[at - 1]);
    let Range { start: prefix, end: hashes } = string_prefix(chars, at)?;
    if inside_word && prefix > at {
        return None;
    }
    if !chars[at..prefix].contains(&'r') {
        if hashes > prefix {
            return None;
        }
        return Some(quoted_end(chars, prefix));
    }
    let count = hashes - prefix;
    let closes = |rest: &[char]| {
        rest[0] == '"' && rest.len() > count && rest[1..=count].iter().all(|&hash| hash == '#')
    };
    Some(find(chars, hashes + 1, closes).map_or(chars.len(), |end| end + 1 + count))
}

/// The hashes between the letters and the quote of a string literal that begins here.
fn string_prefix(chars: &[char], at: usize) -> Option<Range<usize>> {
    let letters = chars[at..].iter().take(3).take_while(|c| matches!(c, 'b' | 'c' | 'r')).count();
    let prefix = at + letters;
    let hashes = prefix + chars[prefix..].iter().take_while(|&&c| c == '#').count();
    (chars.get(hashes) == Some(&'"')).then_some(prefix..hashes)
}

fn quoted_end(chars: &[char], open: usize) -> usize {
    let mut at = open + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a character literal; nothing for a lifetime or a label.
fn character_end(chars: &[char], at: usize) -> Option<usize> {
    match chars.get(at + 1)? {
        '\\' => find(chars, at + 3, |rest| rest[0] == '\'').map(|end| end + 1),
        '\'' => None,
        _ => (chars.get(at + 2) == Some(&'\'')).then_some(at + 3),
    }
}

fn find(chars: &[char], from: usize, matches: impl Fn(&[char]) -> bool) -> Option<usize> {
    (from..chars.len()).find(|&at| matches(&chars[at..]))
}

#[test]
fn comments_and_literals_are_blanked() {
    let cases = [
        ("a // unsafe\nb", "a          \nb"),
        ("a /* x /* y */ z */ b", "a                   b"),
        (r#"f("un\"safe") + 1"#, "f(__________) + 1"),
        ("r#\"a\"b\"# x", "________ x"),
        (r"br'a' '\'' 'a'", r"br___ ____ ___"),
        ("r#type 'label: x", "r#type 'label: x"),
        ("for<'a> &'a str", "for<'a> &'a str"),
        ("b\"\\\\\" x", "_____ x"),
    ];
    for (source, code) in cases {
        assert_eq!(code_of(source), code, "{source}");
    }
}

#[test]
fn only_inline_test_modules_are_left_out() {
    let code = "a\n#[cfg(test)]\nmod tests {\n  { x }\n}\nb\n#[cfg(test)]\nmod more;\nc { }\n#[cfg(test)]\nfn d() {}";
    let kept = without_tests(code);
    assert!(!kept.contains('x'));
    for part in ["a\n", "\nb\n", "mod more;", "c { }", "fn d()"] {
        assert!(kept.contains(part), "{part} is missing in {kept}");
    }
}
