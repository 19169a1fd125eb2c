//! Which paths our torrents may have: those that other programs read without a change.

use crate::{has_byte_marks, printable};

use super::{FileEntry, MetainfoError, ParseLimits, PathFault, repair};

/// Refuses `path` (the torrent's name first) unless every component is a plain file name.
pub(super) fn check<S: AsRef<str>>(path: &[S], limits: &ParseLimits) -> Result<(), MetainfoError> {
    match fault_in(path, limits) {
        Some(fault) => Err(MetainfoError::Path { path: shown(path), fault }),
        None => Ok(()),
    }
}

/// Refuses two files with one path, and a file where another needs a folder.
///
/// Padding files are never written and often share one name, so they are ignored.
pub(super) fn check_distinct(
    entries: &[FileEntry],
    limits: &ParseLimits,
) -> Result<(), MetainfoError> {
    let in_the_way = repair::distinct_paths(entries, limits.name_len, false);
    let Some((file, _)) = in_the_way.first() else { return Ok(()) };
    let own = entries[*file].path.as_str();
    let others = entries.iter().enumerate().filter(|(at, entry)| at != file && !entry.padding);
    let mut inside = others
        .map(|(_, entry)| entry.path.as_str())
        .filter(|other| other.strip_prefix(own).is_some_and(|rest| rest.starts_with('/')));
    let path = shown(&[own]);
    Err(match inside.next() {
        Some(other) => MetainfoError::FileIsFolder { path, other: shown(&[other]) },
        None => MetainfoError::DuplicatePath { path },
    })
}

/// Returns whether a file with `name` in its path is padding without the `attr` of BEP 47:
/// BitComet's padding, which is older. libtorrent takes it for padding too.
pub fn is_padding_name(name: impl AsRef<[u8]>) -> bool {
    const PADDING: &[u8] = b"_____padding_file_";
    name.as_ref().windows(PADDING.len()).any(|part| part == PADDING)
}

/// Returns `path` for an error message: joined, printable, and shortened.
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
    if component.starts_with('/') {
        return Some(PathFault::Absolute);
    }
    if component.contains('/') || repair::is_windows_path(component) {
        return Some(PathFault::Separator);
    }
    if component.contains('\0') {
        return Some(PathFault::Nul);
    }
    if has_byte_marks(component) {
        return Some(PathFault::NotUtf8);
    }
    if is_padding_name(component) {
        return Some(PathFault::Padding);
    }
    let (len, limit) = (component.len(), limits.name_len);
    (len > limit).then_some(PathFault::TooLong { len, limit })
}
