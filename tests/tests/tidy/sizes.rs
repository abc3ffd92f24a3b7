//! Files and functions stay short enough to be read at one sitting.

use crate::tree::{self, File, block_end, code_of, identifier, line_of, without_tests, word_positions};

const FILE_LIMIT: usize = 500;
const FUNCTION_LIMIT: usize = 70;

fn check(file: &File) -> Vec<String> {
    let code = code_of(&file.text);
    let mut complaints = Vec::new();
    let lines = lines_of_code(&without_tests(&code));
    if lines > FILE_LIMIT {
        complaints
            .push(format!("{}: {lines} lines of code, more than {FILE_LIMIT}: cut it by concern", file.path));
    }
    for (name, line, lines) in functions(&code) {
        if lines > FUNCTION_LIMIT {
            complaints.push(format!(
                "{}:{line}: `{name}` has {lines} lines, more than {FUNCTION_LIMIT}",
                file.path
            ));
        }
    }
    complaints
}

fn lines_of_code(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// Name, line and lines of code of the body of every function.
fn functions(code: &str) -> Vec<(&str, usize, usize)> {
    word_positions(code, "fn")
        .filter_map(|at| {
            let after = code[at + 2..].trim_start();
            let name = identifier(after);
            if name.is_empty() {
                return None;
            }
            let open = body(code, at)?;
            let inside = code.get(open + 1..block_end(code, open).saturating_sub(1)).unwrap_or("");
            Some((name, line_of(code, at), lines_of_code(inside)))
        })
        .collect()
}

/// Index of the brace that opens the body; nothing for a declaration.
fn body(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

#[test]
fn files_and_functions_are_short() {
    let complaints: Vec<String> = tree::rust_files().iter().flat_map(check).collect();
    crate::no_complaints(&complaints);
}

#[test]
fn a_long_file_is_found() {
    let file =
        |lines: usize| File { path: "sample.rs".into(), text: "// why\n\nconst A: u8 = 1;\n".repeat(lines) };
    assert!(check(&file(FILE_LIMIT)).is_empty());
    assert_eq!(check(&file(FILE_LIMIT + 1)).len(), 1);
}

#[test]
fn tests_at_the_end_of_a_file_are_free() {
    let text = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 1;\n".repeat(FILE_LIMIT));
    assert!(check(&File { path: "sample.rs".into(), text }).is_empty());
}

#[test]
fn a_long_function_is_found() {
    let function = |lines: usize| {
        let text = format!("fn f(a: [u8; 2]) -> bool\n{{\n{}}}\n", "    // why\n\n    a;\n".repeat(lines));
        File { path: "sample.rs".into(), text }
    };
    assert!(check(&function(FUNCTION_LIMIT)).is_empty());
    assert_eq!(check(&function(FUNCTION_LIMIT + 1)).len(), 1);
}

#[test]
fn declarations_and_function_types_are_no_bodies() {
    assert!(functions("trait T { fn a(&self); } type F = fn(u8) -> u8; const B: u8 = { 1 };").is_empty());
}
