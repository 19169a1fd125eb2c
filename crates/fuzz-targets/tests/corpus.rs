//! Replays the corpora of `fuzz/` and compares its programs with the list of targets.

use std::fs;
use std::path::{Path, PathBuf};

use piecework_fuzz_targets::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

#[test]
fn every_input_of_every_corpus_passes() {
    for target in TARGETS {
        let folder = fuzz().join("corpus").join(target.name);
        let mut inputs: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "`{}` has no corpus", target.name);
        for input in inputs {
            let bytes = fs::read(&input).unwrap();
            // The name of the last input is shown if it panics.
            eprintln!("{}", input.display());
            (target.run)(&bytes);
        }
    }
}

// Without the feature, some targets are missing.
#[cfg(feature = "daemon")]
#[test]
fn targets_have_a_program_a_corpus_and_nothing_else_has_one() {
    use std::collections::BTreeSet;

    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len(), "a name stands there twice");
    let listed = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz().join(folder)).unwrap();
        let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| stem(&entry.unwrap().path())).collect()
    };
    assert_eq!(listed("fuzz_targets"), names);
    assert_eq!(listed("corpus"), names);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &names {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "no program `{name}`");
        let program = fuzz().join("fuzz_targets").join(format!("{name}.rs"));
        let program = fs::read_to_string(program).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", bytes)")), "`{name}` runs another");
    }
}
