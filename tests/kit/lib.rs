//! Throwaway clusters with the extension preloaded, run by an unprivileged user whoever runs the tests.

pub mod docs;
pub mod every_kind;
pub mod family;
pub mod fast_clock;
pub mod fault;
pub mod fixtures;
pub mod kongtask;
pub mod programs;
pub mod reference;
pub mod schema;
pub mod shifted_clock;
pub mod server_copy;

use postgres::{Client, NoTls};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything that should happen at once may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// How many jobs there are.
pub const JOBS: &str = "select count(*) from graphile_worker.jobs";

/// How many workers wait for jobs.
pub const IDLE: &str = "select count(*) from kongtask.workers where state = 'idle'";

/// How many workers run jobs.
pub const RUNNING: &str = "select count(*) from kongtask.workers where state = 'running'";

/// How many jobs and queues somebody has locked.
pub const LOCKED: &str = "select (select count(*) from graphile_worker.jobs where locked_by is not null) +
                             (select count(*) from graphile_worker.job_queues where locked_by is not null)";

/// A cluster of its own, stopped and deleted when dropped.
pub struct Cluster {
    home: TempDir,
    server: Server,
}

/// An installation of Postgres, by its folder of programs.
#[derive(Clone)]
pub struct Server(PathBuf);

impl Server {
    /// The one that is tested: of PG_CONFIG.
    pub fn tested() -> Server {
        Server::of(&tested_pg_config())
    }

    /// The one that a pg_config belongs to.
    pub fn of(pg_config: &str) -> Server {
        Server(ask(pg_config, "--bindir").into())
    }

    /// One of its programs, run by a user who is not root.
    fn program(&self, name: &str) -> Command {
        let path = self.0.join(name);
        if !is_root() {
            return Command::new(path);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(path);
        command
    }

    /// Makes a data directory.
    fn initdb(&self, data: &Path, options: &[&str]) {
        run(self
            .program("initdb")
            // The same wherever the tests run, whatever locale is set there.
            .args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C"])
            .args(options)
            .arg("-D")
            .arg(data));
    }
}

fn tested_pg_config() -> String {
    std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into())
}

fn ask(pg_config: &str, what: &str) -> String {
    let output = run(Command::new(pg_config).arg(what));
    String::from_utf8(output.stdout).expect("a line").trim().to_string()
}

/// What pg_config says of the server that is tested.
pub fn pg_config(what: &str) -> String {
    ask(&tested_pg_config(), what)
}

/// The major version of the server that is tested.
pub fn tested_version() -> u32 {
    let version = pg_config("--version");
    let digits: String = version.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn is_root() -> bool {
    // SAFETY: asks the kernel.
    unsafe { libc::geteuid() == 0 }
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs one of the project's scripts, with these variables in its environment; what it prints.
pub fn run_script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name);
    let output = run(Command::new(script).args(arguments).envs(environment.iter().copied()));
    String::from_utf8(output.stdout).expect("text")
}

/// Gives a folder to the user that servers run as.
pub fn hand_over(folder: &Path) {
    if is_root() {
        chown(folder, Some(user_id("-u")), Some(user_id("-g"))).expect("chown");
    }
}

/// The id of the user that servers run as (`-u`), or of their group (`-g`), where the tests run as root.
fn user_id(flag: &str) -> u32 {
    let output = run(Command::new("id").args([flag, "postgres"]));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("an id")
}

/// A new folder, of the user that servers run as.
pub fn new_folder(prefix: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in("/tmp").expect("a folder");
    hand_over(folder.path());
    folder
}

