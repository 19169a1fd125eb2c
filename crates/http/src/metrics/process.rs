//! The resource usage of this process.

use std::fs;
use std::time::{Duration, SystemTime};

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};

use super::{Exposition, families};

/// Writes the metrics that every program has. Values that the system does not provide are left out.
pub fn process(page: &mut Exposition) {
    page.each(&families::BUILD_INFO, [(env!("CARGO_PKG_VERSION"), 1_u32)]);
    if let Some(ProcessTimes { used, started }) = fs::read_to_string("/proc/self/stat")
        .ok()
        .zip(fs::read_to_string("/proc/stat").ok())
        .and_then(|(own, all)| ProcessTimes::parse(&own, &all, clock_ticks_per_second()))
    {
        page.one(&families::CPU_SECONDS, used);
        let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        page.one(&families::START_SECONDS, started);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (key, family) in
            [("VmRSS:", &families::RESIDENT_BYTES), ("VmSize:", &families::VIRTUAL_BYTES)]
        {
            if let Some(bytes) = kib(&status, key) {
                page.one(family, bytes);
            }
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One is used for reading the folder.
        page.one(&families::OPEN_FDS, open.count().saturating_sub(1));
    }
    let most = getrlimit(Resource::Nofile).current;
    page.one(&families::MAX_FDS, most.map_or(f64::INFINITY, |most| most as f64));
}

/// The processor time used, and the start time of the process.
#[derive(Debug, PartialEq)]
struct ProcessTimes {
    used: Duration,
    started: SystemTime,
}

impl ProcessTimes {
    /// Parses the text of `/proc/self/stat` and `/proc/stat`.
    fn parse(own: &str, all: &str, ticks_a_second: u64) -> Option<Self> {
        // The name in parentheses may contain any characters. Field 3 follows it.
        let fields: Vec<&str> = own.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let time =
            |ticks: u64| Duration::from_secs_f64(ticks as f64 / ticks_a_second.max(1) as f64);
        let booted = all.lines().find_map(|line| line.strip_prefix("btime "))?;
        let booted = Duration::from_secs(booted.trim().parse().ok()?);
        Some(Self {
            used: time(field(14)?.checked_add(field(15)?)?),
            started: SystemTime::UNIX_EPOCH.checked_add(booted)?.checked_add(time(field(22)?))?,
        })
    }
}

/// Returns the bytes of a line such as `VmRSS:     1234 kB`.
fn kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_a_name_that_may_be_anything() {
        let mut own = "42 (a ) b) S".to_owned();
        (4..=52).for_each(|field| own.push_str(&format!(" {}", field * 100)));
        let times =
            ProcessTimes::parse(&own, "cpu 1 2\nbtime 1700000000\nprocesses 3\n", 100).unwrap();
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_022);
        assert_eq!(times, ProcessTimes { used: Duration::from_secs(29), started });
        assert_eq!(ProcessTimes::parse("42 (x) S 1", "btime 1\n", 100), None);
        assert_eq!(ProcessTimes::parse(&own, "cpu 1\n", 100), None);
    }

    #[test]
    fn memory_is_read_in_its_unit() {
        assert_eq!(kib("VmSize:\t  8 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12_288));
        assert_eq!(kib("VmRSS: many\n", "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_tells_everything() {
        let mut page = Exposition::default();
        process(&mut page);
        let text = page.finish();
        for family in families::PROCESS {
            assert!(text.contains(&format!("\n# TYPE {} ", family.name)), "{}", family.name);
        }
    }
}
