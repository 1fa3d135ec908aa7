//! The pages in a browser: every page and button, light and dark, on a phone; and the pictures of the documentation.
//!
//! `make dashboard-test` builds SQLPage, fetches what drives Chromium, and runs this. What the browser saw is in target/dashboard.

use crate::shop::{self, ODD, failed_job, folder, job};
use kongtask_tests::{Cluster, SOON, wait_until};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// SQLPage, serving the dashboard as a role until it is dropped.
struct Dashboard {
    process: Child,
    address: String,
    log: PathBuf,
}

impl Dashboard {
    fn serve(cluster: &Cluster, role: &str) -> Dashboard {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let address = format!("http://127.0.0.1:{port}");
        let log = pictures().join(format!("sqlpage-{role}.log"));
        let said = fs::File::create(&log).expect("a log");
        let process = Command::new(Path::new(ROOT).join("target/sqlpage/bin/sqlpage"))
            // SQLPage takes many variables for settings.
            .env_clear()
            .env("DATABASE_URL", format!("postgres://{role}@localhost/postgres?host={}", cluster.host()))
            .env("LISTEN_ON", format!("127.0.0.1:{port}"))
            .env("WEB_ROOT", folder())
            .env("SQLPAGE_CONFIGURATION_DIRECTORY", folder().join("sqlpage"))
            .env("KONGTASK_DASHBOARD_ORIGIN", &address)
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a log"))
            .stderr(said)
            .spawn()
            .expect("target/sqlpage/bin/sqlpage, which scripts/sqlpage builds");
        let dashboard = Dashboard { process, address, log };
        let came = wait_until(SOON, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(came, "{}", dashboard.log());
        dashboard
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The folder of what the browser saw.
fn pictures() -> PathBuf {
    let folder = Path::new(ROOT).join("target/dashboard");
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Has the browser do what a script says; what it needs to know is in its environment.
fn browse(script: &str, cluster: &Cluster, environment: &[(&str, &str)]) {
    let psql = Path::new(&kongtask_tests::pg_config("--bindir")).join("psql");
    let status = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboard").join(script))
        .env("MODULES", Path::new(ROOT).join("target/browser/"))
        .env("PICTURES", pictures())
        .env("PSQL", psql)
        .env("PGHOST", cluster.host())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres")
        .envs(environment.iter().copied())
        .status()
        .expect("node");
    assert!(status.success(), "{script}: see above; what the browser saw is in {}", pictures().display());
}

#[test]
#[ignore = "needs SQLPage, which takes minutes to build: make dashboard-test"]
fn every_page_and_button_in_a_browser() {
    let cluster = shop::open();
    let jobs = std::env::var("DASHBOARD_JOBS").unwrap_or_else(|_| "20000".into());
    cluster.sql(&format!(
        "set session_replication_role = replica;
         insert into graphile_worker.jobs (task_identifier, payload, run_at)
         select 'letters', json_build_object('n', n), now() + interval '3 days' from generate_series(1, {jobs}) n;
         reset session_replication_role;
         analyze graphile_worker.jobs"
    ));
    let (dashboard, guest) = (Dashboard::serve(&cluster, "dashboard"), Dashboard::serve(&cluster, "guest"));
    let keys = ["large", "running", "paused", "ready", "retried", ODD].map(|key| job(&cluster, key));
    browse(
        "browser.mjs",
        &cluster,
        &[
            ("DASHBOARD", &dashboard.address),
            ("GUEST", &guest.address),
            ("ODD", ODD),
            ("LARGE", &keys[0]),
            ("RUNNING", &keys[1]),
            ("PAUSED", &keys[2]),
            ("READY", &keys[3]),
            ("RETRIED", &keys[4]),
            ("ODD_JOB", &keys[5]),
            ("FAILED", &failed_job(&cluster)),
            ("JOBS", &jobs),
        ],
    );
    // The browser stopped loading a page at most; no statement of a page failed.
    let failed: Vec<String> = [dashboard.log(), guest.log()]
        .concat()
        .lines()
        .filter(|line| line.contains("level=error") && !line.contains("closed the connection"))
        .map(str::to_owned)
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
#[ignore = "needs SQLPage, which takes minutes to build: make dashboard-test"]
fn the_orders_of_the_demo_are_seen_to_flow() {
    let cluster = Cluster::with(&[]);
    // Without the measure of speed at its end.
    let shop = fs::read_to_string(Path::new(ROOT).join("demo/shop.sql")).expect("demo/shop.sql");
    cluster.run_file(shop.split("\\echo '== How fast?").next().expect("the shop"), "postgres");
    cluster
        .run_file(&fs::read_to_string(Path::new(ROOT).join("demo/traffic.sql")).expect("demo/traffic.sql"), "postgres");
    let grants = fs::read_to_string(folder().join("grants.sql")).expect("grants.sql");
    cluster.run_file(&format!("\\set role operator\n{grants}"), "postgres");
    let dashboard = Dashboard::serve(&cluster, "operator");
    let to_docs = std::env::var("DASHBOARD_PICTURES").unwrap_or_default();
    browse("demo.mjs", &cluster, &[("DASHBOARD", &dashboard.address), ("TO_DOCS", &to_docs)]);
}
