# The usual jobs: `just` lists them, `just NAME` runs one. CI runs the same commands (.ci/run).

_list:
    @just --list --unsorted

# What to run before a commit, in a few minutes: format, lints, tests of one crate or of all.
check crate='':
    cargo fmt --all
    cargo clippy {{ if crate == '' { '--workspace' } else { '-p ' + crate } }} --all-targets -- -D warnings
    cargo test {{ if crate == '' { '--workspace' } else { '-p ' + crate } }}

# Everything a change must pass; installs what it needs on Debian and Ubuntu.
ci:
    .ci/run

# The book of docs/, in target/book, and whether its links lead somewhere.
book:
    .ci/book

# The documentation of the crates, in target/doc.
doc:
    cargo doc --workspace --no-deps --open

# The engine's examples, run against each other.
examples:
    .ci/examples

# Looks for inputs that break a target (`just fuzz-targets` lists them), for some seconds of each.
fuzz target seconds='600': _fuzz-lock
    cargo +nightly fuzz run --sanitizer none {{ target }} -- -max_total_time={{ seconds }} -max_len=4096

fuzz-targets:
    @ls fuzz/fuzz_targets | sed 's/\.rs$//'

# Replaces a target's corpus by the fewest inputs that reach as much.
fuzz-shrink target: _fuzz-lock
    cargo +nightly fuzz cmin --sanitizer none {{ target }}

# Fuzzers use the versions of everything else.
_fuzz-lock:
    cp Cargo.lock fuzz/Cargo.lock

# A benchmark, built quickly: `just bench transfer`.
bench name:
    cargo bench --profile quick --bench {{ name }}

# A program whose functions `perf` can name: `just profile torrent-daemon`.
profile program:
    cargo build --profile profiling --bin {{ program }}
    @echo "perf record --call-graph dwarf target/profiling/{{ program }} …; perf report"

# The code with `unsafe` under AddressSanitizer.
asan:
    .ci/asan

# What would be published, without building it again.
packages:
    cargo publish --workspace --dry-run --no-verify --allow-dirty

# Programs, man pages and completions, in dist/.
dist:
    cargo build --release
    packaging/build
