use axum::http::Request;

use super::*;

fn config() -> GuardConfig {
    GuardConfig::new(&["Seedbox.lan".to_owned()], None, None, true)
}

fn locked() -> GuardConfig {
    let (password, token) = (Secret::from("open sesame: ü"), Secret::from("token"));
    GuardConfig::new(&[], Some(&password), Some(&token), true)
}

fn with_token(guests: bool) -> GuardConfig {
    GuardConfig::new(&[], None, Some(&Secret::from("token")), guests)
}

/// What a guard decides that nobody has tried to guess anything at.
fn decide(parts: &Parts, surface: Surface, config: &GuardConfig) -> Result<(), Refusal> {
    decide_origin(parts, config)?;
    config.admit(&parts.headers)?;
    decide_type(parts, surface)
}

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request = request.header(*name, value);
    }
    request.body(()).unwrap().into_parts().0
}

fn get(headers: &[(&str, &str)]) -> Result<(), Refusal> {
    decide(&parts("GET", "/status", headers), Surface::Native, &config())
}

fn sent(method: &str, more: &[(&str, &str)]) -> Result<(), Refusal> {
    let headers = [&[("host", "127.0.0.1:5000")], more].concat();
    decide(&parts(method, "/seed", &headers), Surface::Native, &config())
}

#[test]
fn addresses_localhost_and_allowed_names_are_hosts() {
    let ours = [
        "127.0.0.1:5000",
        "192.0.2.7",
        "[::1]:5000",
        "[::1]",
        "localhost:5000",
        "LocalHost",
        "localhost.",
        "seedbox.LAN:9091",
    ];
    for host in ours {
        assert_eq!(get(&[("host", host)]), Ok(()), "{host}");
    }
}

#[test]
fn a_stranger_s_name_that_leads_here_is_refused() {
    let strange = [
        "evil.example:5000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "seedbox.lan.evil.example",
        "0x7f000001",
        "",
        "a b",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "[::1].evil.example",
        "[::1].evil.example:5000",
        "[::1]evil:5000",
    ];
    for host in strange {
        let refusal = get(&[("host", host)]).unwrap_err();
        assert!(matches!(refusal, Refusal::Site(SiteRefusal::Host(_))), "{host}: {refusal:?}");
        assert_eq!(refusal.status(), 421);
    }
    assert_eq!(get(&[]), Err(SiteRefusal::NoHost.into()));
    assert_eq!(
        get(&[("host", "localhost"), ("host", "localhost")]),
        Err(SiteRefusal::NoHost.into())
    );
}

#[test]
fn an_address_in_the_request_line_must_be_the_host() {
    let with =
        |uri, host| decide(&parts("GET", uri, &[("host", host)]), Surface::Native, &config());
    assert_eq!(with("http://localhost:5000/", "localhost:5000"), Ok(()));
    assert!(matches!(
        with("http://evil.example/", "localhost"),
        Err(Refusal::Site(SiteRefusal::Host(_)))
    ));
    assert!(matches!(
        with("http://localhost/", "evil.example"),
        Err(Refusal::Site(SiteRefusal::Host(_)))
    ));
}

#[test]
fn pages_of_other_sites_are_refused_and_our_own_are_not() {
    let from = |origin| get(&[("host", "127.0.0.1:5000"), ("origin", origin)]);
    assert_eq!(from("http://127.0.0.1:5000"), Ok(()));
    assert_eq!(from("https://127.0.0.1:5000"), Ok(()));
    let strange = [
        "http://evil.example",
        "http://127.0.0.1:8080",
        "http://127.0.0.1",
        "http://localhost:5000",
        "null",
        "file://",
        "",
        "127.0.0.1:5000",
        "http://x@127.0.0.1:5000",
    ];
    for origin in strange {
        let refusal = from(origin).unwrap_err();
        assert!(matches!(refusal, Refusal::Site(SiteRefusal::Origin(_))), "{origin}");
        assert_eq!(refusal.status(), 403);
    }
    let both = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://x")];
    assert!(get(&both).is_err());
    assert_eq!(get(&[("host", "localhost"), ("origin", "http://localhost:80")]), Ok(()));
}

#[test]
fn browsers_that_say_where_a_request_comes_from_are_believed() {
    let from = |site| get(&[("host", "localhost"), ("sec-fetch-site", site)]);
    assert_eq!(from("same-origin"), Ok(()));
    assert_eq!(from("none"), Ok(()));
    for site in ["cross-site", "same-site", "Cross-Site", "?"] {
        assert!(matches!(from(site), Err(Refusal::Site(SiteRefusal::Origin(_)))), "{site}");
    }
}

