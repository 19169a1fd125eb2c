# Common jobs: `just` lists them, `just NAME` runs one. CI runs the same commands (.ci/run).

_list:
    @just --list --unsorted

# Run this before a commit; it takes a few minutes: format, lints, tests of one crate or of all.
check crate='':
    cargo fmt --all
    cargo clippy {{ if crate == '' { '--workspace' } else { '-p ' + crate } }} --all-targets -- -D warnings
    cargo test {{ if crate == '' { '--workspace' } else { '-p ' + crate } }}

# All checks that a change must pass. On Debian and Ubuntu it installs what it needs.
ci:
    .ci/run

# Builds the book of docs/ in target/book, and checks its links.
book:
    .ci/book

# The documentation of the crates, in target/doc.
doc:
    cargo doc --workspace --no-deps --open

# The engine's examples, run against each other.
examples:
    .ci/examples

# Searches inputs that break a fuzz target (`just fuzz-targets` lists them) for some seconds.
fuzz target seconds='600': _fuzz-lock
    cargo +nightly fuzz run --sanitizer none {{ target }} -- -max_total_time={{ seconds }} -max_len=4096

fuzz-targets:
    @ls fuzz/fuzz_targets | sed 's/\.rs$//'

# Reduces a target's corpus to the fewest inputs with the same coverage.
fuzz-shrink target: _fuzz-lock
    cargo +nightly fuzz cmin --sanitizer none {{ target }}

# Fuzz targets use the same versions as everything else.
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
