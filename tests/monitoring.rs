//! What monitoring/ has for Prometheus, pgwatch and Grafana: Debian's own exporter and Prometheus are run on a throwaway cluster.

use kongtask_tests::programs::{Running, free_port, get};
use kongtask_tests::{Cluster, SOON, describe, run_script, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/prometheus/usr/bin");

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring")
}

/// One of the programs that scripts/prometheus fetches.
fn tool(name: &str) -> Command {
    static FETCHED: Once = Once::new();
    FETCHED.call_once(|| drop(run_script("prometheus", &[], &[])));
    Command::new(Path::new(TOOLS).join(name))
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&said));
}

/// A cluster with a role kongtask_monitor that has what grants.sql gives, and jobs that succeeded, failed and wait.
fn monitored() -> Cluster {
    let cluster = Cluster::with_extension(&[]);
    cluster.sql(
        "create role kongtask_monitor login;
         create function ship(payload json) returns void language plpgsql as $$
         begin
           if (payload ->> 'order')::int % 3 = 0 then raise 'out of stock'; end if;
         end $$;
         select kongtask.register_task('ship', 'ship(json)');
         select kongtask.schedule('nightly', '0 3 * * *', 'ship'), kongtask.pause('letters', reason := 'a test'),
           kongtask.set_limit('slowly', array['ship'], rate := 9, per := '1 hour', burst := 9);
         select graphile_worker.add_job('ship', json_build_object('order', n), max_attempts := 1) from generate_series(1, 9) n;
         select graphile_worker.add_job('letters'), graphile_worker.add_job('ship', run_at := now() + interval '1 day')",
    );
    // Where the user who runs the server's programs can read it.
    let grants = format!("{}/grants.sql", cluster.host());
    fs::copy(folder().join("grants.sql"), &grants).expect("a copy");
    cluster.client_program("psql", &["-X", "-v", "role=kongtask_monitor", "-f", &grants, "postgres"]);
    cluster.wait_for("select succeeded + discarded from kongtask.stat_tasks where task = 'ship'", "9");
    // There is no room for these.
    cluster.sql("select graphile_worker.add_job('ship', '{\"order\": 10}') from generate_series(1, 2)");
    cluster
}

