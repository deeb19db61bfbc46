#![no_main]
raft_once_fuzz::fuzz!(group_on_disk);
