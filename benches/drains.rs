//! Draining a queue that is full: ours and others', with a handler that writes a row and with one that does nothing,
//! beside what the server does without any queue.

use crate::contest::{Contender, Standing, compete};
use crate::peer_process::Installed;
use crate::peers::{AWA, PG_BOSS, PGQUEUER, Peer, WORKER_0_9, WORKER_0_17};
use crate::queue::{Queue, Task};
use crate::report::{Section, Target};
use crate::server::Server;
use crate::{Outcome, limits};

/// Numbers of workers that are tried.
const WORKERS: [usize; 5] = [1, 2, 4, 8, 16];

const PEERS: [&Peer; 5] = [&WORKER_0_17, &WORKER_0_9, &PG_BOSS, &PGQUEUER, &AWA];

pub const HOW: &str = "Ours: jobs are added in one transaction while the workers idle; the clock runs from its commit \
    until no job is left, so that waking up and completing count. Theirs: the queue is full and analyzed before the \
    workers start; the clock runs from the first handler's start to the last one's end, so that neither counts. All is \
    on one machine, theirs by the unix socket.";

pub fn writing(server: &Server, section: &mut Section) {
    section.note(HOW);
    let queue = Queue::create(server, "kong_writing");
    let peers = install(server, section);
    let tasks = [Task::new("write", 1), Task::new("write", 50), Task::new("write_set", 10_000)];
    limits::prepare(&queue);
    for mode in ["on", "off"] {
        section.heading(&format!("a handler that writes a row, synchronous_commit = {mode} for all"));
        server.synchronous_commit(mode);
        let mut contenders: Vec<Contender> = tasks.iter().map(|task| ours(&queue, task)).collect();
        contenders.extend(peers.iter().map(|peer| theirs(peer, "write")));
        let boss = peers.iter().find(|peer| peer.peer.name == PG_BOSS.name);
        contenders.extend(boss.map(|boss| theirs(boss, "write_set")));
        contenders.extend(limits::contenders(&queue));
        let standings = compete(section, contenders);
        let against =
            |ours: usize| ratio(&standings, &ours_name(&tasks[ours]), &format!("{}, write", WORKER_0_17.name));
        let single = if mode == "on" { 3.0 } else { 6.0 };
        for (i, what, least) in
            [(0, "one transaction a job", single), (1, "max_batch 50", 15.0), (2, "set-based, max_batch 10000", 40.0)]
        {
            let what = format!("writing handler, {what}, to graphile-worker 0.17.3");
            let (ratio, settings) = against(i);
            let settings = format!("synchronous_commit {mode}; {settings}");
            section.require(&what, &settings, ratio, Target::AtLeast(least));
        }
    }
    server.serve_nobody();
    peers.iter().for_each(|peer| server.drop(peer.peer.database));
    server.drop(&queue.database);
}

pub fn empty(server: &Server, section: &mut Section) {
    section.note(HOW);
    let queue = Queue::create(server, "kong_empty");
    let peers = install(server, section);
    let tasks = [Task::new("empty", 1), Task::new("empty", 50)];
    for mode in ["on", "off"] {
        section.heading(&format!("a handler that does nothing, synchronous_commit = {mode} for all"));
        server.synchronous_commit(mode);
        let mut contenders: Vec<Contender> = tasks.iter().map(|task| ours(&queue, task)).collect();
        contenders.extend(peers.iter().map(|peer| theirs(peer, "empty")));
        let standings = compete(section, contenders);
        let (ratio, settings) = ratio(&standings, &ours_name(&tasks[1]), &format!("{}, empty", WORKER_0_17.name));
        let settings = format!("synchronous_commit {mode}; {settings}");
        section.require(
            "empty handler, max_batch 50, to graphile-worker 0.17.3",
            &settings,
            ratio,
            Target::AtLeast(4.0),
        );
    }
    server.serve_nobody();
    peers.iter().for_each(|peer| server.drop(peer.peer.database));
    server.drop(&queue.database);
}

fn install<'a>(server: &'a Server, section: &mut Section) -> Vec<Installed<'a>> {
    let outcome = |peer: &&'static Peer| peer.install(server).map_err(|error| section.failed(peer.name, &error)).ok();
    PEERS.iter().filter_map(outcome).collect()
}

fn ours_name(task: &Task) -> String {
    format!("kongtask, {}, max_batch {}", task.handler, task.max_batch)
}

/// This queue with a task, trying numbers of workers.
pub fn ours<'a>(queue: &'a Queue, task: &'a Task) -> Contender<'a> {
    let registered = queue.register(task);
    Contender {
        name: ours_name(task),
        settings: WORKERS.iter().map(|workers| format!("kongtask.workers {workers}")).collect(),
        trial: if task.max_batch > 60 { 200_000 } else { 20_000 },
        run: Box::new(move |setting, jobs| {
            registered.clone()?;
            queue.server.serve(&[&queue.database], WORKERS[setting]);
            queue.drain(task, jobs).map(|drain| drain.rate())
        }),
    }
}

fn theirs<'a>(peer: &'a Installed, kind: &'a str) -> Contender<'a> {
    Contender {
        name: format!("{}, {kind}", peer.told),
        settings: peer.peer.settings.iter().map(crate::peers::Settings::told).collect(),
        trial: 10_000,
        run: Box::new(move |setting, jobs| {
            peer.server().serve_nobody();
            peer.drain(kind, jobs, &peer.peer.settings[setting])
        }),
    }
}

/// The rate of one to another's, and the settings of both.
fn ratio(standings: &[Standing], one: &str, other: &str) -> (Outcome<f64>, String) {
    let find = |name: &str| standings.iter().find(|standing| standing.name == name).ok_or(format!("no {name}"));
    let settings: Vec<&str> = [one, other].iter().filter_map(|name| Some(find(name).ok()?.settings.as_str())).collect();
    let ratio = || Ok(find(one)?.rate()? / find(other)?.rate()?);
    (ratio(), settings.join(" against "))
}

/// The number of workers that serves best, of those that are tried.
pub fn best_workers(queue: &Queue, task: &Task, jobs: usize) -> Outcome<usize> {
    queue.register(task)?;
    let mut best = (0.0, WORKERS[0]);
    for workers in WORKERS {
        queue.server.serve(&[&queue.database], workers);
        let rate = queue.drain(task, jobs)?.rate();
        if rate > best.0 {
            best = (rate, workers);
        }
    }
    Ok(best.1)
}
