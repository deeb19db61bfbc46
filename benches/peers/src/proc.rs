//! What the kernel says of a process.

use std::time::Duration;

use anyhow::{Context, Result};

/// Memory of a process that is in RAM, in bytes.
pub fn resident(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.context("a process without VmRSS")?;
    let kib = kib.trim().trim_end_matches(" kB").trim();
    Ok(kib.parse::<u64>()? * 1024)
}

/// Processor time that a process has used, all threads together, to a hundredth of a second.
pub fn processor(id: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The command, in parentheses, may have spaces in it.
    let rest = stat.rsplit_once(") ").context("an odd stat")?.1;
    let fields: Vec<&str> = rest.split(' ').collect();
    // Fields 14 and 15 of proc(5), of which the first two are before the rest.
    let ticks = |n: usize| -> Result<u64> {
        let field = fields.get(n).context("a short stat")?;
        Ok(field.parse()?)
    };
    let ticks = ticks(11)? + ticks(12)?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Packets that loopback has carried, as this process can see it.
pub fn packets() -> Result<u64> {
    let all = std::fs::read_to_string("/proc/self/net/dev")?;
    let line = all.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let received = line.context("no loopback")?.split_whitespace().nth(1);
    Ok(received.context("an odd line")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there() {
        let me = std::process::id();
        assert!(resident(me).expect("its memory") > 100_000);
        let before = processor(me).expect("its time");
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(100) {}
        assert!(processor(me).expect("its time") > before);
        assert!(resident(u32::MAX).is_err());
    }
}
