//! CPU time, memory and descriptors of this process, from `/proc/self` (proc(5)); nothing where there is no procfs.
//! Never fails a scrape: a number that cannot be read is left out.

use std::fs;

use prometheus::proto::{MetricFamily, MetricType};

use super::family::single;

/// Clock ticks per second in `/proc/self/stat`: Linux' USER_HZ, part of the user-space ABI, 100 on every platform
/// Rust's standard library supports.
const USER_HZ: f64 = 100.0;

/// Name and help of every family made here, with the names of Prometheus' client library guidelines.
pub(super) const FAMILIES: [(&str, &str); 6] = [
    ("process_cpu_seconds_total", "User and system CPU time spent."),
    ("process_resident_memory_bytes", "Resident memory size."),
    ("process_virtual_memory_bytes", "Virtual memory size."),
    ("process_open_fds", "Open file descriptors."),
    ("process_max_fds", "Limit of open file descriptors."),
    ("process_threads", "Threads."),
];

/// User plus system time in seconds from `/proc/self/stat`: fields 14 and 15, counted from behind the command, which
/// may contain spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / USER_HZ)
}

/// First number of the line that starts with `key`.
fn line_number(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Since Linux 6.2 the size of the directory is the number of descriptors; before that it is 0 and they are counted.
fn open_fds() -> Option<f64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64),
        count => Some(count as f64),
    }
}

/// The families of [`FAMILIES`] that can be had.
pub(super) fn collect() -> Vec<MetricFamily> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let limits = read("/proc/self/limits");
    let kib = |key| line_number(&status, key).map(|kib| kib * 1024.0);
    let values = [
        cpu_seconds(&read("/proc/self/stat")),
        kib("VmRSS:"),
        kib("VmSize:"),
        open_fds(),
        line_number(&limits, "Max open files"),
        line_number(&status, "Threads:"),
    ];
    let families = FAMILIES.iter().zip(values);
    let shown = families.filter_map(|((name, help), value)| {
        let is_total = name.ends_with("_total");
        let kind = if is_total { MetricType::COUNTER } else { MetricType::GAUGE };
        value.map(|value| single(name, help, kind, value))
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let stat = "12 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 99";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn numbers_of_this_process_are_plausible() {
        let families = collect();
        assert_eq!(families.len(), FAMILIES.len());
        let value = |at: usize| families[at].get_metric()[0].get_gauge().get_value();
        assert!(value(1) > 500_000.0 && value(1) < value(2), "resident {}", value(1));
        assert!(value(3) >= 3.0 && value(3) < value(4), "descriptors {}", value(3));
        assert!(value(5) >= 1.0);
    }
}
