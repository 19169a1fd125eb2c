//! Compares docs/api.md with the sources: no address and no field may be missing in it.

#![allow(missing_docs)]

const DOCS: &str = include_str!("../docs/api.md");
const ROUTES: &str = include_str!("../crates/control/src/routes.rs");
const TYPES: [(&str, &str); 4] = [
    ("journal.rs", include_str!("../crates/api/src/journal.rs")),
    ("request.rs", include_str!("../crates/api/src/request.rs")),
    ("settings.rs", include_str!("../crates/api/src/settings.rs")),
    ("torrent.rs", include_str!("../crates/api/src/torrent.rs")),
];

#[test]
fn every_field_is_described() {
    let mut missing = Vec::new();
    let mut fields = 0;
    for (file, text) in TYPES {
        for line in text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
            let Some((name, _)) = line.strip_prefix("    pub ").and_then(|l| l.split_once(": "))
            else {
                continue;
            };
            // Its fields appear instead of the field that contains them.
            if !name.contains(['(', ' ']) && (file, name) != ("torrent.rs", "torrent") {
                fields += 1;
                if !DOCS.contains(&format!("`{name}`")) {
                    missing.push(format!("{file}: {name}"));
                }
            }
        }
    }
    assert!(fields > 150, "only {fields} fields were found");
    assert!(missing.is_empty(), "docs/api.md says nothing of {missing:?}");
}

#[test]
fn every_address_is_described_with_its_methods() {
    let mut found = 0;
    for line in ROUTES.lines() {
        let Some(rest) = line.trim().strip_prefix(".route(\"") else { continue };
        let (path, methods) = rest.split_once("\", ").unwrap();
        for method in ["get", "post", "patch", "delete"] {
            if methods.contains(&format!("{method}(")) {
                found += 1;
                let heading = format!("`{} {path}", method.to_uppercase());
                let action = format!("| `{path}` |");
                assert!(
                    DOCS.contains(&heading) || method == "post" && DOCS.contains(&action),
                    "docs/api.md says nothing of {heading}`"
                );
            }
        }
    }
    assert!(found > 28, "only {found} routes were found");
}