#[test]
fn the_rules_are_valid_and_fire_when_they_should() {
    succeeds(tool("promtool").args(["check", "config"]).arg(folder().join("prometheus.yml")));
    succeeds(tool("promtool").args(["test", "rules"]).arg(folder().join("kongtask.rules.test.yml")));
    // Each alert is seen to fire, and not to.
    let (rules, tests) = (read("kongtask.rules.yml"), read("kongtask.rules.test.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = tests.contains(&format!("- alertname: {alert}\n"));
        let is_quiet = tests.contains(&format!("- {{alertname: {alert}, eval_time: 1h}}"));
        assert!(fires && is_quiet, "{alert} fires: {fires}, does not: {is_quiet}");
    }
}

#[test]
fn prometheus_gets_what_the_rules_need_from_the_exporter() {
    let cluster = monitored();
    let home = tempfile::tempdir().expect("a folder");
    let (exporter_port, port) = (free_port(), free_port());

    let queries = read("sql_exporter.yml").replace("/var/run/postgresql", &cluster.host());
    let queries = queries.replace("interval: 15s", "interval: 1s").replace("interval: 60s", "interval: 1s");
    fs::write(home.path().join("exporter.yml"), &queries).expect("a file");
    let mut exporter = tool("prometheus-sql-exporter");
    exporter
        .env("CONFIG", home.path().join("exporter.yml"))
        .args(["-web.listen-address", &format!("127.0.0.1:{exporter_port}")]);
    let _exporter = Running::start(&mut exporter, &home.path().join("exporter.log"));

    let config = read("prometheus.yml").replace("localhost:9237", &format!("127.0.0.1:{exporter_port}"));
    let config = config.replace("scrape_interval: 15s", "scrape_interval: 1s");
    fs::write(home.path().join("prometheus.yml"), format!("global: {{evaluation_interval: 1s}}\n{config}"))
        .expect("a file");
    fs::copy(folder().join("kongtask.rules.yml"), home.path().join("kongtask.rules.yml")).expect("a copy");
    let mut prometheus = tool("prometheus");
    prometheus.arg(format!("--config.file={}", home.path().join("prometheus.yml").display()));
    prometheus.arg(format!("--storage.tsdb.path={}", home.path().join("data").display()));
    prometheus.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _prometheus = Running::start(&mut prometheus, &home.path().join("prometheus.log"));

    let logs = || {
        let log = |name| fs::read_to_string(home.path().join(name)).unwrap_or_default();
        format!("{}\n{}", log("exporter.log"), log("prometheus.log"))
    };
    let value = |query: &str| -> Option<String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer: Value = serde_json::from_str(&get(port, &format!("/api/v1/query?query={encoded}"))).ok()?;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    let waits_for = |query: &str, expected: &str| {
        let mut last = None;
        let came = wait_until(SOON, || {
            last = value(query);
            last.as_deref() == Some(expected)
        });
        assert!(came, "{query}: {last:?}, not {expected}\n{}", logs());
    };

    waits_for("kongtask_task_jobs_completed_total{task=\"ship\",database=\"postgres\"}", "6");
    waits_for("kongtask_task_jobs_failed_total{task=\"ship\"}", "3");
    waits_for("kongtask_jobs_failed", "3");
    waits_for("kongtask_jobs_waiting", "3");
    waits_for("kongtask_limit_waiting{limit=\"slowly\"}", "2");
    waits_for("kongtask_limit_keys_saturated{limit=\"slowly\"}", "1");
    waits_for("kongtask_jobs_scheduled", "1");
    waits_for("kongtask_pauses", "1");
    waits_for("kongtask_schedule_missed_total{schedule=\"nightly\"}", "0");
    waits_for("kongtask_doctor_errors{check=\"preload\"}", "0");
    // A histogram as Prometheus has them, whose quantiles can be asked for.
    waits_for("kongtask_process_duration_seconds_count", "9");
    waits_for("kongtask_wait_duration_seconds_bucket{le=\"+Inf\"}", "9");
    waits_for("histogram_quantile(0.99, kongtask_process_duration_seconds_bucket) > bool 0", "1");
    // No query fails, and no label is left that only the exporter cares for.
    waits_for("max(sql_exporter_last_scrape_failed)", "0");
    assert_eq!(value("count({__name__=~\"kongtask.*\",col!=\"\"})"), None);

    // Whatever a rule asks for is there.
    let rules = read("kongtask.rules.yml");
    let names: BTreeSet<&str> = rules
        .lines()
        .filter(|line| !line.contains("alert:"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("kongtask_") && !word.ends_with("_query"))
        .collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let came = wait_until(SOON, || value(&format!("count({name})")).is_some());
        assert!(came, "there is no {name}\n{}", logs());
    }
}

/// Runs a query as the role that monitors; how many rows it has.
fn rows_of(cluster: &Cluster, what: &str, query: &str) -> usize {
    let mut db = cluster.connect_as("kongtask_monitor", "postgres");
    db.query(query, &[]).unwrap_or_else(|e| panic!("{what}: {}\n{query}", describe(&e))).len()
}

#[test]
fn pgwatch_and_grafana_ask_what_the_role_may_read() {
    let cluster = monitored();

    let pgwatch = read("pgwatch.yml");
    let mut metrics = 0;
    // A query is the block behind `15: |`, indented further than that.
    for (number, part) in pgwatch.split("            15: |\n").enumerate().skip(1) {
        let query: String = part
            .lines()
            .take_while(|line| line.starts_with("                "))
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(rows_of(&cluster, &format!("pgwatch.yml, query {number}"), &query) > 0, "{query}");
        metrics += 1;
    }
    let presets = pgwatch.split("presets:").nth(1).expect("presets");
    assert_eq!(metrics, presets.matches("kongtask_").count(), "a metric is in no preset, or none is there");

    let grafana: Value = serde_json::from_str(&read("grafana.json")).expect("JSON");
    let panels = grafana["panels"].as_array().expect("panels");
    assert!(panels.len() > 10);
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().expect("targets") {
            let query = without_macros(target["rawSql"].as_str().expect("a query"));
            assert!(!query.contains("$__") && !query.contains("${"), "{title}: {query}");
            let rows = rows_of(&cluster, title, &query);
            // Nothing keeps jobs from running but the pause, and no job is in a queue.
            let is_empty = ["Workers", "Queues"].contains(&title);
            assert!(rows > 0 || is_empty, "{title} shows nothing\n{query}");
        }
    }
    for variable in grafana["templating"]["list"].as_array().expect("variables") {
        if variable["type"] == "query" {
            assert_eq!(rows_of(&cluster, "a variable", variable["query"].as_str().expect("a query")), 1);
        }
    }
}

/// A panel's query as Grafana sends it, over a day around now.
fn without_macros(query: &str) -> String {
    let mut query = query.replace("${task:sqlstring}", "'ship','letters'").replace("$__interval", "'10m'");
    while let Some((before, rest)) = query.split_once("$__timeFilter(").map(|(a, b)| (a.to_owned(), b.to_owned())) {
        let (column, after) = rest.split_once(')').expect("an end");
        query = format!("{before}{column} between now() - interval '1 day' and now() + interval '2 days'{after}");
    }
    while let Some((before, rest)) = query.split_once("$__timeGroupAlias(").map(|(a, b)| (a.to_owned(), b.to_owned())) {
        let (arguments, after) = rest.split_once(')').expect("an end");
        let column = arguments.split(',').next().expect("a column");
        query = format!("{before}floor(extract(epoch from {column}) / 600) * 600 as \"time\"{after}");
    }
    query
}
