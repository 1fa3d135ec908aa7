//! Jobs with keys and in queues, which are claimed before they run: beside plain ones, and beside other queues.

use crate::contest::{Contender, compete, ratio};
use crate::drains::{HOW, WORKERS, install, ours, theirs};
use crate::peer_process::Order;
use crate::peers::{PROCRASTINATE, Peer, WORKER_0_17, WORKER_0_18};
use crate::queue::{Queue, Task};
use crate::report::{Section, Target};
use crate::server::Server;

const PEERS: &[&Peer] = &[&WORKER_0_17, &WORKER_0_18, &PROCRASTINATE];

struct Case {
    name: &'static str,
    task: Task,
    order: Order,
    /// How many jobs it takes others to tell their settings apart: some run few of one queue.
    trial: usize,
    /// The share of which rate it is to have.
    target: (&'static str, f64),
}

const WRITE: Task = Task::new("write", 1);
const PLAIN: &str = "kongtask, plain";
const ONE_WORKER: &str = "kongtask, plain, one worker";

const CASES: [Case; 3] = [
    Case {
        name: "keyed",
        task: Task { variant: "_keyed", arguments: Order::Keyed.arguments(), ..WRITE },
        order: Order::Keyed,
        trial: 4_000,
        target: (PLAIN, 0.8),
    },
    Case {
        name: "100 queues",
        task: Task { variant: "_queues", arguments: Order::Queues(100).arguments(), ..WRITE },
        order: Order::Queues(100),
        trial: 2_000,
        target: (PLAIN, 0.7),
    },
    Case {
        name: "one queue",
        task: Task { variant: "_queue", arguments: Order::Queues(1).arguments(), ..WRITE },
        order: Order::Queues(1),
        trial: 150,
        target: (ONE_WORKER, 0.7),
    },
];

pub fn measure(server: &Server, section: &mut Section) {
    section.note(HOW);
    section.note("Keyed: each job has a job_key of its own. procrastinate has no such keys; its locks are its queues.");
    server.synchronous_commit("on");
    let queue = Queue::create(server, "kong_claimed");
    let peers = install(server, PEERS, section);
    section.heading("A handler that writes a row, one transaction a job, synchronous_commit = on for all");
    let mut contenders: Vec<Contender> =
        vec![ours(&queue, &WRITE, PLAIN.into(), WORKERS), ours(&queue, &WRITE, ONE_WORKER.into(), &[1])];
    for case in &CASES {
        contenders.push(ours(&queue, &case.task, format!("kongtask, {}", case.name), WORKERS));
        for peer in peers.iter().filter(|peer| case.order != Order::Keyed || peer.peer.has_add_job) {
            let trial = if peer.peer.has_add_job { case.trial } else { case.trial.min(60) };
            let mut contender = theirs(peer, "write", case.order, trial);
            contender.name = format!("{}, {}", contender.name, case.name);
            contenders.push(contender);
        }
    }
    let standings = compete(section, contenders);
    for Case { name, target: (of, least), .. } in &CASES {
        let ours = format!("kongtask, {name}");
        let (measured, settings) = ratio(&standings, &ours, of);
        let what = format!("{name}, to {}", of.replace("kongtask, ", ""));
        section.require(&what, &settings, measured, Target::AtLeast(*least));
        for peer in PEERS.iter().filter(|peer| peer.has_add_job) {
            let (measured, settings) = ratio(&standings, &ours, &format!("{}, {name}", peer.name));
            section.require(&format!("{name}, to {}", peer.name), &settings, measured, Target::None);
        }
    }
    server.serve_nobody();
    peers.iter().for_each(|peer| server.drop(peer.peer.database));
    server.drop(&queue.database);
}
