//! Statements that write rows of the database, within the transaction of a batch.

use std::os::unix::ffi::OsStrExt;

use rusqlite::{Transaction, params};

use super::model::{Counters, Saved, Update};
use super::packed::pack;
use piecework_core::{Checkpoint, InfoHash};

/// Adds or replaces a torrent.
pub(super) fn put(transaction: &Transaction<'_>, saved: &Saved) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO torrents \
             (info_hash, file, root, added_at, done_at, settings, counters) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            saved.info_hash.0,
            saved.file,
            saved.root.as_os_str().as_bytes(),
            saved.added_at,
            saved.done_at,
            saved.settings,
            counters_text(&saved.counters)?,
        ])?;
    match &saved.checkpoint {
        Some(checkpoint) => put_checkpoint(transaction, saved.info_hash, checkpoint),
        None => remove_checkpoint(transaction, saved.info_hash),
    }
}

/// Adds a torrent if it is not there.
pub(super) fn put_missing(transaction: &Transaction<'_>, saved: &Saved) -> rusqlite::Result<()> {
    let is_there: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM torrents WHERE info_hash = ?1)")?
        .query_row([saved.info_hash.0], |row| row.get(0))?;
    if is_there { Ok(()) } else { put(transaction, saved) }
}

/// Writes the settings of the program if there are none.
pub(super) fn put_missing_settings(
    transaction: &Transaction<'_>,
    settings: &str,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR IGNORE INTO facts (name, value) VALUES ('settings', ?1)")?
        .execute([settings])?;
    Ok(())
}

/// Removes a torrent and its checkpoint, if there are any.
pub(super) fn remove(transaction: &Transaction<'_>, info_hash: InfoHash) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM torrents WHERE info_hash = ?1")?
        .execute([info_hash.0])?;
    remove_checkpoint(transaction, info_hash)
}

/// Changes a torrent. Returns whether it exists.
pub(super) fn update(
    transaction: &Transaction<'_>,
    info_hash: InfoHash,
    update: &Update,
) -> rusqlite::Result<bool> {
    let changed = transaction
        .prepare_cached(
            "UPDATE torrents SET root = COALESCE(?2, root), settings = COALESCE(?3, settings), \
             counters = COALESCE(?4, counters), \
             done_at = CASE WHEN ?5 THEN ?6 ELSE done_at END WHERE info_hash = ?1",
        )?
        .execute(params![
            info_hash.0,
            update.root.as_ref().map(|root| root.as_os_str().as_bytes()),
            update.settings,
            update.counters.as_ref().map(counters_text).transpose()?,
            update.done_at.is_some(),
            update.done_at.flatten(),
        ])?;
    Ok(changed > 0)
}

/// Writes a checkpoint if its torrent is there.
pub(super) fn put_checkpoint(
    transaction: &Transaction<'_>,
    info_hash: InfoHash,
    checkpoint: &Checkpoint,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO checkpoints (info_hash, packed) \
             SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM torrents WHERE info_hash = ?1)",
        )?
        .execute(params![info_hash.0, pack(info_hash, checkpoint)])?;
    Ok(())
}

/// Writes the settings of the program.
pub(super) fn put_settings(transaction: &Transaction<'_>, settings: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO facts (name, value) VALUES ('settings', ?1)")?
        .execute([settings])?;
    Ok(())
}

/// Marks the file as closed properly, or as in use.
pub(super) fn mark_clean(transaction: &Transaction<'_>, clean: bool) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO facts (name, value) VALUES ('clean', ?1)")?
        .execute([if clean { CLEAN } else { "no" }])?;
    Ok(())
}

fn remove_checkpoint(transaction: &Transaction<'_>, info_hash: InfoHash) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM checkpoints WHERE info_hash = ?1")?
        .execute([info_hash.0])?;
    Ok(())
}

fn counters_text(counters: &Counters) -> rusqlite::Result<String> {
    serde_json::to_string(counters)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Value of the fact `clean` if the file was closed properly.
pub(super) const CLEAN: &str = "yes";