#[test]
fn what_changes_something_must_be_json() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "BREW"] {
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(sent(method, &[("content-type", kind)]), Ok(()), "{method} {kind}");
        }
        let forms = [
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "text/plain",
            "text/plain; application/json",
            "application/jsonp",
        ];
        for kind in forms {
            let refusal = sent(method, &[("content-type", kind)]);
            assert_eq!(refusal, Err(Refusal::NotJson), "{method} {kind}");
        }
        let twice = [("content-type", "application/json"), ("content-type", "text/plain")];
        assert_eq!(sent(method, &twice), Err(Refusal::NotJson));
        assert_eq!(sent(method, &[]), Err(Refusal::NotJson));
    }
    assert_eq!(sent("GET", &[("content-type", "text/plain")]), Ok(()));
}

#[test]
fn transmission_s_clients_need_not_say_json_but_the_rest_holds() {
    let rpc = |headers: &[(&str, &str)]| {
        decide(&parts("POST", "/transmission/rpc", headers), Surface::Rpc, &config())
    };
    assert_eq!(rpc(&[("host", "localhost")]), Ok(()));
    assert!(rpc(&[("host", "evil.example")]).is_err());
    assert!(rpc(&[("host", "localhost"), ("origin", "http://evil.example")]).is_err());
}

#[test]
fn the_password_is_taken_as_basic_and_as_bearer() {
    let basic = |text: &str| format!("Basic {}", base64::encode(text.as_bytes()));
    let with = |value: &str| {
        let headers = [("host", "localhost"), ("authorization", value)];
        decide(&parts("GET", "/", &headers), Surface::Native, &locked())
    };
    for right in [
        basic("piecework:open sesame: ü"),
        basic("piecework:open sesame: ü").replace("Basic", "basic"),
        // Any user name is taken.
        basic("root:open sesame: ü"),
        basic(":open sesame: ü"),
        "Bearer open sesame: ü".to_owned(),
    ] {
        assert_eq!(with(&right), Ok(()), "{right}");
    }
    for wrong in [
        basic("piecework:open sesame"),
        basic("open sesame: ü"),
        basic(""),
        "Basic".to_owned(),
        "Bearer".to_owned(),
        "Bearer open sesame: ü!".to_owned(),
        "Bearer open".to_owned(),
    ] {
        assert_eq!(with(&wrong), Err(Refusal::WrongPassword), "{wrong}");
    }
    assert_eq!(with("Digest username=x"), Err(Refusal::NoPassword));
    let nothing = parts("GET", "/", &[("host", "localhost")]);
    assert_eq!(decide(&nothing, Surface::Native, &locked()), Err(Refusal::NoPassword));
}

#[test]
fn a_wrong_host_is_told_before_the_password_is_looked_at() {
    let headers = [("host", "evil.example"), ("authorization", "Bearer x")];
    let decision = decide(&parts("GET", "/", &headers), Surface::Native, &locked());
    assert!(matches!(decision, Err(Refusal::Site(SiteRefusal::Host(_)))));
}

fn asked(authorization: &str) -> Parts {
    parts("GET", "/", &[("host", "localhost"), ("authorization", authorization)])
}

