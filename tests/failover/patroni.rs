//! Debian's Patroni and etcd on the loopback address, with the configuration of the page on failovers.

use crate::account::settle;
use crate::load::{Load, done, prepare};
use kongtask_tests::docs::{page, root};
use kongtask_tests::family::{Family, postmaster_of};
use kongtask_tests::programs::{Running, debian_program, free_port, get};
use kongtask_tests::{new_folder, pg_config, say, wait_until};
use postgres::{Client, NoTls};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// How long a cluster of three may take to be made, or to be whole again, on a busy machine.
const WHOLE: Duration = Duration::from_secs(120);

/// How many jobs each primary runs before it is lost.
const SPELL: usize = 500;

/// How long the first job of a new primary may be in coming.
const FIRST_JOB: Duration = Duration::from_secs(1);

/// A node: Patroni and the server that it runs.
struct Node {
    name: String,
    home: PathBuf,
    port: u16,
    api: u16,
    patroni: Option<Running>,
}

struct Nodes {
    nodes: Vec<Node>,
    etcd: Option<Running>,
    _home: TempDir,
}

/// In which way a primary is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Its postmaster is killed; Patroni notices.
    Postmaster,
    /// All processes of the node are killed at once; the others notice. It starts again later, as a machine does.
    Node,
    /// All processes of the node stop. When they go on, another is the primary.
    Pause,
}

impl Nodes {
    fn start() -> Nodes {
        let home = new_folder("kongtask-patroni-");
        let etcd_port = free_port();
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let mut etcd = debian_program("usr/bin/etcd", home.path());
        etcd.args(["--listen-client-urls", &etcd_url, "--advertise-client-urls", &etcd_url, "--data-dir"]);
        etcd.arg(home.path().join("etcd")).arg("--enable-v2=true");
        etcd.args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", free_port())]);
        let etcd = Running::start(&mut etcd, &home.path().join("etcd.log"));
        let nodes = (1..=3).map(|number| {
            let node_home = home.path().join(format!("node{number}"));
            fs::create_dir(&node_home).expect("a folder");
            kongtask_tests::hand_over(&node_home);
            Node { name: format!("node{number}"), home: node_home, port: free_port(), api: free_port(), patroni: None }
        });
        let mut nodes = Nodes { nodes: nodes.collect(), etcd: Some(etcd), _home: home };
        for node in &mut nodes.nodes {
            fs::write(node.configuration_file(), node.configuration(etcd_port)).expect("a file");
            node.start();
        }
        nodes
    }

    /// Where sessions find whichever server takes writes.
    fn url(&self) -> String {
        let ports: Vec<String> = self.nodes.iter().map(|node| node.port.to_string()).collect();
        let hosts = vec!["127.0.0.1"; ports.len()].join(",");
        format!("host={hosts} port={} {USER} target_session_attrs=read-write", ports.join(","))
    }

    /// Waits until each member runs, and one is the primary and another its synchronous standby; the number of the primary.
    fn wait_until_whole(&self) -> usize {
        let mut primary = None;
        let came = wait_until(WHOLE, || {
            primary = self.primary_of_a_whole();
            primary.is_some()
        });
        assert!(came, "it is not whole\n{}", self.logs());
        primary.expect("a primary")
    }

    /// The number of the primary, if each member runs.
    fn primary_of_a_whole(&self) -> Option<usize> {
        let told: Value = serde_json::from_str(&get(self.nodes[0].api, "/cluster")).ok()?;
        let members = told["members"].as_array()?;
        let is_up = |member: &&Value| ["running", "streaming"].contains(&member["state"].as_str().unwrap_or(""));
        let up: Vec<&Value> = members.iter().filter(is_up).collect();
        let has_role = |role: &str| up.iter().find(|member| member["role"] == role);
        let timeline = &up.first()?["timeline"];
        if up.len() < self.nodes.len() || up.iter().any(|member| member["timeline"] != *timeline) {
            return None;
        }
        let (primary, _) = (has_role("leader")?, has_role("sync_standby")?);
        self.nodes.iter().position(|node| node.name == primary["name"])
    }

    /// Waits until another node than this one takes writes.
    fn wait_for_another_than(&self, lost: usize) {
        let takes_writes = |node: &Node| {
            let session = Client::connect(&node.url(), NoTls);
            let answer = session.and_then(|mut db| db.query_one("select not pg_is_in_recovery()", &[]));
            answer.is_ok_and(|row| row.get(0))
        };
        let others = || self.nodes.iter().enumerate().filter(|(number, _)| *number != lost);
        let came = wait_until(WHOLE, || others().any(|(_, node)| takes_writes(node)));
        assert!(came, "no other takes over\n{}", self.logs());
    }