/// A new folder that all tests of this process share, deleted when they are over.
fn shared_folder(prefix: &str) -> PathBuf {
    static FOLDERS: Mutex<Vec<TempDir>> = Mutex::new(Vec::new());
    extern "C" fn delete() {
        // A static is never dropped.
        FOLDERS.lock().map(|mut folders| folders.clear()).unwrap_or_default();
    }
    let folder = new_folder(prefix);
    let path = folder.path().to_path_buf();
    let mut folders = FOLDERS.lock().expect("nobody panics here");
    if folders.is_empty() {
        // SAFETY: called once the tests are over, with nothing of theirs.
        unsafe { libc::atexit(delete) };
    }
    folders.push(folder);
    path
}

/// A data directory fresh from initdb, made once and copied for each cluster.
fn fresh_data() -> &'static Path {
    static FRESH: OnceLock<PathBuf> = OnceLock::new();
    FRESH.get_or_init(|| {
        let data = shared_folder("kongtask-initdb-").join("data");
        Server::tested().initdb(&data, &[]);
        data
    })
}

impl Cluster {
    /// A running cluster with the library preloaded, and these lines in its postgresql.conf.
    pub fn with(settings: &[&str]) -> Cluster {
        let cluster = Cluster::stopped(settings);
        cluster.start();
        cluster
    }

    /// A running cluster, and the extension in its database postgres.
    pub fn with_extension(settings: &[&str]) -> Cluster {
        let cluster = Cluster::with(settings);
        cluster.sql("create extension kongtask");
        cluster
    }

    /// A cluster that has not been started.
    pub fn stopped(settings: &[&str]) -> Cluster {
        Cluster::stopped_of(Server::tested(), settings)
    }

    /// The same, of a server of the tested version.
    pub fn stopped_of(server: Server, settings: &[&str]) -> Cluster {
        let cluster = Cluster::empty(server);
        let mut copy = if is_root() { Command::new("runuser") } else { Command::new("cp") };
        if is_root() {
            copy.args(["-u", "postgres", "--", "cp"]);
        }
        run(copy.arg("-a").arg(fresh_data()).arg(cluster.data()));
        cluster.configure_for_tests(settings);
        cluster
    }

    /// A cluster of a server, made with these options of initdb, that has not been started.
    pub fn made_by(server: &Server, options: &[&str], settings: &[&str]) -> Cluster {
        let cluster = Cluster::empty(server.clone());
        server.initdb(&cluster.data(), options);
        cluster.configure_for_tests(settings);
        cluster
    }

    fn configure_for_tests(&self, settings: &[&str]) {
        self.configure(&[
            "shared_preload_libraries = 'kongtask'",
            "listen_addresses = ''",
            "max_worker_processes = 16",
            // Processes that wait are there to be looked at, and to be counted.
            "kongtask.workers = 4",
            "kongtask.worker_idle_timeout = -1",
            "kongtask.scheduler_idle_timeout = -1",
            "fsync = off",
            "log_min_messages = info",
            "log_line_prefix = '%m [%p] %b '",
        ]);
        self.configure(&[&format!("unix_socket_directories = '{}'", self.home.path().display())]);
        self.configure(settings);
    }

    fn empty(server: Server) -> Cluster {
        Cluster { home: new_folder("kongtask-"), server }
    }

    /// A standby of this cluster, streaming from it.
    pub fn standby(&self) -> Cluster {
        let standby = Cluster::empty(self.server.clone());
        run(self
            .server
            .program("pg_basebackup")
            .args(["-h"])
            .arg(self.home.path())
            .args(["-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-D"])
            .arg(standby.data()));
        standby.configure(&[&format!("unix_socket_directories = '{}'", standby.home.path().display())]);
        standby.start();
        standby
    }

    /// Makes a standby of `primary` of this cluster, which was its primary and is not running, by pg_rewind. It is not started.
    pub fn rewind(&self, primary: &Cluster) {
        let source = format!("host={} user=postgres dbname=postgres", primary.home.path().display());
        let mut rewind = self.server.program("pg_rewind");
        rewind
            .args(["--write-recovery-conf", "--no-sync", "--source-server", &source, "--target-pgdata"])
            .arg(self.data());
        run(&mut rewind);
        // It has brought the other's postgresql.conf.
        self.configure(&[&format!("unix_socket_directories = '{}'", self.home.path().display())]);
    }

