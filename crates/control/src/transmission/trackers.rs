//! Trackers: as lists, as text with a blank line between tiers, and the changes made to them.

use serde_json::{Value, json};
use url::{Host, Url};

use super::arguments::Arguments;
use super::fault::{Code, Fault};
use piecework_api::{TorrentDetail, TrackerInfo, TrackerState};
use piecework_core::printable;
use piecework_proto::announce::Magnet;

/// Field `trackers`.
pub(super) fn list(trackers: &[TrackerInfo]) -> Value {
    let one = |tracker: &TrackerInfo| {
        json!({
            "announce": tracker.url, "id": id(&tracker.url), "scrape": scrape_url(&tracker.url),
            "sitename": site_name(&tracker.url), "tier": tracker.tier,
        })
    };
    trackers.iter().map(one).collect()
}

/// Field `tracker_stats`. Scrapes there are none.
pub(super) fn stats(trackers: &[TrackerInfo]) -> Value {
    let one = |tracker: &TrackerInfo| {
        let announced = tracker.announced_at.is_some();
        let succeeded = tracker.state == TrackerState::Working
            || announced && tracker.error.is_none() && tracker.state != TrackerState::Failed;
        let result = match (&tracker.error, succeeded) {
            (Some(error), _) => error,
            (None, true) => "Success",
            (None, false) => "",
        };
        // 0: will not be asked, 1: waits for its time, 3: is being asked.
        let announce_state = match (tracker.state, tracker.next_announce_at) {
            (TrackerState::Announcing, _) => 3,
            (TrackerState::Stopped, _) | (_, None) => 0,
            (_, Some(_)) => 1,
        };
        let count = |count: Option<u32>| count.map_or(-1, i64::from);
        json!({
            "announce": tracker.url,
            "announce_state": announce_state,
            "download_count": -1,
            "downloader_count": -1,
            "has_announced": announced,
            "has_scraped": false,
            "host": host(&tracker.url),
            "id": id(&tracker.url),
            "is_backup": is_backup(tracker, trackers),
            "last_announce_peer_count": tracker.peers,
            "last_announce_result": result,
            "last_announce_start_time": tracker.announced_at.unwrap_or(0),
            "last_announce_succeeded": succeeded,
            "last_announce_time": tracker.announced_at.unwrap_or(0),
            "last_announce_timed_out": false,
            "last_scrape_result": "",
            "last_scrape_start_time": 0,
            "last_scrape_succeeded": false,
            "last_scrape_time": 0,
            "last_scrape_timed_out": false,
            "leecher_count": count(tracker.leechers),
            "next_announce_time": tracker.next_announce_at.unwrap_or(0),
            "next_scrape_time": 0,
            "scrape": scrape_url(&tracker.url),
            "scrape_state": 0,
            "seeder_count": count(tracker.seeds),
            "sitename": site_name(&tracker.url),
            "tier": tracker.tier,
        })
    };
    trackers.iter().map(one).collect()
}

/// Field `tracker_list`: one a line, a blank line between tiers.
pub(super) fn text(trackers: &[TrackerInfo]) -> String {
    tiers_to_text(&tiers(trackers))
}

/// Tiers as text: one address a line, a blank line between tiers.
pub(super) fn tiers_to_text(tiers: &[Vec<String>]) -> String {
    let tiers: Vec<String> = tiers.iter().map(|tier| tier.join("\n")).collect();
    tiers.join("\n\n")
}

/// Tiers from text: one address a line, blank lines between tiers.
pub(super) fn tiers_from_text(text: &str) -> Result<Vec<Vec<String>>, Fault> {
    let mut tiers = vec![Vec::new()];
    for line in text.lines().map(str::trim) {
        match (line, tiers.last_mut()) {
            ("", Some(tier)) if tier.is_empty() => {}
            ("", _) => tiers.push(Vec::new()),
            (line, Some(tier)) => tier.push(checked(line, Code::InvalidTrackerList)?),
            (_, None) => {}
        }
    }
    tiers.retain(|tier| !tier.is_empty());
    Ok(tiers)
}

