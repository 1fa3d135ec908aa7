//! Running the programs of benches/peers, and hearing from them.

use crate::Outcome;
use crate::peers::{Peer, Settings};
use crate::queue::{PATIENCE, check_effects};
use crate::server::{Server, run};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// A peer whose schema is in its database.
pub struct Installed<'a> {
    pub peer: &'static Peer,
    /// Its name and version.
    pub told: String,
    server: &'a Server,
    settled: RefCell<HashMap<String, Rc<Cell<Option<usize>>>>>,
}

/// The order that jobs are to run in.
#[derive(Clone, Copy, PartialEq)]
pub enum Order {
    Any,
    /// Each job has a key of its own.
    Keyed,
    /// The jobs of each of so many queues run one after another.
    Queues(usize),
}

impl Order {
    /// Further arguments of add_job, for job n.
    pub const fn arguments(self) -> &'static str {
        match self {
            Order::Any => "",
            Order::Keyed => ", job_key := 'key ' || n",
            Order::Queues(1) => ", queue_name := 'one'",
            Order::Queues(_) => ", queue_name := 'queue ' || n % 100",
        }
    }
}

impl<'a> Installed<'a> {
    pub fn new(peer: &'static Peer, server: &'a Server) -> Outcome<Installed<'a>> {
        let mut installed = Installed { peer, told: peer.name.into(), server, settled: RefCell::default() };
        let version = installed.output(&["install"])?;
        if !peer.name.ends_with(version.trim()) {
            installed.told = format!("{} {}", peer.name, version.trim());
        }
        Ok(installed)
    }

    /// The rate between the first job's start and the last one's end, by the clocks of the workers: neither starting up
    /// counts, nor finding the first job, nor completing the last.
    pub fn drain(&self, kind: &str, order: Order, jobs: usize, settings: &Settings) -> Outcome<f64> {
        let mut db = self.server.connect(self.peer.database);
        run(&mut db, "truncate effect")?;
        self.fill(kind, order, jobs)?;
        run(&mut db, "vacuum analyze")?;
        let mut workers =
            (0..settings.processes).map(|_| self.work(kind, settings.options)).collect::<Outcome<Vec<Worker>>>()?;
        let begun = Instant::now();
        loop {
            let mut all_run = true;
            for worker in &mut workers {
                all_run &= worker.hear()?;
            }
            let done: usize = workers.iter().map(|worker| worker.noted.jobs).sum();
            if done >= jobs {
                break;
            }
            if !all_run || begun.elapsed() > PATIENCE {
                let errors: Vec<String> = workers.into_iter().map(Worker::stop).collect();
                return Err(format!("{done} of {jobs} jobs were done. {}", errors.concat()));
            }
            sleep(Duration::from_millis(20));
        }
        let first = workers.iter().map(|worker| worker.noted.first).fold(f64::INFINITY, f64::min);
        let last = workers.iter().map(|worker| worker.noted.last).fold(0.0, f64::max);
        workers.into_iter().map(Worker::stop).for_each(drop);
        if kind.starts_with("write") {
            check_effects(&mut db, jobs)?;
        }
        Ok(jobs as f64 / (last - first))
    }

    /// In transactions of a thousand: one of many would take a time that grows with the square of its jobs, with
    /// some of them, as each add_job looks at all row versions that the others left.
    fn fill(&self, kind: &str, order: Order, jobs: usize) -> Outcome<()> {
        const CHUNK: usize = 1000;
        if !self.peer.has_add_job {
            let jobs = jobs.to_string();
            let mut arguments = vec!["fill", kind, &jobs];
            let queues = if let Order::Queues(queues) = order { Some(queues.to_string()) } else { None };
            arguments.extend(queues.as_deref());
            return self.output(&arguments).map(drop);
        }
        let mut db = self.server.connect(self.peer.database);
        let arguments = order.arguments();
        (1..=jobs).step_by(CHUNK).try_for_each(|first| {
            let last = jobs.min(first + CHUNK - 1);
            let add = format!(
                "select count(graphile_worker.add_job('{kind}', json_build_object('n', n){arguments}))
                 from generate_series({first}, {last}) n"
            );
            run(&mut db, &add)
        })
    }

    /// Which of its settings is the best for jobs of this kind and order, once that is known.
    pub fn settled(&self, what: &str) -> Rc<Cell<Option<usize>>> {
        Rc::clone(self.settled.borrow_mut().entry(what.into()).or_default())
    }

    /// Starts a worker process.
    pub fn work(&self, kind: &str, options: &str) -> Outcome<Worker> {
        let mut command = self.command(&["work", kind, options]);
        let mut child = (command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn())
            .map_err(|e| format!("{command:?}: {e}"))?;
        let (mut stderr, stdout) = (child.stderr.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (tell, said) = channel();
        spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let errors = spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Ok(Worker { child, said, errors, is_ready: false, noted: Noted { jobs: 0, first: f64::INFINITY, last: 0.0 } })
    }

    fn output(&self, arguments: &[&str]) -> Outcome<String> {
        let mut command = self.command(arguments);
        let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            // The last line of a traceback says what it was.
            let said = String::from_utf8_lossy(&output.stderr);
            Err(said.trim().lines().last().unwrap_or("it failed and said nothing").into())
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let folder = peers().join(self.peer.folder);
        let interpreter = if self.peer.program.ends_with(".py") { folder.join("bin/python") } else { node() };
        let mut command = Command::new(interpreter);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(self.peer.program)).args(arguments);
        command.env("NODE_PATH", folder.join("node_modules"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("PGHOST", self.server.cluster().host());
        command.env("PGUSER", "postgres").env("PGDATABASE", self.peer.database);
        command
    }

    pub fn server(&self) -> &Server {
        self.server
    }
}

/// Where scripts/bench-peers puts them.
fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project").join("target/peers")
}

/// The Node.js that peers run on: what was installed for them, or else the system's.
pub fn node() -> PathBuf {
    let installed = peers().join("node/node_modules/.bin/node");
    if installed.exists() { installed } else { "node".into() }
}

/// How many jobs a worker has done, and when its first began and its last ended.
struct Noted {
    jobs: usize,
    first: f64,
    last: f64,
}

pub struct Worker {
    child: Child,
    said: Receiver<String>,
    errors: JoinHandle<String>,
    is_ready: bool,
    noted: Noted,
}

impl Worker {
    /// Takes in what it has said since; whether it still runs.
    fn hear(&mut self) -> Outcome<bool> {
        loop {
            match self.said.try_recv() {
                Ok(line) if line == "ready" => self.is_ready = true,
                Ok(line) => self.noted = noted(&line).ok_or(line)?,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    pub fn wait_until_ready(&mut self) -> Outcome<()> {
        let begun = Instant::now();
        while !self.is_ready {
            if !self.hear()? || begun.elapsed() > PATIENCE {
                return Err("the worker did not start".into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Lets it end, and says what it wrote to stderr.
    pub fn stop(mut self) -> String {
        drop(self.child.stdin.take());
        let ended = kongtask_tests::wait_until(Duration::from_secs(10), || !matches!(self.child.try_wait(), Ok(None)));
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.errors.join().unwrap_or_default()
    }
}

fn noted(line: &str) -> Option<Noted> {
    let mut words = line.split(' ');
    let jobs = words.next()?.parse().ok()?;
    Some(Noted { jobs, first: words.next()?.parse().ok()?, last: words.next()?.parse().ok()? })
}
