//! Every statement of every page, as each kind of role; what is shown to whom; and what the buttons do.

use crate::shop::{self, ODD, failed_job, folder, job};
use crate::sqlpage::{Answer, Browser, ORIGIN, Request, Row, text};
use kongtask_tests::Cluster;
use std::collections::BTreeSet;

/// Each page with parameters that show what it can show.
fn requests(cluster: &Cluster) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let large = job(cluster, "large");
    let mut requests = vec![
        ("refused.sql", vec![]),
        ("refused.sql", vec![("why", "host".into())]),
        ("theme.sql", vec![("to", "dark".into())]),
        ("index.sql", vec![]),
        ("index.sql", vec![("every", "0".into())]),
        ("tasks.sql", vec![]),
        ("queues.sql", vec![]),
        ("schedules.sql", vec![]),
        ("pauses.sql", vec![("done", "pause".into())]),
        ("workers.sql", vec![]),
        ("limits.sql", vec![]),
        ("doctor.sql", vec![]),
        ("queue.sql", vec![("queue", "none such".into())]),
        ("queue.sql", vec![("queue", "closed".into())]),
        ("task.sql", vec![("task", "of no one".into())]),
        ("schedule.sql", vec![("name", "none such".into())]),
        ("job.sql", vec![]),
        ("job.sql", vec![("id", "12345678".into()), ("done", "gone".into())]),
        ("job.sql", vec![("id", "1; drop".into())]),
        ("jobs.sql", vec![("before", large), ("state", "failed".into()), ("task", "ship".into())]),
        ("jobs.sql", vec![("before", "x".into()), ("queue", ODD.into()), ("text", ODD.into())]),
    ];
    requests.extend(["ship", ODD, "letters"].map(|task| ("task.sql", vec![("task", task.into())])));
    requests.extend([ODD, "nightly"].map(|name| ("schedule.sql", vec![("name", name.into())])));
    requests.push(("queue.sql", vec![("queue", ODD.into())]));
    let states = ["", "ready", "waiting", "scheduled", "running", "retrying", "failed", ODD];
    requests.extend(states.map(|state| ("jobs.sql", vec![("state", state.into())])));
    let keys = ["large", "running", "paused", "ready", "retried", "unregistered", ODD];
    requests.extend(keys.map(|key| ("job.sql", vec![("id", job(cluster, key))])));
    requests.push(("job.sql", vec![("id", failed_job(cluster))]));
    requests
}

fn ask(browser: &mut Browser, page: &str, get: &[(&str, String)]) -> Answer {
    let get: Vec<(&str, &str)> = get.iter().map(|(name, value)| (*name, value.as_str())).collect();
    browser.get(page, &get)
}

#[test]
fn every_statement_of_every_page_runs_whoever_looks() {
    let cluster = shop::open();
    let requests = requests(&cluster);
    let pages: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("a folder")
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".sql") && name != "grants.sql" && name != "do.sql")
        .collect();
    assert_eq!(
        pages,
        requests.iter().map(|(page, _)| (*page).to_owned()).collect(),
        "a page is not asked for, or is not there"
    );
    let limits = cluster.text("select to_regclass('kongtask.limits')");
    for role in ["postgres", "dashboard", "guest", "nobody"] {
        let mut browser = Browser::of(&cluster, role);
        for (page, get) in &requests {
            let answer = ask(&mut browser, page, get);
            let is_for_all = ["refused.sql", "theme.sql"].contains(page);
            let is_there = *page != "limits.sql" || !limits.is_empty();
            match answer.redirect() {
                Some(to) if *page == "theme.sql" => assert_eq!(to, "index.sql"),
                Some(to) => {
                    assert_eq!((to, role == "nobody" || !is_there), ("refused.sql?why=rights", true), "{role}: {page}")
                }
                None => assert!(is_for_all || role != "nobody" && is_there, "{role} sees {page}"),
            }
        }
    }
}

#[test]
fn limits_and_history_are_shown_where_they_are() {
    let cluster = shop::open();
    let is_there = |relation: &str| cluster.text(&format!("select to_regclass('{relation}') is not null")) == "t";
    let mut browser = Browser::of(&cluster, "dashboard");
    let limits = browser.get("limits.sql", &[]);
    assert_eq!(limits.redirect().is_none(), is_there("kongtask.limits"));
    if is_there("kongtask.limits") {
        assert_eq!(text(limits.of("table")[0], "name"), "ships");
    }
    let job = browser.get("job.sql", &[("id", &failed_job(&cluster))]);
    let runs: Vec<&str> = job.of("table").iter().map(|run| text(run, "state")).collect();
    assert_eq!(runs, if is_there("kongtask.runs") { vec!["failed"] } else { vec![] });
}