/// The trackers that a request asks for, if it asks for any, out of those there are now.
pub(super) fn change(
    given: &Arguments,
    now: &[TrackerInfo],
) -> Result<Option<Vec<Vec<String>>>, Fault> {
    if let Some(text) = given.text("tracker_list")? {
        return tiers_from_text(text).map(Some);
    }
    let before = tiers(now);
    let mut after = before.clone();
    let mut asked = false;
    if let Some(urls) = given.texts("tracker_add")? {
        asked = true;
        for url in urls {
            let url = checked(url, Code::SetAnnounceList)?;
            if !after.iter().flatten().any(|known| *known == url) {
                after.push(vec![url]);
            }
        }
    }
    if let Some(list) = given.list("tracker_remove")? {
        asked = true;
        for value in list {
            // Older clients give the address itself.
            let gone =
                |url: &String| value.as_u64() == Some(id(url)) || value.as_str() == Some(url);
            after.iter_mut().for_each(|tier| tier.retain(|url| !gone(url)));
        }
    }
    if let Some(list) = given.list("tracker_replace")? {
        asked = true;
        for pair in list.chunks(2) {
            let [old, Value::String(new)] = pair else {
                let detail = "`tracker_replace` must be a list of pairs: an id and an address";
                return Err(Fault::new(Code::InvalidParams, detail));
            };
            let new = checked(new, Code::SetAnnounceList)?;
            let known = after.iter_mut().flatten();
            for url in
                known.filter(|url| old.as_u64() == Some(id(url)) || old.as_str() == Some(url))
            {
                url.clone_from(&new);
            }
        }
    }
    after.retain(|tier| !tier.is_empty());
    match (asked, before == after) {
        (false, _) => Ok(None),
        (true, false) => Ok(Some(after)),
        (true, true) => Err(Code::SetAnnounceList.into()),
    }
}

/// Field `magnet_link`.
pub(super) fn magnet(detail: &TorrentDetail) -> String {
    if detail.torrent.metadata_progress < 1.0 {
        return detail.magnet.clone();
    }
    let urls = detail.trackers.iter().map(|tracker| tracker.url.as_str());
    Magnet::new(detail.torrent.info_hash, Some(&detail.torrent.name), urls).to_string()
}

fn tiers(trackers: &[TrackerInfo]) -> Vec<Vec<String>> {
    let mut tiers: Vec<(u32, Vec<String>)> = Vec::new();
    for tracker in trackers {
        match tiers.iter_mut().find(|(number, _)| *number == tracker.tier) {
            Some((_, tier)) => tier.push(tracker.url.clone()),
            None => tiers.push((tracker.tier, vec![tracker.url.clone()])),
        }
    }
    tiers.sort_by_key(|(number, _)| *number);
    tiers.into_iter().map(|(_, tier)| tier).collect()
}

/// A tracker's address, if it is one.
fn checked(text: &str, code: Code) -> Result<String, Fault> {
    let text = text.trim();
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https" | "udp") && url.has_host() => {
            Ok(text.to_owned())
        }
        _ => {
            let detail = format!("`{}` is not a tracker's address", printable(text));
            Err(Fault::new(code, detail))
        }
    }
}

/// A number that an address keeps whatever happens to the others in the list: 31 bits of its
/// FNV-1a, so that every client can hold it.
fn id(url: &str) -> u64 {
    let hash = url.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash >> 33
}

/// Another of its tier is in use: the one asked last, or else the first.
fn is_backup(tracker: &TrackerInfo, all: &[TrackerInfo]) -> bool {
    let tier = || all.iter().filter(|other| other.tier == tracker.tier);
    let latest = tier().filter_map(|other| other.announced_at).max();
    let used = tier().find(|other| latest.is_none() || other.announced_at == latest);
    used.is_some_and(|used| used.url != tracker.url)
}

/// Returns the host and port of a tracker's address, as Transmission shows them.
fn host(address: &str) -> String {
    let Ok(url) = Url::parse(address) else { return address.to_owned() };
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => address.to_owned(),
    }
}

/// What people call the site: the last part but one of its name, or its address.
fn site_name(address: &str) -> String {
    match Url::parse(address).as_ref().ok().and_then(Url::host) {
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        Some(Host::Domain(name)) => match name.parse::<std::net::IpAddr>() {
            Ok(ip) => ip.to_string(),
            Err(_) => name.rsplit('.').nth(1).unwrap_or(name).to_owned(),
        },
        None => String::new(),
    }
}

