#![no_main]
raft_once_fuzz::fuzz!(frame);
