//! What the pages tell to type is what the command has.

use crate::process::run;

/// Each page with its name.
const PAGES: [(&str, &str); 4] = [
    ("README.md", include_str!("../../../README.md")),
    ("docs/devices.md", include_str!("../../../docs/devices.md")),
    ("docs/gateway.md", include_str!("../../../docs/gateway.md")),
    ("docs/stores.md", include_str!("../../../docs/stores.md")),
];

/// The calls of `liner` in the blocks for a shell, each without what stands before it or behind it.
fn calls(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let ends = blocks.flat_map(str::lines).filter_map(|line| line.split(" | ").last());
    let calls = ends.filter(|call| call.starts_with("liner "));
    calls.filter_map(|call| call.split(" #").next()).collect()
}

#[test]
fn what_is_to_be_typed_can_be() {
    let folder = tempfile::tempdir().unwrap();
    for (name, page) in PAGES {
        let calls = calls(page);
        assert!(!calls.is_empty(), "{name} has nothing to type");
        for call in calls {
            let mut words = call.split_whitespace().skip(1);
            let help = run(folder.path(), &[words.next().unwrap(), "--help"]);
            assert_eq!(help.code, Some(0), "{name}: {call}");
            for option in words.filter(|word| word.starts_with("--")) {
                let named =
                    |line: &String| line.split([' ', '[']).find(|word| !word.is_empty()) == Some(option);
                let is_there = help.lines.iter().any(named);
                assert!(is_there, "{name}: {call}: there is no {option}");
            }
        }
    }
}