    /// A copy of this cluster, made by a base backup, that has not been started.
    pub fn copy(&self) -> Cluster {
        let copy = Cluster::empty(self.server.clone());
        let mut backup = self.server.program("pg_basebackup");
        backup.arg("-h").arg(self.home.path()).args(["-U", "postgres", "-X", "stream", "-c", "fast", "-D"]);
        run(backup.arg(copy.data()));
        copy.configure(&[&format!("unix_socket_directories = '{}'", copy.home.path().display())]);
        copy
    }

    /// Starts the server with options on its command line.
    pub fn start_with_options(&self, options: &str) {
        self.pg_ctl(&["start", "-o", options], &[]);
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Appends to postgresql.conf; a running server must be told by [`Cluster::reload`].
    pub fn configure(&self, settings: &[&str]) {
        let path = self.data().join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(path).expect("postgresql.conf");
        for setting in settings {
            writeln!(file, "{setting}").expect("write");
        }
    }

    /// Has the server read these settings.
    pub fn reload(&self, settings: &[&str]) {
        self.configure(settings);
        self.sql("select pg_reload_conf()");
    }

    fn pg_ctl(&self, arguments: &[&str], environment: &[(&str, &str)]) {
        let log = self.home.path().join("log");
        run(self
            .server
            .program("pg_ctl")
            .envs(environment.iter().copied())
            .args(arguments)
            .args(["-w", "-t", "60", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(log));
    }

    pub fn start(&self) {
        self.start_with(&[]);
    }

    /// Starts the server with variables in its environment.
    pub fn start_with(&self, environment: &[(&str, &str)]) {
        self.pg_ctl(&["start"], environment);
    }

    /// Stops the server: `fast` or `immediate`; how long that took.
    pub fn stop(&self, mode: &str) -> Duration {
        let begun = Instant::now();
        self.pg_ctl(&["stop", "-m", mode], &[]);
        begun.elapsed()
    }

    pub fn promote(&self) {
        self.pg_ctl(&["promote"], &[]);
    }

    /// Kills a process of the server as the kernel's out-of-memory killer would.
    pub fn kill_9(&self, pid: i32) {
        // SAFETY: a process of this cluster's.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }

    /// Kills the postmaster, and waits until it is gone and all its children have seen that.
    pub fn kill_postmaster(&self) {
        let gone = family::Family::of(self.postmaster()).lose_postmaster();
        assert!(gone, "a process outlives the postmaster\n{}", self.log());
    }

    pub fn postmaster(&self) -> i32 {
        family::postmaster_of(&self.data()).expect("a pid in postmaster.pid")
    }

    /// The server's log so far. A database's text is there in its encoding.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.home.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// Lines of the log at one of these levels.
    pub fn log_lines(&self, levels: &[&str]) -> Vec<String> {
        let is_of = |line: &str| levels.iter().any(|level| line.contains(&format!(" {level}:  ")));
        self.log().lines().filter(|line| is_of(line)).map(str::to_string).collect()
    }

    /// Waits until the log says this; `LEVEL:  message` where the level matters. Processes say what came of a job after they
    /// have committed it, so that who has seen it in a table may have to wait for the line.
    pub fn wait_for_log(&self, text: &str) {
        let came = wait_until(SOON, || self.log().contains(text));
        assert!(came, "no {text:?} in\n{}", self.log());
    }

    /// Waits until the log says this so often; fails if it then says it more often.
    pub fn wait_for_log_times(&self, text: &str, times: usize) {
        let said = || self.log().matches(text).count();
        let came = wait_until(SOON, || said() >= times);
        assert!(came && said() == times, "{text:?} is there {} times, not {times}\n{}", said(), self.log());
    }

    /// Connects to a database as a role.
    pub fn connect_as(&self, role: &str, database: &str) -> Client {
        self.try_connect_as(role, database).unwrap_or_else(|e| panic!("{role}@{database}: {e}\n{}", self.log()))
    }

    pub fn try_connect_as(&self, role: &str, database: &str) -> Result<Client, postgres::Error> {
        let host = self.home.path().display();
        Client::connect(&format!("host={host} user={role} dbname={database}"), NoTls)
    }

    pub fn connect(&self) -> Client {
        self.connect_as("postgres", "postgres")
    }

    /// The folder of the server's socket, as libpq's `host`.
    pub fn host(&self) -> String {
        self.home.path().display().to_string()
    }

    /// Runs statements as the superuser.
    pub fn sql(&self, statements: &str) {
        self.connect().batch_execute(statements).unwrap_or_else(|e| panic!("{statements}: {}", describe(&e)));
    }

    /// The first column of the first row of a query as text; NULL and no row are empty.
    pub fn text(&self, query: &str) -> String {
        text(&mut self.connect(), query)
    }

    /// Waits until the query answers `expected`.
    pub fn wait_for(&self, query: &str, expected: &str) {
        let mut client = self.connect();
        let mut last = String::new();
        let came = wait_until(SOON, || {
            last = text(&mut client, query);
            last == expected
        });
        assert!(came, "{query}: {last:?}, not {expected:?}\n{}", self.log());
    }

    /// The server's major version.
    pub fn version(&self) -> u32 {
        self.text("select current_setting('server_version_num')::int / 10000").parse().expect("a number")
    }

    /// Restores a dump in pg_dump's custom format into a database, with pg_restore and these options.
    pub fn restore(&self, dump: &[u8], database: &str, options: &[&str]) {
        let file = self.file(dump);
        self.client_program("pg_restore", &[&["--exit-on-error", "-d", database], options, &[&file]].concat());
    }

    /// Has psql run a file of statements in a database.
    pub fn run_file(&self, statements: &str, database: &str) {
        let file = self.file(statements.as_bytes());
        self.client_program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", &file]);
    }

    /// What psql prints, columns joined by `|`, of statements in an encoding: it and the server speak that one. Errors are printed too.
    pub fn speak(&self, encoding: &str, statements: &[u8], database: &str) -> Vec<u8> {
        let file = self.file(&[format!("\\encoding {encoding}\n").as_bytes(), statements].concat());
        let output = self.client_program("psql", &["-X", "-q", "-At", "-d", database, "-f", &file]);
        [output.stdout, output.stderr].concat()
    }

    /// A psql that stays in a database.
    pub fn psql(&self, database: &str) -> Psql {
        let log = self.home.path().join(format!("psql-{database}"));
        let said = fs::File::create(&log).expect("a file");
        let mut psql = self.server.program("psql");
        psql.arg("-h")
            .arg(self.home.path())
            .args(["-U", "postgres", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"])
            .arg(database);
        let child =
            psql.stdin(Stdio::piped()).stdout(said.try_clone().expect("a file")).stderr(said).spawn().expect("psql");
        Psql { child, log }
    }

    /// A file that the server's programs can read.
    fn file(&self, bytes: &[u8]) -> String {
        let file = self.home.path().join("file");
        fs::write(&file, bytes).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
        file.display().to_string()
    }

    /// Has pg_upgrade carry this cluster, which is stopped, over to one of the tested server, which is not started yet.
    pub fn upgrade_to(&self, new: &Cluster) {
        let mut upgrade = new.server.program("pg_upgrade");
        upgrade.args(["-U", "postgres", "--no-sync", "-b"]).arg(&self.server.0).arg("-B").arg(&new.server.0);
        upgrade.arg("-d").arg(self.data()).arg("-D").arg(new.data()).arg("-s").arg(new.home.path());
        let output = upgrade.current_dir(new.home.path()).stdin(Stdio::null()).output().expect("pg_upgrade");
        let logs = || {
            // It keeps them where it fails, and says in which.
            let mut tail = Command::new("sh");
            tail.args(["-c", "tail -n 40 pg_upgrade_output.d/*/log/*.log"]).current_dir(new.data());
            String::from_utf8_lossy(&tail.output().expect("sh").stdout).into_owned()
        };
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), logs());
    }

    /// Copies the server's log to target/logs, named after the test, and returns where it is then. The cluster's folder is
    /// deleted in the end.
    fn keep_log(&self) -> PathBuf {
        let test = std::thread::current().name().unwrap_or("unnamed").replace("::", ".");
        let cluster = self.home.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/logs");
        let kept = folder.join(format!("{test}.{cluster}.log"));
        let copied = fs::create_dir_all(&folder).and_then(|()| fs::write(&kept, self.log()));
        // A test has failed already: that its log could not be kept is not what it is to be told of.
        copied.map_or_else(|_| self.home.path().join("log"), |()| kept)
    }

    /// Checks that every index has every row of its table, and the other way round. Says so where that cannot be done: a server
    /// that was built from source may lack amcheck.
    pub fn check_indexes(&self) {
        if self.text("select count(*) from pg_available_extensions where name = 'amcheck'") == "1" {
            self.client_program(
                "pg_amcheck",
                &["--install-missing", "--heapallindexed", "--exclude-table=pg_catalog.*", "postgres"],
            );
        } else {
            say("the indexes were not checked, as this server has no amcheck");
        }
    }

    /// Runs another of the server's programs against this cluster.
    pub fn client_program(&self, name: &str, arguments: &[&str]) -> Output {
        run(self.server.program(name).arg("-h").arg(self.home.path()).args(["-U", "postgres"]).args(arguments))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- server log, kept in {}\n{}", self.keep_log().display(), self.log());
        }
        // It may be stopped already, or killed.
        let _ = self
            .server
            .program("pg_ctl")
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// A psql that is told what to run.
pub struct Psql {
    child: Child,
    log: PathBuf,
}

impl Psql {
    pub fn send(&mut self, statements: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(statements.as_bytes()).and_then(|()| stdin.flush()).expect("psql reads");
    }

    /// Waits until it has said something.
    pub fn wait_for(&self, text: &str) {
        let said = || fs::read_to_string(&self.log).unwrap_or_default();
        assert!(wait_until(SOON, || said().contains(text)), "no {text:?} in\n{}", said());
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        // It ends when it is told no more.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The first column of the first row as text; NULL and no row are empty.
pub fn text(client: &mut Client, query: &str) -> String {
    let rows = client.simple_query(query).unwrap_or_else(|e| panic!("{query}: {}", describe(&e)));
    let first = rows.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_string()),
        _ => None,
    });
    first.unwrap_or_default()
}

/// All rows as text, columns joined by `|`.
pub fn rows(client: &mut Client, query: &str) -> Vec<String> {
    let messages = client.simple_query(query).unwrap_or_else(|e| panic!("{query}: {}", describe(&e)));
    let row = |message: &postgres::SimpleQueryMessage| match message {
        postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or("")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// What a failing statement says: SQLSTATE and message.
pub fn error(client: &mut Client, statement: &str) -> (String, String) {
    let error = client.batch_execute(statement).expect_err(statement);
    let error = error.as_db_error().expect("an error of the server's");
    (error.code().code().to_string(), error.message().to_string())
}

/// An error with its detail and hint.
pub fn describe(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |e| format!("{}: {} / {:?} / {:?}", e.code().code(), e.message(), e.detail(), e.hint()),
    )
}

/// Says something that is to be read although the test passes, where nobody asked for the output of those.
pub fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Polls until `done`; whether it came to be.
pub fn wait_until(within: Duration, mut done: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if done() {
            return true;
        }
        if begun.elapsed() > within {
            return false;
        }
        sleep(Duration::from_millis(10));
    }
}
