//! Numbers, sizes and durations for people.

use std::time::Duration;

use bytesize::ByteSize;

/// Returns a number of bytes with a binary unit: `512 B`, `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { ByteSize::b(bytes).display().iec().to_string() }
}

/// Returns a number with thousands separators: `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns a number with its noun: `1 piece`, `2 pieces`.
pub fn counted(number: u64, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {what}{ending}", count(number))
}

/// Returns a duration in whole seconds: `1m 5s`; `0s` below a second.
pub fn seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}