fn ids(rows: &[&Row]) -> Vec<String> {
    rows.iter().map(|row| text(row, "id").split(['[', ']']).nth(1).expect("a link").to_owned()).collect()
}

#[test]
fn jobs_are_found_by_state_task_queue_and_text() {
    let cluster = shop::open();
    let mut browser = Browser::of(&cluster, "dashboard");
    let mut found = |get: &[(&str, &str)]| ids(&browser.get("jobs.sql", get).of("table"));
    for state in ["ready", "waiting", "scheduled", "running", "retrying", "failed"] {
        let expected = format!(
            "select coalesce(string_agg(id::text, ',' order by id desc), '') from kongtask.job_states where state = '{state}'"
        );
        let expected = cluster.text(&expected);
        assert!(!expected.is_empty());
        assert_eq!(found(&[("state", state)]).join(","), expected, "{state}");
    }
    let [large, running, paused, odd] = ["large", "running", "paused", ODD].map(|key| job(&cluster, key));
    assert_eq!(found(&[("task", "slow")]), std::slice::from_ref(&running));
    assert_eq!(found(&[("queue", ODD)]), std::slice::from_ref(&paused));
    assert_eq!(found(&[("queue", ODD), ("task", "slow")]), [""; 0]);
    // A key, an error; a payload's beginning, not what stands behind a megabyte.
    assert_eq!(found(&[("text", "RUNNING")]), [running]);
    assert_eq!(found(&[("text", "<b>out of stock")]).len(), 4);
    assert_eq!(
        found(&[("text", "document.title")]),
        [vec![large.clone()], found(&[("text", "document.title"), ("before", &large)])].concat()
    );
    assert_eq!(found(&[("text", "in the hay")]), [""; 0]);
    assert_eq!(found(&[("text", ODD)]), [odd]);
    assert_eq!(found(&[("text", "100%")]), [""; 0]);
}

#[test]
fn twenty_thousand_jobs_are_paged_through_and_each_is_seen_once() {
    let cluster = Cluster::with_extension(&["kongtask.databases = ''"]);
    cluster.sql(
        "insert into graphile_worker.jobs (task_identifier, payload, run_at)
         select 'task ' || n % 7, json_build_object('n', n), now() + interval '1 day' from generate_series(1, 20000) n",
    );
    let mut browser = Browser::of(&cluster, "postgres");
    let mut seen = Vec::new();
    let mut before = String::new();
    loop {
        let answer = browser.get("jobs.sql", &[("task", "task 3"), ("before", &before)]);
        let page = ids(&answer.of("table"));
        seen.extend(page.iter().cloned());
        let older = answer.of("button").into_iter().find(|row| text(row, "title") == "Older");
        let Some(older) = older.map(|row| text(row, "link").to_owned()) else { break };
        before = page.last().expect("a job").clone();
        assert!(older.contains(&format!("\"before\":\"{before}\"")) && older.contains("task 3"), "{older}");
    }
    let expected = cluster.text(
        "select string_agg(id::text, ',' order by id desc) from graphile_worker.jobs where task_identifier = 'task 3'",
    );
    assert_eq!(seen.join(","), expected);
}

