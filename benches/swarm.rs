//! The cost of the core alone: whole downloads of 100,000 pieces in which every request is answered
//! at once, so that all time is spent on decisions. The figure is the time for a block.

mod kit;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use kit::Download;

const PIECES: u32 = 100_000;

fn downloads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("download of 100,000 pieces, a block");
    group.sample_size(10);
    for (name, blocks, seeds, leechers) in [
        ("16 blocks a piece from one seed", 16, 1, 0),
        ("1 block a piece from one seed", 1, 1, 0),
        ("4 blocks a piece from 4 seeds and 40 leechers", 4, 4, 40),
        ("4 blocks a piece from 80 leechers", 4, 0, 80),
    ] {
        group.throughput(Throughput::Elements(u64::from(PIECES * blocks)));
        let begun = || Download::new(kit::swarm(PIECES, blocks, seeds, leechers));
        group.bench_function(name, |b| {
            b.iter_batched(begun, Download::finish, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, downloads);
criterion_main!(benches);
