//! Arguments in, exit code out.

use std::process::ExitCode;

/// A run frees on one thread what it allocated on another, which the C library's allocator pays with locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waybill::cli::main(std::env::args_os())
}
