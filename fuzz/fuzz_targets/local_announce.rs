#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| piecework_fuzz_targets::run("local_announce", bytes));
