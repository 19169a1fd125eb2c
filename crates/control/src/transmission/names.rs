//! The two spellings of every name: today's `snake_case`, which all of this module speaks, and the
//! former mix of `kebab-case` and `camelCase`, which is put in and taken out at the border.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::method::Method;

/// Today's name of a key or word that older clients write `legacy`. A name that is today's
/// already, or that nobody knows, stays.
pub(super) fn modern(legacy: &str) -> &str {
    NAMES.modern.get(legacy).copied().unwrap_or(legacy)
}

/// What older clients call `modern` where `method` is asked for or answered.
pub(super) fn legacy(modern: &str, method: Option<Method>) -> &str {
    match (modern, method) {
        // Two names that have two former spellings each.
        ("download_dir", Some(Method::TorrentGet)) => "downloadDir",
        ("total_size", Some(Method::FreeSpace)) => "total_size",
        _ => NAMES.legacy.get(modern).map_or(modern, String::as_str),
    }
}

struct Names {
    modern: BTreeMap<String, &'static str>,
    legacy: BTreeMap<&'static str, String>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut names = Names { modern: BTreeMap::new(), legacy: BTreeMap::new() };
    let camel = CAMEL.split_whitespace().map(|name| (name, camel_case(name)));
    let kebab = KEBAB.split_whitespace().map(|name| (name, name.replace('_', "-")));
    let odd = ODD.iter().map(|&(name, legacy)| (name, legacy.to_owned()));
    for (name, legacy) in camel.chain(kebab).chain(odd) {
        names.modern.insert(legacy.clone(), name);
        names.legacy.insert(name, legacy);
    }
    names.modern.insert("downloadDir".to_owned(), "download_dir");
    names
});

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        text.push_str(&first.to_ascii_uppercase());
        text.push_str(rest);
    }
    text
}

/// Names that were `camelCase`.
const CAMEL: &str = "
    active_torrent_count activity_date added_date announce_state bandwidth_priority bytes_completed
    client_is_choked client_is_interested client_name corrupt_ever date_created desired_available
    done_date download_count download_limit download_limited download_speed downloaded_bytes
    downloaded_ever edit_date error_string eta_idle file_stats files_added flag_str from_cache
    from_dht from_incoming from_lpd from_ltep from_pex from_tracker has_announced has_scraped
    hash_string have_unchecked have_valid honors_session_limits is_backup is_downloading_from
    is_encrypted is_finished is_incoming is_private is_stalled is_uploading_to
    last_announce_peer_count last_announce_result last_announce_start_time last_announce_succeeded
    last_announce_time last_announce_timed_out last_scrape_result last_scrape_start_time
    last_scrape_succeeded last_scrape_time last_scrape_timed_out leecher_count left_until_done
    magnet_link manual_announce_time max_connected_peers metadata_percent_complete
    next_announce_time next_scrape_time paused_torrent_count peer_is_choked peer_is_interested
    peers_connected peers_from peers_getting_from_us peers_sending_to_us percent_complete
    percent_done piece_count piece_size queue_position rate_download rate_to_client rate_to_peer
    rate_upload recheck_progress scrape_state seconds_active seconds_downloading seconds_seeding
    seed_idle_limit seed_idle_mode seed_ratio_limit seed_ratio_limited seed_ratio_mode seeder_count
    session_count size_when_done start_date torrent_count torrent_file total_size tracker_add
    tracker_list tracker_remove tracker_replace tracker_stats upload_limit upload_limited
    upload_ratio upload_speed uploaded_bytes uploaded_ever webseeds_sending_to_us";

/// Names that were `kebab-case`.
const KEBAB: &str = "
    alt_speed_down alt_speed_enabled alt_speed_time_begin alt_speed_time_day alt_speed_time_enabled
    alt_speed_time_end alt_speed_up anti_brute_force_enabled blocklist_enabled blocklist_size
    blocklist_url config_dir cumulative_stats current_stats default_trackers delete_local_data
    dht_enabled download_dir download_dir_free_space download_queue_enabled download_queue_size
    file_count files_unwanted files_wanted idle_seeding_limit idle_seeding_limit_enabled
    incomplete_dir incomplete_dir_enabled lpd_enabled memory_bytes memory_units peer_limit
    peer_limit_global peer_limit_per_torrent peer_port peer_port_random_on_start pex_enabled
    port_forwarding_enabled port_is_open primary_mime_type priority_high priority_low
    priority_normal queue_stalled_enabled queue_stalled_minutes recently_active
    rename_partial_files rpc_version rpc_version_minimum rpc_version_semver
    script_torrent_added_enabled script_torrent_added_filename script_torrent_done_enabled
    script_torrent_done_filename script_torrent_done_seeding_enabled
    script_torrent_done_seeding_filename seed_queue_enabled seed_queue_size session_id size_bytes
    size_units speed_bytes speed_limit_down speed_limit_down_enabled speed_limit_up
    speed_limit_up_enabled speed_units start_added_torrents tcp_enabled torrent_added
    torrent_duplicate trash_original_torrent_files utp_enabled";

/// Names that follow neither rule. What is in no list was born after the change of spelling and
/// has one only.
const ODD: &[(&str, &str)] = &[("cache_size_mib", "cache-size-mb"), ("is_utp", "isUTP")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_over_and_back() {
        for (today, former) in [
            ("rate_download", "rateDownload"),
            ("peers_getting_from_us", "peersGettingFromUs"),
            ("peer_limit", "peer-limit"),
            ("alt_speed_time_day", "alt-speed-time-day"),
            ("seed_ratio_limited", "seedRatioLimited"),
            ("is_utp", "isUTP"),
            ("cache_size_mib", "cache-size-mb"),
            ("cookies", "cookies"),
            ("sequential_download", "sequential_download"),
            ("ids", "ids"),
        ] {
            assert_eq!(modern(former), today);
            assert_eq!(legacy(today, None), former);
            assert_eq!(modern(today), today);
        }
        let lists = CAMEL.split_whitespace().chain(KEBAB.split_whitespace());
        let mut count = 0;
        for name in lists {
            assert_eq!(modern(legacy(name, None)), name);
            count += 1;
        }
        assert_eq!(count + ODD.len(), NAMES.legacy.len(), "a name stands in two lists");
    }

    #[test]
    fn names_with_two_spellings_follow_the_method() {
        assert_eq!(legacy("download_dir", Some(Method::TorrentGet)), "downloadDir");
        assert_eq!(legacy("download_dir", Some(Method::SessionGet)), "download-dir");
        assert_eq!(modern("download-dir"), "download_dir");
        assert_eq!(modern("downloadDir"), "download_dir");
        assert_eq!(legacy("total_size", Some(Method::TorrentGet)), "totalSize");
        assert_eq!(legacy("total_size", Some(Method::FreeSpace)), "total_size");
    }
}
