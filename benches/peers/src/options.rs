//! What the arguments say.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::workloads;

pub const HELP: &str = "\
raft-once beside etcd, mosaik and Redis, on this machine, in one run.

  cargo run --release --manifest-path benches/peers/Cargo.toml [-- OPTIONS]

  --quick            small counts, to see whether it works; its figures mean little
  --large            a million cells and ten million slots, where it is about great numbers: an hour,
                     and 20 GB on the disk
  --only NAME,..     only these workloads: claims, births, idle, failover, reads, many-cells,
                     many-slots
  --out FOLDER       where benchmarks.md and its charts go; by default docs/ of the repository,
                     and with --quick or --only peers-report/ in the target folder
  --help             this

A peer that is not installed is skipped, and the page says so:
  apt-get install etcd-server redis-server iproute2
";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub quick: bool,
    pub large: bool,
    pub only: Vec<String>,
    pub out: Option<PathBuf>,
    pub help: bool,
}

impl Options {
    pub fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            quick: false,
            large: false,
            only: Vec::new(),
            out: None,
            help: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--large" => options.large = true,
                "--only" => options.only = value()?.split(',').map(String::from).collect(),
                "--out" => options.out = Some(value()?.into()),
                "--help" | "-h" => options.help = true,
                _ => bail!("{arg}: no such option; --help says which there are"),
            }
        }
        ensure!(
            !(options.quick && options.large),
            "--quick and --large contradict each other"
        );
        for name in &options.only {
            ensure!(
                workloads::NAMES.contains(&name.as_str()),
                "{name}: no such workload; there are {}",
                workloads::NAMES.join(", ")
            );
        }
        Ok(options)
    }

    pub fn runs(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == workload)
    }

    /// The page of the repository is only ever replaced by a whole one.
    pub fn folder(&self) -> Result<PathBuf> {
        if let Some(out) = &self.out {
            return Ok(out.clone());
        }
        if self.quick || !self.only.is_empty() {
            let program = std::env::current_exe()?;
            let target = program.parent().and_then(Path::parent);
            return Ok(target
                .context("a program in a folder")?
                .join("peers-report"));
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        Ok(root.canonicalize()?)
    }

    /// As one would type it.
    pub fn command(&self) -> String {
        let mut command =
            "cargo run --release --manifest-path benches/peers/Cargo.toml".to_string();
        let mut options = Vec::new();
        if self.quick {
            options.push("--quick".to_string());
        }
        if self.large {
            options.push("--large".to_string());
        }
        if !self.only.is_empty() {
            options.push(format!("--only {}", self.only.join(",")));
        }
        if !options.is_empty() {
            command += &format!(" -- {}", options.join(" "));
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options> {
        let args: Vec<String> = args.split_whitespace().map(String::from).collect();
        Options::parse(&args)
    }

    #[test]
    fn options_are_understood_or_refused() {
        let options = parse("--quick --only idle,reads").expect("both are there");
        assert!(options.quick && options.runs("reads") && !options.runs("claims"));
        assert!(options.command().ends_with("-- --quick --only idle,reads"));
        assert!(parse("").expect("none is needed").runs("claims"));
        for wrong in ["--only nothing", "--only", "--fast"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
