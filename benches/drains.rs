//! Draining a queue that is full: ours and others', with a handler that writes a row and with one that does nothing,
//! beside what the server does without any queue.

use crate::contest::{Contender, Standing, compete, ratio};
use crate::peer_process::{Installed, Order};
use crate::peers::{AWA, PG_BOSS, PGQUEUER, PROCRASTINATE, Peer, WORKER_0_9, WORKER_0_17, WORKER_0_18};
use crate::queue::{Queue, Task};
use crate::report::{Section, Target};
use crate::server::Server;
use crate::{Outcome, limits};
use std::rc::Rc;

/// Numbers of workers that are tried.
pub const WORKERS: &[usize] = &[2, 4, 8, 16, 32];

const PEERS: &[&Peer] = &[&WORKER_0_17, &WORKER_0_18, &WORKER_0_9, &PG_BOSS, &PGQUEUER, &PROCRASTINATE, &AWA];

pub const HOW: &str = "Ours: jobs are added in one transaction while the workers idle; the clock runs from its commit \
    until no job is left, so that waking up and completing count. Theirs: the queue is full and analyzed before the \
    workers start; the clock runs from the first handler's start to the last one's end, so that neither counts. All is \
    on one machine, theirs by the unix socket.";

pub fn writing(server: &Server, section: &mut Section) {
    section.note(HOW);
    let queue = Queue::create(server, "kong_writing");
    let peers = install(server, PEERS, section);
    let tasks =
        [Task::new("write", 1), Task::new("write", 50), Task::new("write", 500), Task::new("write_set", 10_000)];
    limits::prepare(&queue);
    for (mode, single, batch) in [("on", 3.0, 20.0), ("off", 6.0, 15.0)] {
        section.heading(&format!("A handler that writes a row, synchronous_commit = {mode} for all"));
        server.synchronous_commit(mode);
        let mut contenders: Vec<Contender> =
            tasks.iter().map(|task| ours(&queue, task, ours_name(task), WORKERS)).collect();
        contenders.extend(peers.iter().map(|peer| theirs(peer, "write", Order::Any, peer.peer.trial)));
        let boss = peers.iter().find(|peer| peer.peer.name == PG_BOSS.name);
        contenders.extend(boss.map(|boss| theirs(boss, "write_set", Order::Any, boss.peer.trial)));
        contenders.extend(limits::contenders(&queue));
        let standings = compete(section, contenders);
        for (task, least) in tasks.iter().zip([single, batch, batch, 40.0]) {
            against_workers(section, &standings, "writing handler", mode, task, least);
        }
    }
    server.serve_nobody();
    peers.iter().for_each(|peer| server.drop(peer.peer.database));
    server.drop(&queue.database);
}

pub fn empty(server: &Server, section: &mut Section) {
    section.note(HOW);
    let queue = Queue::create(server, "kong_empty");
    let peers = install(server, PEERS, section);
    let tasks = [Task::new("empty", 1), Task::new("empty", 50), Task::new("empty", 500)];
    section.heading("A handler that does nothing, synchronous_commit = on for all");
    server.synchronous_commit("on");
    let mut contenders: Vec<Contender> =
        tasks.iter().map(|task| ours(&queue, task, ours_name(task), WORKERS)).collect();
    contenders.extend(peers.iter().map(|peer| theirs(peer, "empty", Order::Any, peer.peer.trial)));
    let standings = compete(section, contenders);
    for task in &tasks[1..] {
        against_workers(section, &standings, "empty handler", "on", task, 6.0);
    }
    server.serve_nobody();
    peers.iter().for_each(|peer| server.drop(peer.peer.database));
    server.drop(&queue.database);
}

/// The target is for 0.17.3; how it is beside 0.18.0 is told with it.
fn against_workers(section: &mut Section, standings: &[Standing], handler: &str, mode: &str, task: &Task, least: f64) {
    let how = ours_name(task).replace("kongtask, ", "");
    for (peer, target) in [(&WORKER_0_17, Target::AtLeast(least)), (&WORKER_0_18, Target::None)] {
        let (ratio, settings) = ratio(standings, &ours_name(task), peer.name);
        let what = format!("{handler}, {how}, to {}", peer.name);
        section.require(&what, &format!("synchronous_commit {mode}; {settings}"), ratio, target);
    }
}

pub fn install<'a>(server: &'a Server, peers: &[&'static Peer], section: &mut Section) -> Vec<Installed<'a>> {
    let outcome = |peer: &&'static Peer| peer.install(server).map_err(|error| section.failed(peer.name, &error)).ok();
    peers.iter().filter_map(outcome).collect()
}

fn ours_name(task: &Task) -> String {
    match (task.handler, task.max_batch) {
        ("write_set", most) => format!("kongtask, sets of up to {most}"),
        (_, 1) => "kongtask, one transaction a job".into(),
        (_, most) => format!("kongtask, max_batch {most}"),
    }
}

/// This queue with a task, trying numbers of workers.
pub fn ours<'a>(queue: &'a Queue, task: &'a Task, name: String, workers: &'static [usize]) -> Contender<'a> {
    let registered = queue.register(task);
    Contender {
        name,
        settings: workers.iter().map(|workers| format!("kongtask.workers {workers}")).collect(),
        // Of 10,000 jobs in batches, chance tells which workers have the last ones.
        trial: if task.max_batch > 1 { 100_000 } else { 10_000 },
        settled: Rc::default(),
        run: Box::new(move |setting, jobs| {
            registered.clone()?;
            queue.server.serve(&[&queue.database], workers[setting]);
            queue.drain(task, jobs).map(|drain| drain.rate())
        }),
    }
}

/// Another queue with jobs of a kind that its program knows.
pub fn theirs<'a>(peer: &'a Installed, kind: &'a str, order: Order, trial: usize) -> Contender<'a> {
    let what = if kind == "write_set" { ", sets" } else { "" };
    let settings = if order == Order::Any { peer.peer.settings } else { peer.peer.for_queues };
    Contender {
        name: format!("{}{what}", peer.told),
        settings: settings.iter().map(crate::peers::Settings::told).collect(),
        trial,
        settled: peer.settled(&format!("{kind}{}", order.arguments())),
        run: Box::new(move |setting, jobs| {
            peer.server().serve_nobody();
            peer.drain(kind, order, jobs, &settings[setting])
        }),
    }
}

/// The number of workers that serves best, of those that are tried.
pub fn best_workers(queue: &Queue, task: &Task, jobs: usize) -> Outcome<usize> {
    queue.register(task)?;
    let mut best = (0.0, WORKERS[0]);
    for &workers in WORKERS {
        queue.server.serve(&[&queue.database], workers);
        let rate = queue.drain(task, jobs)?.rate();
        if rate > best.0 {
            best = (rate, workers);
        }
    }
    Ok(best.1)
}