#[test]
fn a_button_is_shown_to_who_may_press_it() {
    let cluster = shop::open();
    let [running, retried, large, unregistered] =
        ["running", "retried", "large", "unregistered"].map(|key| job(&cluster, key));
    let failed = failed_job(&cluster);
    let buttons = |role: &str, page: &str, get: (&str, &str)| {
        let answer = Browser::of(&cluster, role).get(page, &[get]);
        answer.buttons().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for role in ["dashboard", "postgres"] {
        assert_eq!(buttons(role, "job.sql", ("id", &running)), ["Cancel"]);
        assert_eq!(buttons(role, "job.sql", ("id", &retried)), ["Retry now", "Cancel"]);
        assert_eq!(buttons(role, "job.sql", ("id", &large)), ["Run now", "Cancel"]);
        assert_eq!(buttons(role, "job.sql", ("id", &failed)), ["Retry"]);
        assert_eq!(buttons(role, "task.sql", ("task", "ship")), ["Pause", "Redrive failed jobs"]);
        assert_eq!(buttons(role, "task.sql", ("task", "letters")), ["Pause", "Redrive failed jobs", "Resume"]);
        assert_eq!(buttons(role, "schedule.sql", ("name", "nightly")), ["Run now", "Deactivate"]);
        assert_eq!(buttons(role, "pauses.sql", ("", "")), ["Resume", "Pause"]);
    }
    // A task that is not registered, and a queue, are the owner's.
    assert_eq!(buttons("dashboard", "job.sql", ("id", &unregistered)), [""; 0]);
    assert_eq!(buttons("postgres", "job.sql", ("id", &unregistered)), ["Cancel"]);
    assert_eq!(buttons("dashboard", "queue.sql", ("queue", "closed")), [""; 0]);
    assert_eq!(buttons("postgres", "queue.sql", ("queue", "closed")), ["Pause", "Resume"]);
    // Of who controls no task, what the function itself allows to anyone who may call it.
    assert_eq!(buttons("guest", "job.sql", ("id", &retried)), ["Retry now"]);
    for (page, get) in [
        ("job.sql", ("id", failed.as_str())),
        ("job.sql", ("id", running.as_str())),
        ("task.sql", ("task", "letters")),
        ("schedule.sql", ("name", "nightly")),
        ("pauses.sql", ("", "")),
    ] {
        assert_eq!(buttons("guest", page, get), [""; 0], "{page}");
    }
}

#[test]
fn buttons_do_what_they_say() {
    let cluster = shop::open();
    let mut browser = Browser::of(&cluster, "dashboard");
    let mut press = |post: &[(&str, &str)]| {
        let answer = browser.post(post);
        let error = answer.components("alert").first().map(|alert| text(alert, "title").to_owned());
        answer.redirect().map(str::to_owned).unwrap_or_else(|| format!("failed: {}", error.unwrap_or_default()))
    };
    let state = |id: &str| format!("select state from kongtask.job_states where id = {id}");

    let retried = job(&cluster, "retried");
    let to_job = |id: &str, done: &str| format!("job.sql {{\"id\":{id},\"done\":\"{done}\"}}");
    assert_eq!(
        press(&[("action", "retry"), ("id", &retried)]),
        format!("job.sql {{\"id\":{retried},\"done\":\"retry\",\"count\":1}}")
    );
    cluster.wait_for(&state(&retried), "ready");
    assert_eq!(
        press(&[("action", "cancel"), ("id", &retried), ("reason", "not wanted")]),
        to_job(&retried, "cancelled")
    );
    cluster.wait_for(
        &format!("select last_error from kongtask.job_states where id = {retried}"),
        "cancelled by dashboard: not wanted",
    );
    assert_eq!(press(&[("action", "cancel"), ("id", &retried)]), to_job(&retried, "gone"));

    assert_eq!(
        press(&[("action", "redrive"), ("id", &retried), ("task", "ship")]),
        format!("job.sql {{\"id\":{retried},\"task\":\"ship\",\"done\":\"redrive\",\"count\":1}}")
    );
    cluster.wait_for(&state(&retried), "ready");
    assert_eq!(
        press(&[("action", "redrive"), ("task", "ship")]),
        "task.sql {\"task\":\"ship\",\"done\":\"redrive\",\"count\":3}"
    );
    assert_eq!(
        press(&[("action", "redrive"), ("task", "ship")]),
        "task.sql {\"task\":\"ship\",\"done\":\"nothing\",\"count\":0}"
    );
    cluster.wait_for("select count(*) from kongtask.failed", "0");

    assert!(
        press(&[("action", "pause"), ("task", "ship"), ("queue", ""), ("until", "30 min"), ("reason", "a\nb")])
            .starts_with("task.sql")
    );
    let pause = "select reason = e'a\\nb' and until between now() + interval '29 min' and now() + interval '30 min' from kongtask.pauses where task = 'ship'";
    cluster.wait_for(pause, "t");
    assert_eq!(press(&[("action", "resume"), ("task", "ship")]), "task.sql {\"task\":\"ship\",\"done\":\"resume\"}");
    cluster.wait_for("select count(*) from kongtask.pauses where task = 'ship'", "0");
    assert_eq!(
        press(&[("action", "resume"), ("task", "ship")]),
        "task.sql {\"task\":\"ship\",\"done\":\"not_paused\"}"
    );

    let of_schedule = "select count(*) from graphile_worker.jobs where payload::text ~ '_cron'";
    assert!(press(&[("action", "run"), ("name", "nightly")]).starts_with("job.sql {\"id\":"));
    cluster.wait_for(of_schedule, "1");
    let active = "select active from kongtask.schedules where name = 'nightly'";
    for (action, expected) in [("deactivate", "f"), ("activate", "t")] {
        assert_eq!(
            press(&[("action", action), ("name", "nightly")]),
            format!("schedule.sql {{\"name\":\"nightly\",\"done\":\"{action}\"}}")
        );
        cluster.wait_for(active, expected);
    }

    let running = job(&cluster, "running");
    assert_eq!(press(&[("action", "cancel"), ("id", &running)]), to_job(&running, "stopping"));
    cluster.wait_for(&state(&running), "failed");

    // What fails says why.
    let unregistered = job(&cluster, "unregistered");
    for (post, why) in [
        (vec![("action", "cancel"), ("id", unregistered.as_str())], "SQLSTATE 42501"),
        (vec![("action", "cancel"), ("id", "x")], "invalid input syntax for type bigint: \"x\" (SQLSTATE 22P02)"),
        (vec![("action", "pause"), ("queue", "closed")], "SQLSTATE 42501"),
        (vec![("action", "pause"), ("task", "ship"), ("until", "soon")], "SQLSTATE 22007"),
        (vec![("action", "run"), ("name", "none such")], "SQLSTATE 42704"),
        (vec![("action", "drop everything")], "there is no action \"drop everything\""),
        (vec![], "there is no action"),
    ] {
        let answer = press(&post);
        assert!(answer.starts_with("failed: ") && answer.contains(why), "{post:?}: {answer}");
    }
}

#[test]
fn the_database_refuses_who_may_not() {
    let cluster = shop::open();
    let mut browser = Browser::of(&cluster, "guest");
    let id = job(&cluster, "running");
    let before = "select count(*) from kongtask.pauses";
    for post in [
        vec![("action", "cancel"), ("id", id.as_str())],
        vec![("action", "pause"), ("task", "ship")],
        vec![("action", "redrive"), ("task", "ship")],
        vec![("action", "resume"), ("task", "letters")],
        vec![("action", "run"), ("name", "nightly")],
        vec![("action", "deactivate"), ("name", "nightly")],
    ] {
        let answer = browser.post(&post);
        let alert = answer.components("alert");
        assert!(text(alert[0], "title").contains("SQLSTATE 42501"), "{post:?}");
        assert_eq!(text(answer.components("status_code")[0], "status"), "409");
    }
    assert_eq!(cluster.text(before), "2");
    assert_eq!(cluster.text(&format!("select state from kongtask.job_states where id = {id}")), "running");
}

#[test]
fn only_a_form_of_the_dashboard_itself_changes_anything() {
    let cluster = shop::open();
    let mut browser = Browser::of(&cluster, "dashboard");
    let post = [("action", "pause"), ("task", "ship")];
    let ours = ("origin", ORIGIN);
    let refused = [
        // A link, also one that carries the form's fields.
        ("GET", vec![ours], "405"),
        ("HEAD", vec![ours], "405"),
        // Another site's form; one of a page without an origin; a client that says none.
        ("POST", vec![("origin", "http://evil.example")], "403"),
        ("POST", vec![("origin", "http://127.0.0.1:8081")], "403"),
        ("POST", vec![("origin", "null")], "403"),
        ("POST", vec![], "403"),
        ("POST", vec![ours, ("sec-fetch-site", "cross-site")], "403"),
        ("POST", vec![ours, ("sec-fetch-site", "same-site")], "403"),
    ];
    for (method, headers, status) in refused {
        let answer = browser.ask(
            method,
            "do.sql",
            &Request { get: &post, post: &post, headers: &headers, ..Request::default() },
        );
        assert_eq!(text(answer.components("status_code")[0], "status"), status, "{method} {headers:?}");
        assert_eq!(answer.redirect(), None);
    }
    assert_eq!(cluster.text("select count(*) from kongtask.pauses where task = 'ship'"), "0");
    let answer = browser.ask("POST", "do.sql", &Request { post: &post, headers: &[ours], ..Request::default() });
    assert!(answer.redirect().is_some());
    assert_eq!(cluster.text("select count(*) from kongtask.pauses where task = 'ship'"), "1");

    // By another name, as an attacker's DNS could give it, not even a page is shown.
    for page in ["index.sql", "jobs.sql", "doctor.sql"] {
        let answer =
            browser.ask("GET", page, &Request { headers: &[("host", "evil.example:8080")], ..Request::default() });
        assert_eq!(answer.redirect(), Some("refused.sql?why=host"), "{page}");
    }
}

#[test]
fn without_an_address_of_its_own_it_only_shows() {
    let cluster = shop::open();
    let mut browser = Browser::of(&cluster, "postgres");
    browser.address = None;
    for (page, get) in requests(&cluster) {
        let answer = ask(&mut browser, page, &get);
        let buttons: Vec<&str> = answer.buttons().into_iter().filter(|title| *title != "Show").collect();
        assert_eq!(buttons, [""; 0], "{page}");
    }
    let answer = browser.post(&[("action", "pause"), ("task", "ship")]);
    assert_eq!(text(answer.components("status_code")[0], "status"), "403");
    assert_eq!(cluster.text("select count(*) from kongtask.pauses where task = 'ship'"), "0");
}

#[test]
fn a_payload_of_a_megabyte_is_cut_and_what_names_say_is_escaped() {
    let cluster = shop::open();
    let mut browser = Browser::of(&cluster, "dashboard");
    let answer = browser.get("job.sql", &[("id", &job(&cluster, "large"))]);
    let payload = answer.of("code").into_iter().find(|row| text(row, "title") == "Payload").expect("a payload");
    assert!(text(payload, "contents").chars().count() <= 8001);
    let size = cluster.text(
        "select pg_size_pretty(octet_length(payload::text)::bigint) from graphile_worker.jobs where key = 'large'",
    );
    assert_eq!(text(payload, "description"), format!("The beginning of {size}"));
    let answer = browser.get("tasks.sql", &[]);
    let link = answer
        .of("table")
        .into_iter()
        .map(|row| text(row, "task"))
        .find(|link| link.contains("script"))
        .expect("a task");
    // In markdown: no tag, no link of its own, and a URL of plain letters.
    let (shown, url) = link.strip_prefix('[').and_then(|link| link.split_once("](task.sql?task=")).expect("a link");
    assert!(!shown.replace("\\<", "").contains('<') && !shown.replace("\\]", "").contains(']'), "{shown}");
    assert!(url.strip_suffix(')').expect("an end").chars().all(|c| c.is_ascii_alphanumeric() || c == '%'), "{url}");
}

#[test]
fn the_charts_series_is_kept_by_the_browser_and_never_believed() {
    let cluster = shop::open();
    let mut browser = Browser::of(&cluster, "dashboard");
    let mut series = |past: &str| {
        let answer =
            browser.ask("GET", "index.sql", &Request { cookies: &[("kongtask_series", past)], ..Request::default() });
        let cookie = answer
            .components("cookie")
            .into_iter()
            .find(|row| text(row, "name") == "kongtask_series")
            .expect("a cookie");
        let points = answer.of("chart").into_iter().filter(|row| text(row, "series") == "mean wait").count();
        (text(cookie, "value").to_owned(), points)
    };
    let (first, points) = series("");
    assert_eq!(points, 0, "{first}");
    // As a browser would have it a minute later.
    let (server, rest) = first.split_once('_').expect("a server");
    let (clock, counters) = rest.split_once('_').expect("a time");
    let earlier = clock.parse::<i64>().expect("a time") - 60_000;
    let mut past = format!("{server}_{earlier}_{counters}");
    for n in 0..80 {
        past.push_str(&format!(".{}_1_2_3_4", earlier - 80_000 + n * 1000));
    }
    // Of more points than a cookie can bear, none is taken.
    assert_eq!(series(&past).1, 0);
    let past: String = past.rsplitn(21, '.').last().expect("a part").to_owned();
    let (next, points) = series(&past);
    assert!(points == 60 && next.len() < 4000, "{points} {next}");
    for forged in [
        "x".to_owned(),
        format!("{server}_1"),
        format!("{server}_{earlier}_{counters}.1_2_3_4_999999999999999999999"),
        format!("{server}_{earlier}_{counters}.<script>"),
        format!("000000_{earlier}_{counters}.1_2_3_4_5"),
    ] {
        assert_eq!(series(&forged).1, 0, "{forged}");
    }
}