    /// Loses a primary, and has it come back once another is the primary.
    fn lose(&mut self, number: usize, loss: Loss) {
        let node = &mut self.nodes[number];
        let family = Family::of(postmaster_of(&node.data()).expect("a postmaster"));
        match loss {
            Loss::Postmaster => {
                assert!(family.lose_postmaster(), "a process outlives the postmaster");
                self.wait_for_another_than(number);
            }
            Loss::Node => {
                node.patroni = None;
                assert!(family.lose_all(), "a process outlives its killing");
                self.wait_for_another_than(number);
                self.nodes[number].start();
            }
            Loss::Pause => {
                let patroni = node.patroni.as_ref().expect("it runs").pid();
                family.freeze();
                kongtask_tests::family::signal(patroni, libc::SIGSTOP);
                self.wait_for_another_than(number);
                // Its workers go on where they were, before Patroni looks around.
                family.thaw();
                kongtask_tests::family::signal(patroni, libc::SIGCONT);
            }
        }
    }

    /// The end of each node's log.
    fn logs(&self) -> String {
        let end = |node: &Node| {
            let log = node.log();
            let lines: Vec<&str> = log.lines().collect();
            format!("---- {}\n{}\n", node.name, lines[lines.len().saturating_sub(60)..].join("\n"))
        };
        self.nodes.iter().map(end).collect()
    }

    /// The timelines that promotions have begun, each with the times of the request and of when the server took writes.
    fn promotions(&self) -> Vec<(u32, String, String)> {
        let mut promotions = Vec::new();
        for node in &self.nodes {
            let (mut asked, mut timeline) = (String::new(), None);
            for line in node.log().lines() {
                let at = || line.split(" [").next().unwrap_or("").to_string();
                if line.contains("received promote request") {
                    asked = at();
                } else if let Some((_, number)) = line.split_once("selected new timeline ID: ") {
                    timeline = number.trim().parse().ok();
                } else if line.ends_with("database system is ready to accept connections") {
                    promotions.extend(timeline.take().map(|timeline| (timeline, asked.clone(), at())));
                }
            }
        }
        promotions.sort();
        promotions
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                let kept = root().join(format!("target/logs/failover.patroni.{}.log", node.name));
                let copied =
                    fs::create_dir_all(root().join("target/logs")).and_then(|()| fs::copy(node.log_file(), &kept));
                // A test has failed already: that its log could not be kept is not what it is to be told of.
                if copied.is_ok() {
                    eprintln!("---- log of {}, kept in {}", node.name, kept.display());
                }
            }
        }
        for node in &mut self.nodes {
            // Its server goes on without it.
            node.patroni = None;
            if let Some(postmaster) =
                postmaster_of(&node.data()).filter(|pid| fs::exists(format!("/proc/{pid}")).unwrap_or(false))
            {
                Family::of(postmaster).lose_all();
            }
        }
        self.etcd = None;
    }
}

const USER: &str = "user=postgres password=change-me dbname=postgres connect_timeout=2";

/// A text with a part replaced that has to be there.
fn with(text: &str, part: &str, by: &str) -> String {
    assert!(text.contains(part), "no {part:?} in the page's configuration");
    text.replace(part, by)
}

impl Node {
    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn configuration_file(&self) -> PathBuf {
        self.home.join("patroni.yml")
    }

    /// The page's configuration, for this node and in less time.
    fn configuration(&self, etcd: u16) -> String {
        let page = page("docs/how-to/fail-over.md");
        let blocks = page.blocks();
        let mut text = blocks.iter().find(|block| block.info == "yaml").expect("a configuration").body.clone();
        let hosts = "10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379";
        for (part, by) in [
            ("name: node1", format!("name: {}", self.name)),
            (hosts, format!("127.0.0.1:{etcd}")),
            ("10.0.0.1:8008", format!("127.0.0.1:{}", self.api)),
            ("10.0.0.1:5432", format!("127.0.0.1:{}", self.port)),
            ("10.0.0.0/24", "127.0.0.1/32".into()),
            ("/usr/lib/postgresql/15/bin", pg_config("--bindir")),
            ("/var/lib/postgresql/15/app", self.data().display().to_string()),
            ("ttl: 30", "ttl: 10".into()),
            ("loop_wait: 10", "loop_wait: 1".into()),
            ("retry_timeout: 10", "retry_timeout: 3".into()),
        ] {
            text = with(&text, part, &by);
        }
        let tests = format!(
            "    unix_socket_directories: {}\n    fsync: off\n    log_min_messages: info\n    log_line_prefix: '%m [%p] %b '\n",
            self.home.display()
        );
        with(&text, "\n  parameters:\n", &format!("\n  parameters:\n{tests}"))
            + "\n  basebackup: [{checkpoint: fast}, no-sync]\n"
    }

