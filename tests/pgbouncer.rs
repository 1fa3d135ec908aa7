//! External workers by the hundred behind Debian's PgBouncer, which lends its few server connections for a transaction at a time.
//! Its configuration is that of the page on external workers.

use kongtask_tests::docs::page;
use kongtask_tests::programs::{Running, cpu_time, debian_program, free_port};
use kongtask_tests::reference::Worker;
use kongtask_tests::{Cluster, JOBS, LOCKED, SOON, describe, say, text, wait_until};
use postgres::NoTls;
use postgres::types::Type;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// How many server connections the page's configuration has.
const SERVER_CONNECTIONS: usize = 20;

/// How many clients there are: PGBOUNCER_CLIENTS.
fn clients() -> usize {
    std::env::var("PGBOUNCER_CLIENTS").map_or(300, |text| text.parse().expect("PGBOUNCER_CLIENTS is a number"))
}

/// How many jobs the clients run: PGBOUNCER_JOBS, or 20 each.
fn jobs() -> usize {
    std::env::var("PGBOUNCER_JOBS").map_or(20 * clients(), |text| text.parse().expect("PGBOUNCER_JOBS is a number"))
}

/// A cluster that lets the role node run external workers, which note what they have done.
fn with_node() -> Cluster {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1"]);
    cluster.sql(
        "create role node login; select kongtask.grant_worker('node');
         create table done (job bigint, client text, session int default pg_backend_pid());
         grant select, insert on done to node",
    );
    cluster
}

/// PgBouncer before a cluster.
struct PgBouncer {
    port: u16,
    process: Running,
}

impl PgBouncer {
    fn start(cluster: &Cluster) -> PgBouncer {
        let port = free_port();
        let page = page("docs/how-to/external-workers.md");
        let blocks = page.blocks();
        let mut text = blocks.iter().find(|block| block.info == "ini").expect("a configuration").body.clone();
        for (part, by) in [
            ("host=/var/run/postgresql", format!("host={}", cluster.host())),
            ("app = ", "postgres = ".into()),
            ("dbname=app", "dbname=postgres".into()),
            ("listen_port = 6432", format!("listen_port = {port}")),
            // Hashing a thousand passwords would take longer than the jobs.
            ("auth_type = scram-sha-256", "auth_type = trust".into()),
            ("/etc/pgbouncer/userlist.txt", format!("{}/users", cluster.host())),
            ("max_client_conn = 1000", format!("max_client_conn = {}", clients() + 100)),
        ] {
            assert!(text.contains(part), "no {part:?} in the page's configuration");
            text = text.replace(part, &by);
        }
        let home = Path::new(&cluster.host()).to_path_buf();
        fs::write(home.join("users"), "\"node\" \"\"\n\"postgres\" \"\"\n").expect("a file");
        fs::write(home.join("pgbouncer.ini"), text + "\nunix_socket_dir =\n").expect("a file");
        let mut process = debian_program("usr/sbin/pgbouncer", &home);
        let process = Running::start(process.arg("pgbouncer.ini"), &home.join("pgbouncer.log"));
        let bouncer = PgBouncer { port, process };
        let connects = || postgres::Client::connect(&bouncer.url("postgres"), NoTls).is_ok();
        let log = || fs::read_to_string(home.join("pgbouncer.log")).unwrap_or_default();
        assert!(wait_until(SOON, connects), "{}", log());
        bouncer
    }

    fn url(&self, role: &str) -> String {
        format!("host=127.0.0.1 port={} user={role} dbname=postgres", self.port)
    }
}

/// Takes jobs and does them until `left` are done by all clients together. Without prepared statements that have a name.
async fn work(db: Client, number: usize, left: Arc<AtomicUsize>) -> Result<(), postgres::Error> {
    let id = format!("client-{number:06}");
    let tasks = vec!["outside".to_string()];
    while left.load(SeqCst) > 0 {
        let get_job = "select id from graphile_worker.get_job($1, $2)";
        let job = db.query_typed(get_job, &[(&id, Type::TEXT), (&tasks, Type::TEXT_ARRAY)]).await?;
        let Some(job) = job[0].get::<_, Option<i64>>(0) else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        db.batch_execute(&format!(
            "begin; insert into done (job, client) values ({job}, '{id}');
             select graphile_worker.complete_job('{id}', {job}); commit"
        ))
        .await?;
        left.fetch_sub(1, SeqCst);
    }
    Ok(())
}

