//! The `pgweir` program.
//! Must never contain more than its start: everything else is in the library.

fn main() -> std::process::ExitCode {
    pgweir::app::cli::main()
}
