//! Which paths of strangers are safe to store.

use unicode_normalization::UnicodeNormalization;

use crate::base::printable;

use super::{FileEntry, FilePath, MetainfoError, ParseLimits, PathFault};

/// Refuses `path` (the torrent's name first) unless every component is a plain file name.
pub(super) fn check<S: AsRef<str>>(path: &[S], limits: &ParseLimits) -> Result<(), MetainfoError> {
    match fault_in(path, limits) {
        Some(fault) => Err(MetainfoError::Path { path: shown(path), fault }),
        None => Ok(()),
    }
}

/// Refuses two files in one place: equal paths, paths that are equal on a file system that
/// ignores case or Unicode form, and a file where another needs a folder.
///
/// Padding files are never written and often share one name, so they do not count.
pub(super) fn check_distinct(entries: &[FileEntry]) -> Result<(), MetainfoError> {
    let mut folded: Vec<(String, &FileEntry)> = entries
        .iter()
        .filter(|entry| !entry.padding)
        .map(|entry| (fold(&entry.path), entry))
        .collect();
    // NUL separates the components and is less than all they may hold: so what is inside a path
    // follows it at once.
    folded.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for pair in folded.windows(2) {
        let [(key, entry), (next_key, next)] = pair else { continue };
        let (path, other) = (|| shown(&[entry.path.as_str()]), || shown(&[next.path.as_str()]));
        if key == next_key {
            return Err(if entry.path == next.path {
                MetainfoError::DuplicatePath { path: path() }
            } else {
                MetainfoError::CollidingPaths { path: path(), other: other() }
            });
        }
        if next_key.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('\0')) {
            return Err(MetainfoError::FileIsFolder { path: path(), other: other() });
        }
    }
    Ok(())
}

/// `path` for an error: joined, printable, and not a screenful.
pub(super) fn shown<S: AsRef<str>>(path: &[S]) -> String {
    const MOST: usize = 200;
    let mut text = String::new();
    for (index, component) in path.iter().enumerate() {
        if index > 0 {
            text.push('/');
        }
        let left = MOST.saturating_sub(text.chars().count());
        text.extend(component.as_ref().chars().take(left));
        if component.as_ref().chars().nth(left).is_some() {
            text.push('…');
            break;
        }
    }
    printable(&text).into_owned()
}

fn fault_in<S: AsRef<str>>(path: &[S], limits: &ParseLimits) -> Option<PathFault> {
    if path.is_empty() {
        return Some(PathFault::NoComponents);
    }
    if path.len() > limits.path_depth {
        return Some(PathFault::TooDeep { limit: limits.path_depth });
    }
    path.iter().find_map(|component| component_fault(component.as_ref(), limits))
}

fn component_fault(component: &str, limits: &ParseLimits) -> Option<PathFault> {
    match component {
        "" => return Some(PathFault::EmptyComponent),
        "." | ".." => return Some(PathFault::DotComponent),
        _ => {}
    }
    if component.starts_with(['/', '\\']) {
        return Some(PathFault::Absolute);
    }
    if component.contains(['/', '\\']) {
        return Some(PathFault::Separator);
    }
    if component.contains('\0') {
        return Some(PathFault::Nul);
    }
    let (len, limit) = (component.len(), limits.name_len);
    (len > limit).then_some(PathFault::TooLong { len, limit })
}

/// Lower-cased and composed (NFC), components separated by NUL.
fn fold(path: &FilePath) -> String {
    let mut folded = String::new();
    for (index, component) in path.iter().enumerate() {
        if index > 0 {
            folded.push('\0');
        }
        if component.is_ascii() {
            folded.extend(component.chars().map(|c| c.to_ascii_lowercase()));
        } else {
            // Composed first and last: lower-casing may take a composed letter apart.
            folded.extend(component.nfc().flat_map(char::to_lowercase).nfc());
        }
    }
    folded
}
