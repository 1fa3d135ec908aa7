//! Programs that run beside a cluster until the test is over.

use crate::{is_root, run_script, shared_folder, user_id, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// A program that is killed when dropped.
pub struct Running(Child);

impl Running {
    /// Starts it; what it says is added to a file.
    pub fn start(command: &mut Command, log: &Path) -> Running {
        let log = fs::File::options().create(true).append(true).open(log).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Asks it to end, and kills it if it does not within this time.
    pub fn stop(&mut self, within: Duration) {
        // SAFETY: a child that has not been waited for.
        unsafe { libc::kill(self.pid(), libc::SIGTERM) };
        wait_until(within, || self.0.try_wait().is_ok_and(|status| status.is_some()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How much CPU time a process has used so far.
pub fn cpu_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    // Behind its name, which may have spaces.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    // The unit of that file is 1/100 s on Linux.
    Duration::from_millis(10 * ticks)
}

/// A port of the loopback address that no program uses.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// The body of what a server on the loopback address answers; empty while there is none.
pub fn get(port: u16, path: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        // One that is stopped takes connections, and answers none.
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let answer: String = ask().unwrap_or_default();
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default()
}

/// One of Debian's programs that scripts/patroni fetches, run by the user that servers run as. It has the environment and the
/// libraries that it needs, and `home` as its home.
pub fn debian_program(path: &str, home: &Path) -> Command {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    let copy = COPY.get_or_init(|| {
        run_script("patroni", &[], &[]);
        // That user may not be able to read the project's folder.
        let copy = shared_folder("kongtask-patroni-");
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/patroni/usr");
        crate::run(Command::new("cp").arg("-a").arg(fetched).arg(&copy));
        copy
    });
    let mut command = Command::new(copy.join(path));
    command.env("HOME", home).env("LC_ALL", "C.UTF-8").env("PYTHONPATH", copy.join("usr/lib/python3/dist-packages"));
    command.env("LD_LIBRARY_PATH", copy.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)));
    command.current_dir(home);
    if is_root() {
        command.uid(user_id("-u")).gid(user_id("-g"));
    }
    command
}
