//! The command.
#[test]
fn x() {}