/// Where a tracker would be scraped (BEP 48), if its address follows the convention.
fn scrape_url(address: &str) -> String {
    if address.starts_with("udp:") {
        return address.to_owned();
    }
    match address.rsplit_once('/') {
        Some((front, last)) if last.starts_with("announce") => {
            format!("{front}/scrape{}", &last["announce".len()..])
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(url: &str, tier: u32) -> TrackerInfo {
        TrackerInfo {
            url: url.to_owned(),
            tier,
            state: TrackerState::Idle,
            error: None,
            warning: None,
            announced_at: None,
            next_announce_at: None,
            seeds: None,
            leechers: None,
            peers: 0,
        }
    }

    fn arguments(value: Value) -> Arguments {
        Arguments::new(value.as_object().unwrap().clone())
    }

    fn three() -> Vec<TrackerInfo> {
        vec![
            tracker("http://a.example.org/announce", 0),
            tracker("udp://b.example.org:6969/announce", 0),
            tracker("http://127.0.0.1:80/x/announce.php?k=1", 1),
        ]
    }

    #[test]
    fn tiers_stand_in_text_with_a_blank_line_between() {
        let text = text(&three());
        assert_eq!(
            text,
            "http://a.example.org/announce\nudp://b.example.org:6969/announce\n\nhttp://127.0.0.1:80/x/announce.php?k=1"
        );
        assert_eq!(tiers_from_text(&text).unwrap(), tiers(&three()));
        assert_eq!(tiers_from_text("\n\r\n").unwrap(), Vec::<Vec<String>>::new());
        assert_eq!(
            tiers_from_text("\n\nhttp://a/x \r\n\n\n\nudp://b:1\n\n").unwrap(),
            [["http://a/x"], ["udp://b:1"]]
        );
        let fault = tiers_from_text("http://a/x\nfile:///etc/passwd").unwrap_err();
        assert_eq!(fault.code, Code::InvalidTrackerList);
    }

    #[test]
    fn trackers_are_added_removed_and_replaced_by_number() {
        let changed = |value| change(&arguments(value), &three());
        assert_eq!(changed(json!({})), Ok(None));
        let added = changed(json!({"tracker_add": ["http://c.org/a"]})).unwrap().unwrap();
        assert_eq!((added.len(), added[2][0].as_str()), (3, "http://c.org/a"));
        let number = list(&three())[0]["id"].clone();
        let removed = changed(json!({"tracker_remove": [number]})).unwrap().unwrap();
        assert_eq!(removed[0], ["udp://b.example.org:6969/announce"]);
        let replaced = changed(json!({"tracker_replace": [number, "http://d.org/a"]})).unwrap();
        assert_eq!(replaced.unwrap()[0][0], "http://d.org/a");
        let listed = changed(json!({"tracker_list": "http://e.org/a"})).unwrap().unwrap();
        assert_eq!(listed, [["http://e.org/a"]]);
        for useless in [
            json!({"tracker_remove": [1]}),
            json!({"tracker_add": ["http://a.example.org/announce"]}),
            json!({"tracker_add": ["nonsense"]}),
            json!({"tracker_replace": [1, "http://d.org/a"]}),
        ] {
            assert_eq!(changed(useless).unwrap_err().code, Code::SetAnnounceList);
        }
        assert!(changed(json!({"tracker_replace": [1]})).is_err());
    }

    #[test]
    fn a_trackers_parts_are_told() {
        let trackers = three();
        let list = list(&trackers);
        assert_eq!(list[0]["scrape"], "http://a.example.org/scrape");
        assert_eq!(list[2]["scrape"], "http://127.0.0.1:80/x/scrape.php?k=1");
        assert_eq!(list[0]["sitename"], "example");
        assert_eq!(list[2]["sitename"], "127.0.0.1");
        let stats = stats(&trackers);
        assert_eq!(stats[0]["host"], "a.example.org:80");
        assert_eq!(stats[1]["host"], "b.example.org:6969");
        assert_eq!([0, 1, 2].map(|n| stats[n]["is_backup"] == true), [false, true, false]);
        assert_eq!(stats[0]["seeder_count"], -1);
    }

    #[test]
    fn an_announce_is_told_with_its_outcome() {
        let mut one = tracker("http://a.org/announce", 0);
        let told = |one: &TrackerInfo| stats(std::slice::from_ref(one))[0].clone();
        assert_eq!(told(&one)["announce_state"], 0);
        assert_eq!(told(&one)["last_announce_succeeded"], false);
        one.state = TrackerState::Working;
        (one.announced_at, one.next_announce_at, one.seeds) = (Some(50), Some(100), Some(3));
        let working = told(&one);
        assert_eq!(working["last_announce_result"], "Success");
        assert_eq!((&working["announce_state"], &working["seeder_count"]), (&json!(1), &json!(3)));
        (one.state, one.error) = (TrackerState::Failed, Some("refused".to_owned()));
        let failed = told(&one);
        assert_eq!(failed["last_announce_result"], "refused");
        assert_eq!(failed["last_announce_succeeded"], false);
    }
}
