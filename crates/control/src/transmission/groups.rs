//! Groups of torrents with limits of their own. They are kept, told and joined; that their limits
//! hold is not built yet.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::fault::{Code, Fault};
use super::limits::kilobytes;
use super::memory::Group;

/// `group_get`: those in `name`, a name or a list of them; without it all.
pub(super) fn get(given: &Arguments, groups: &BTreeMap<String, Group>) -> Map<String, Value> {
    let names: BTreeSet<&str> = match given.raw("name") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(name)) => BTreeSet::from([name.as_str()]),
        _ => BTreeSet::new(),
    };
    let meant = groups.iter().filter(|(name, _)| names.is_empty() || names.contains(name.as_str()));
    let told = meant.map(|(name, group)| {
        json!({
            "honors_session_limits": group.session_limits,
            "name": name,
            "speed_limit_down": kilobytes(group.down),
            "speed_limit_down_enabled": group.down_limited,
            "speed_limit_up": kilobytes(group.up),
            "speed_limit_up_enabled": group.up_limited,
        })
    });
    Map::from_iter([("group".to_owned(), told.collect())])
}

/// `group_set`: changes the group `name`, and makes it if it is not there.
pub(super) fn set(
    given: &Arguments,
    groups: &mut BTreeMap<String, Group>,
) -> Result<Map<String, Value>, Fault> {
    let name = given.text("name")?.unwrap_or_default().trim();
    if name.is_empty() {
        return Err(Fault::new(Code::InvalidParams, "No group name given"));
    }
    if name.len() > MAX_NAME || !groups.contains_key(name) && groups.len() >= MAX_GROUPS {
        let detail =
            format!("there is room for {MAX_GROUPS} groups with names of up to {MAX_NAME} bytes");
        return Err(Fault::new(Code::InvalidParams, detail));
    }
    let mut group = groups.get(name).cloned().unwrap_or_default();
    let Group { down, down_limited, up, up_limited, session_limits } = &mut group;
    for (key, rate) in [("speed_limit_down", down), ("speed_limit_up", up)] {
        *rate = given.rate(key)?.unwrap_or(*rate);
    }
    for (key, flag) in [
        ("speed_limit_down_enabled", down_limited),
        ("speed_limit_up_enabled", up_limited),
        ("honors_session_limits", session_limits),
    ] {
        *flag = given.flag(key)?.unwrap_or(*flag);
    }
    groups.insert(name.to_owned(), group);
    Ok(Map::new())
}

/// Groups that are kept: more than anybody tells apart.
const MAX_GROUPS: usize = 1_000;

/// Bytes of a group's name.
const MAX_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(value: Value) -> Arguments {
        Arguments::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn groups_are_made_changed_and_told() {
        let mut groups = BTreeMap::new();
        let mut set = |value| set(&arguments(value), &mut groups);
        set(json!({"name": " slow ", "speed_limit_down": 5})).unwrap();
        set(json!({"name": "slow", "speed_limit_down_enabled": true})).unwrap();
        set(json!({"name": "fast"})).unwrap();
        assert!(set(json!({"name": " "})).is_err());
        assert!(set(json!({"name": "x".repeat(300)})).is_err());
        assert!(set(json!({"name": "fast", "speed_limit_up": -1})).is_err());
        let told = |value| get(&arguments(value), &groups)["group"].clone();
        assert_eq!(
            told(json!({"name": "slow"})),
            json!([{
                "honors_session_limits": true, "name": "slow", "speed_limit_down": 5,
                "speed_limit_down_enabled": true, "speed_limit_up": 0,
                "speed_limit_up_enabled": false,
            }])
        );
        assert_eq!(told(json!({})).as_array().unwrap().len(), 2);
        assert_eq!(told(json!({"name": ["fast", "no"]})).as_array().unwrap().len(), 1);
    }
}
