//! The command `once`: see docs/once.md.

fn main() -> std::process::ExitCode {
    raft_once::cli::main()
}