#[test]
fn whoever_shows_the_token_is_the_owner_and_others_are_guests_or_refused() {
    let admitted =
        |config: &GuardConfig, authorization: &str| config.admit(&asked(authorization).headers);
    let nothing = parts("GET", "/", &[("host", "localhost")]);
    for guests in [true, false] {
        let config = with_token(guests);
        assert_eq!(admitted(&config, "Bearer token"), Ok(Caller::Local));
        for user in ["piecework", "admin", ""] {
            let basic = format!("Basic {}", base64::encode(format!("{user}:token").as_bytes()));
            assert_eq!(admitted(&config, &basic), Ok(Caller::Local), "any user name");
        }
    }
    let (open, closed) = (with_token(true), with_token(false));
    assert_eq!(open.admit(&nothing.headers), Ok(Caller::Guest));
    assert_eq!(closed.admit(&nothing.headers), Err(Refusal::NoPassword));
    for wrong in ["Bearer", "Bearer tokens", "Bearer toke", "Basic token", "Basic cm9vdDp0b2tlbnM="]
    {
        assert_eq!(admitted(&open, wrong), Ok(Caller::Guest), "{wrong}");
        assert_eq!(admitted(&closed, wrong), Err(Refusal::WrongPassword), "{wrong}");
        assert_eq!(admitted(&locked(), wrong), Err(Refusal::WrongPassword), "{wrong}");
    }
    assert_eq!(admitted(&locked(), "Bearer token"), Ok(Caller::Local), "beside the password");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_costs_its_sender_alone() {
    let guard = Guard::new(locked());
    let (guesser, other) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
    let right = asked("Bearer open sesame: ü");
    let begun = tokio::time::Instant::now();
    for _ in 0..failures::MAX_FAILURES {
        let guess = guard.check(&asked("Bearer x"), Surface::Native, guesser).await;
        assert_eq!(guess, Err(Refusal::WrongPassword));
    }
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO, "a few mistakes are no guesses");
    let mut guesses = tokio::task::JoinSet::new();
    for _ in 0..failures::GUESSES - 1 {
        let guard = Arc::clone(&guard);
        guesses.spawn(async move {
            guard.check(&asked("Bearer x"), Surface::Native, guesser).await.unwrap_err();
        });
    }
    tokio::task::yield_now().await;
    // 72 right ones, of the guesser's own address and of another, while it guesses.
    for _ in 0..72 {
        for peer in [guesser, other] {
            assert_eq!(guard.check(&right, Surface::Native, peer).await, Ok(Caller::Owner));
        }
    }
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO, "right ones do not wait");
    guesses.join_all().await;
    assert!(begun.elapsed() >= PENALTY, "wrong ones do");
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_guesses_no_faster() {
    let guard = Guard::new(locked());
    let guesser = "192.0.2.1:1".parse().unwrap();
    for _ in 0..failures::MAX_FAILURES {
        guard.check(&asked("Bearer x"), Surface::Native, guesser).await.unwrap_err();
    }
    let begun = tokio::time::Instant::now();
    let moment = std::time::Duration::from_millis(1);
    for _ in 0..failures::GUESSES {
        let guess = asked("Bearer x");
        let hung_up = guard.check(&guess, Surface::Native, guesser);
        assert!(tokio::time::timeout(moment, hung_up).await.is_err());
    }
    // The next is not even looked at before one of these has had its time.
    let right = asked("Bearer open sesame: ü");
    assert_eq!(guard.check(&right, Surface::Native, guesser).await, Ok(Caller::Owner));
    assert!(begun.elapsed() >= PENALTY, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn being_asked_for_the_password_is_no_failure() {
    let guard = Guard::new(locked());
    let peer = "192.0.2.1:1".parse().unwrap();
    for _ in 0..3 * failures::MAX_FAILURES {
        let nothing = parts("GET", "/", &[("host", "localhost")]);
        let refusal = guard.check(&nothing, Surface::Native, peer).await;
        assert_eq!(refusal, Err(Refusal::NoPassword));
    }
    assert!(!guard.failures.lock().any(guard.now()));
}

#[test]
fn refusals_carry_what_clients_need() {
    let challenged = |challenged| {
        let response = finish(Refusal::NoPassword.into_response(), challenged);
        response.headers().contains_key(WWW_AUTHENTICATE)
    };
    assert!(challenged(true));
    assert!(!challenged(false), "the page has a form of its own");
}

#[test]
fn the_files_of_the_page_and_nothing_else_are_for_everybody() {
    let is_file = |method, path| is_page(&parts(method, path, &[("host", "localhost")]));
    for path in ["/ui", "/ui/", "/ui/common/style.css", "/ui/?x"] {
        assert!(is_file("GET", path) && is_file("HEAD", path), "{path}");
        assert!(!is_file("POST", path) && !is_file("DELETE", path), "{path}");
    }
    for path in ["/", "/uis", "/UI/", "//ui/", "/status", "/status?/ui/", "/torrents/ui/"] {
        assert!(!is_file("GET", path), "{path}");
    }
    let browser = [("host", "localhost"), ("accept", "text/html,*/*")];
    assert!(is_page(&parts("GET", "/", &browser)), "it is led to the page");
    assert!(!is_page(&parts("GET", "/status", &browser)));
}

#[tokio::test]
async fn asking_for_the_page_guesses_no_password_and_gives_no_rights() {
    let guard = Guard::new(locked());
    let peer = "192.0.2.1:1".parse().unwrap();
    for _ in 0..3 * failures::MAX_FAILURES {
        for more in [("authorization", "Bearer wrong"), ("authorization", "Bearer token")] {
            let page = parts("GET", "/ui/", &[("host", "localhost"), more]);
            assert_eq!(guard.check(&page, Surface::Native, peer).await, Ok(Caller::Guest));
        }
    }
    assert!(!guard.failures.lock().any(guard.now()));
    let page = parts("GET", "/ui/", &[("host", "localhost")]);
    let refusal = guard.check(&page, Surface::Rpc, peer).await;
    assert_eq!(refusal, Err(Refusal::NoPassword), "that is no page of ours");
}

#[tokio::test]
async fn only_the_token_from_this_machine_and_through_no_proxy_is_that_of_its_user() {
    let guard = Guard::new(locked());
    let here: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let token = asked("Bearer token");
    let check = async |parts: &Parts, peer: &str| {
        guard.check(parts, Surface::Native, peer.parse().unwrap()).await.unwrap()
    };
    for peer in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(check(&token, peer).await, Caller::Local);
    }
    assert_eq!(check(&token, "192.0.2.1:1").await, Caller::Owner);
    assert_eq!(check(&asked("Bearer open sesame: ü"), "127.0.0.1:1").await, Caller::Owner);
    for header in FORWARDED {
        let headers =
            [("host", "localhost"), ("authorization", "Bearer token"), (header, "192.0.2.1")];
        let through = guard.check(&parts("GET", "/", &headers), Surface::Native, here).await;
        assert_eq!(through, Ok(Caller::Owner), "{header}");
    }
}
