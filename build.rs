//! Links release builds with GNU `ld` where it is installed. Rust's default linker on Linux, `lld`, keeps the exception
//! tables of functions that no program uses: a megabyte in each of the programs. Other builds are linked by `lld`, which
//! is faster.

use std::env;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|is| is == value);
    let is_release = is("PROFILE", "release");
    let is_native = env::var("HOST") == env::var("TARGET");
    if is_release && is_native && is("CARGO_CFG_TARGET_OS", "linux") && has_gnu_ld() {
        println!("cargo:rustc-link-arg-bins=-fuse-ld=bfd");
    }
}

fn has_gnu_ld() -> bool {
    let mut ld = Command::new("ld.bfd");
    ld.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ld.status().is_ok_and(|status| status.success())
}
