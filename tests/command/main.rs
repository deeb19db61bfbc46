//! The command `once`, as scripts and people see it: the real binary, in processes of its own.

mod api;
mod cluster;
mod exit_codes;
mod jobs;
mod jobs_killed;
mod lab;
mod manifests;
mod one_machine;
mod page;
mod scripts;
mod signals;
mod web;