    fn start(&mut self) {
        let mut patroni = debian_program("usr/bin/patroni", &self.home);
        patroni.arg(self.configuration_file());
        self.patroni = Some(Running::start(&mut patroni, &self.log_file()));
    }

    fn url(&self) -> String {
        format!("host=127.0.0.1 port={} {USER}", self.port)
    }

    fn log_file(&self) -> PathBuf {
        self.home.join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

/// How often the primary is lost: FAILOVERS, or each way but the slowest once.
fn failovers() -> usize {
    std::env::var("FAILOVERS").map_or(2, |text| text.parse().expect("FAILOVERS is a number"))
}

#[test]
fn what_was_acknowledged_runs_once_whenever_patroni_fails_over() {
    let mut nodes = Nodes::start();
    nodes.wait_until_whole();
    let url = nodes.url();
    let mut db = Client::connect(&url, NoTls).expect("the primary");
    prepare(&mut db);
    let load = Load::default();
    let losses: Vec<Loss> = [Loss::Postmaster, Loss::Node, Loss::Pause].into_iter().cycle().take(failovers()).collect();
    let looks = thread::scope(|scope| {
        let _stops = load.stops();
        for _ in 0..3 {
            scope.spawn(|| load.add(&url));
        }
        let watch = |node: &Node| {
            let (url, load) = (node.url(), &load);
            scope.spawn(move || load.watch(&url))
        };
        let watchers: Vec<_> = nodes.nodes.iter().map(watch).collect();
        for loss in &losses {
            let primary = nodes.wait_until_whole();
            let before = done(&url).unwrap_or(0);
            let came = wait_until(WHOLE, || done(&url).is_some_and(|done| done >= before + SPELL));
            assert!(came, "no jobs run\n{}", nodes.logs());
            nodes.lose(primary, *loss);
        }
        nodes.wait_until_whole();
        load.stop();
        watchers.into_iter().map(|watcher| watcher.join().expect("a watcher")).collect::<Vec<usize>>()
    });
    let mut db = Client::connect(&url, NoTls).expect("the primary");
    let account = settle(&mut db, &load);
    say(&format!("{} failovers by Patroni ({losses:?}): {account}", losses.len()));
    assert!(looks.iter().all(|looks| *looks > 0), "each was a standby, and looked at: {looks:?}");

    let promotions = nodes.promotions();
    assert!(promotions.len() >= losses.len(), "{promotions:?}\n{}", nodes.logs());
    let mut first_jobs: Vec<(f64, f64)> =
        promotions.iter().filter_map(|promotion| first_job(&mut db, promotion)).collect();
    first_jobs.sort_by(|a, b| a.1.total_cmp(&b.1));
    let latest = first_jobs.last().expect("a promotion").1;
    say(&format!(
        "the first job came {:.0} ms after the server took writes (median of {}), {latest:.0} ms at most; after the request for the \
         promotion {:.0} ms (median)",
        first_jobs[first_jobs.len() / 2].1,
        first_jobs.len(),
        first_jobs[first_jobs.len() / 2].0,
    ));
    // The median: each takes longer while other tests keep the machine busy.
    let median = first_jobs[first_jobs.len() / 2].1;
    assert!(median < FIRST_JOB.as_secs_f64() * 1000.0, "{first_jobs:?}\n{}", nodes.logs());
}

/// How many milliseconds after the request for a promotion, and after the server took writes, the first job of its timeline began.
fn first_job(db: &mut Client, (timeline, asked, ready): &(u32, String, String)) -> Option<(f64, f64)> {
    let after = |since: &str| format!("extract(epoch from min(ran_at) - '{since}'::timestamptz)::float8 * 1000");
    let query = format!("select {}, {} from done where timeline = '{timeline:08X}'", after(asked), after(ready));
    let row = db.query_one(&query, &[]).expect("the times");
    row.get::<_, Option<f64>>(0).zip(row.get(1))
}
