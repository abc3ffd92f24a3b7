//! Scripts for shells.

use std::process::Command;

use crate::process::run;

#[test]
fn shells_get_a_script_that_knows_the_options() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = run(folder.path(), &["completions", shell]);
        let script = ended.lines.join("\n");
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
        for word in
            ["gateway", "completions", "device-listen", "in-doubt", "check-config", "forget", "reroute"]
        {
            assert!(script.contains(word), "{word} is missing for {shell}");
        }
    }
}

#[test]
fn bash_understands_its_script_and_completes_words() {
    let folder = tempfile::tempdir().unwrap();
    let script = run(folder.path(), &["completions", "bash"]).lines.join("\n");
    let bash = |script: &str| {
        let output = Command::new("bash").args(["--norc", "-c", script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    std::fs::write(folder.path().join("script"), &script).unwrap();
    let path = folder.path().join("script");
    let path = path.to_str().unwrap();
    bash(&format!("bash -n '{path}'"));
    let complete =
        "COMP_WORDS=(liner gateway --dev) COMP_CWORD=2; _liner liner --dev gateway; echo \"${COMPREPLY[@]}\"";
    let words = bash(&format!("source '{path}'; {complete}"));
    assert_eq!(words.trim(), "--device-listen --device");
}