/// Connects clients, and then has them run jobs; jobs per second.
fn drain(cluster: &Cluster, url: &str, clients: usize, jobs: usize) -> f64 {
    cluster.sql(&format!("truncate done; select graphile_worker.add_job('outside') from generate_series(1, {jobs})"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (took, errors) = runtime.block_on(async {
        let mut sessions = Vec::new();
        for _ in 0..clients {
            let (db, connection) =
                tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|e| panic!("{}", describe(&e)));
            tokio::spawn(connection);
            sessions.push(db);
        }
        let left = Arc::new(AtomicUsize::new(jobs));
        let begun = Instant::now();
        let each = sessions.into_iter().enumerate();
        let all: Vec<_> = each.map(|(number, db)| tokio::spawn(work(db, number, Arc::clone(&left)))).collect();
        let mut errors = Vec::new();
        for client in all {
            errors.extend(client.await.expect("a client").err().map(|e| describe(&e)));
        }
        (begun.elapsed(), errors)
    });
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct job) from done"), format!("{jobs} {jobs}"));
    assert_eq!((cluster.text(JOBS), cluster.text(LOCKED)), ("0".into(), "0".into()));
    jobs as f64 / took.as_secs_f64()
}

#[test]
fn hundreds_of_clients_share_twenty_server_connections_and_each_job_is_done_once() {
    let cluster = with_node();
    let direct =
        drain(&cluster, &format!("host={} user=node dbname=postgres", cluster.host()), SERVER_CONNECTIONS, jobs());
    let bouncer = PgBouncer::start(&cluster);
    let before = cpu_time(bouncer.process.pid());
    let pooled = drain(&cluster, &bouncer.url("node"), clients(), jobs());
    let cpu = cpu_time(bouncer.process.pid()) - before;
    let mut db = cluster.connect();
    let sessions: usize = text(&mut db, "select count(distinct session) from done").parse().expect("a number");
    assert!(sessions <= SERVER_CONNECTIONS, "{sessions} server connections");
    say(&format!(
        "{} jobs by {} of {} clients on {sessions} server connections: {pooled:.0} jobs/s, {:.0} µs of PgBouncer's CPU time for each; by \
         {SERVER_CONNECTIONS} clients without it: {direct:.0} jobs/s",
        jobs(),
        text(&mut db, "select count(distinct client) from done"),
        clients(),
        cpu.as_secs_f64() * 1e6 / jobs() as f64,
    ));
}

#[test]
fn graphile_workers_process_works_behind_pgbouncer_without_prepared_statements() {
    let cluster = with_node();
    let bouncer = PgBouncer::start(&cluster);
    cluster.sql("select graphile_worker.add_job('there') from generate_series(1, 100)");
    let note = "await helpers.query(`insert into done (job) values (${helpers.job.id})`);";
    let port = bouncer.port.to_string();
    let _worker = Worker::start_with(
        &[("PGHOST", "127.0.0.1"), ("PGPORT", &port)],
        &cluster,
        ("node", "postgres"),
        "0.12.2",
        &[("there", note)],
        "",
        &["--no-prepared-statements", "-j", "10"],
    );
    cluster.wait_for("select count(*) || ' ' || count(distinct job) from done", "100 100");
    cluster.wait_for(JOBS, "0");
}

#[test]
fn add_job_and_wait_for_need_no_session_of_their_own() {
    let cluster = with_node();
    cluster.sql(
        "create function double(p json) returns int language sql as 'select 2 * (p #>> ''{}'')::int';
         select kongtask.register_task('double', 'double(json)', keep := 'all')",
    );
    let bouncer = PgBouncer::start(&cluster);
    let connect = || postgres::Client::connect(&bouncer.url("postgres"), NoTls).expect("a connection");
    let (mut one, mut other) = (connect(), connect());
    // Both take turns on the same server connections.
    for number in 1..=20 {
        let job = text(&mut one, &format!("select id from graphile_worker.add_job('double', '{number}')"));
        let run = format!("select state || ' ' || result from kongtask.wait_for({job}, '10 s')");
        assert_eq!(text(&mut other, &run), format!("succeeded {}", 2 * number));
    }
}
