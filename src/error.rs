//! Everything that can go wrong, each with its SQLSTATE.

use crate::pg::catch::{Failure, PgError, Raise};
use crate::pg::fault::Fault;
use crate::pg::portal::Refused;
use crate::pg::text::DbText;
use std::time::Duration;

#[derive(Clone)]
pub enum Error {
    /// An error that Postgres raised, to be handed on as it is.
    Postgres(PgError),
    IdentifierTooLong,
    QueueNameTooLong,
    JobKeyTooLong,
    MaxAttemptsTooLow,
    UnknownJobKeyMode,
    InvalidWorkerId,
    /// The extension's objects are not there.
    NotInstalled,
    /// A drop that would be refused.
    StillNeeded {
        /// True if it is DROP EXTENSION, false if it is DROP OWNED.
        names_extension: bool,
        /// What depends on what, a line each.
        why: Vec<DbText>,
    },
    NullArgument(&'static str),
    InvalidTaskIdentifier,
    InvalidMaxBatch {
        /// What it may be at most.
        most: usize,
        /// True if one call of the handler takes many jobs.
        is_set: bool,
    },
    InvalidTimeout,
    InvalidBackoff {
        detail: &'static str,
    },
    NoSuchTask(DbText),
    InvalidPausedName(&'static str),
    PauseEndsBefore,
    MayNotControl,
    NegativeMost,
    InvalidConcurrency,
    InvalidLimitName,
    InvalidLimit(String),
    NoSuchLimit(DbText),
    /// The role may not throttle this limit.
    MayNotThrottle(DbText),
    TooManyLimitKeys,
    InvalidCron {
        message: String,
        detail: String,
        hint: String,
    },
    UnknownZone(DbText),
    InvalidScheduleOption {
        message: String,
        hint: String,
    },
    NoSuchSchedule(DbText),
    ScheduleOfAnother {
        schedule: DbText,
        role: DbText,
    },
    MayNotAddJobs {
        role: DbText,
        hint: String,
    },
    NegativeCount,
    /// A function that only a handler may call, such as `snooze`, was called elsewhere.
    NotInHandler(&'static str),
    InvalidDelay,
    /// The role may not cancel a job of this task.
    MayNotCancel {
        job: i64,
        task: DbText,
    },
    JobLocked(i64),
    TooManyCancels,
    InvalidKeep(DbText),
    InvalidKeepFor,
    NegativeTimeout,
    NoSuchJob(i64),
    /// The role may not wait for jobs of this task.
    MayNotWait(i64),
    /// The current transaction has added, changed or locked the job, or runs it.
    WaitsForItself(i64),
    KeepsNoRuns {
        task: DbText,
        is_registered: bool,
    },
    TooManyWaits,
    StandbyCannotWait,
    NotPreloaded,
    /// What kongtask.give_up raises.
    GaveUp(String),
    MayNotReadJobs,
    UnknownHistogram(DbText),
    /// `None`: the counters of all tasks.
    MayNotReset(Option<DbText>),
    /// A job ran for longer than its task allows.
    TimedOut(Duration, PgError),
    /// A handler called pg_terminate_backend for its own process.
    EndedItself(PgError),
    NoSuchHandler(DbText),
    HandlerNotCallable {
        handler: DbText,
        why: &'static str,
    },
    HandlerSignature {
        handler: DbText,
    },
    /// A procedure that takes an array.
    HandlerOfSetIsProcedure {
        handler: DbText,
    },
    HandlerForbidden {
        handler: DbText,
        role: DbText,
    },
    /// The name that schedules of commands have for their task.
    ReservedTask,
    /// A job has a command that its role did not schedule.
    CommandNotScheduled {
        role: DbText,
    },
    /// A command copies from or to a client.
    CommandNeedsClient,
    CommandLeavesTransactionOpen,
    /// `kongtask.sql` was called.
    OnlyForWorkers,
    NoPgCron,
    /// A job of pg_cron runs there.
    PgCronElsewhere(DbText),
    NoSuchRole(DbText),
    RoleCannotLogIn(DbText),
    TaskOfAnother {
        task: DbText,
        role: DbText,
    },
    /// A migration of graphile-worker's that we do not stand for.
    ForeignMigration {
        id: i32,
        schema: DbText,
    },
    /// A test had it fail.
    Fault(Fault),
}

impl From<PgError> for Error {
    fn from(error: PgError) -> Error {
        Error::Postgres(error)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::Postgres(error) => Error::Postgres(error),
            Refused::NeedsClient => Error::CommandNeedsClient,
            Refused::LeavesTransactionOpen => Error::CommandLeavesTransactionOpen,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::Fault(fault)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Postgres(error) => Failure::Postgres(error),
            ours => Failure::Ours(ours.read()),
        }
    }
}

/// The signatures a handler may have, for users.
const SIGNATURES: &str = "A handler takes one of (), (json), (jsonb), (jobs) and (json, jobs); or, to get many jobs in one call, (json[]) or (jobs[]). Here jobs is the row type of the queue's table.";

impl Error {
    /// Returns true if another attempt cannot succeed.
    pub fn is_for_good(&self) -> bool {
        matches!(self, Error::CommandNotScheduled { .. })
    }

    /// What it says. What Postgres says is to be read before the transaction is rolled back.
    pub fn read(&self) -> Raise {
        let (sqlstate, message): (&[u8; 5], String) = match self {
            Error::Postgres(error) => return error.read(),
            Error::Fault(fault) => return fault.read(),
            Error::IdentifierTooLong => (b"GWBID", "Task identifier is too long (max length: 128).".into()),
            Error::QueueNameTooLong => (b"GWBQN", "Job queue name is too long (max length: 128).".into()),
            Error::JobKeyTooLong => (b"GWBJK", "Job key is too long (max length: 512).".into()),
            Error::MaxAttemptsTooLow => (b"GWBMA", "Job maximum attempts must be at least 1.".into()),
            Error::UnknownJobKeyMode => (
                b"GWBKM",
                "Invalid job_key_mode value, expected 'replace', 'preserve_run_at' or 'unsafe_dedupe'.".into(),
            ),
            Error::InvalidWorkerId => (b"P0001", "invalid worker id".into()),
            Error::NotInstalled => (b"55000", "the tables of extension kongtask do not exist".into()),
            // In the words of Postgres.
            Error::StillNeeded { names_extension: true, .. } => {
                (b"2BP01", "cannot drop extension kongtask because other objects depend on it".into())
            }
            Error::StillNeeded { names_extension: false, .. } => {
                (b"2BP01", "cannot drop desired object(s) because other objects depend on them".into())
            }
            Error::NullArgument(name) => (b"22004", format!("{name} must not be null")),
            Error::InvalidTaskIdentifier => (b"22023", "task identifier must have 1 to 128 characters".into()),
            Error::InvalidMaxBatch { most, .. } => {
                (b"22023", format!("max_batch must be between 1 and {most} for this handler"))
            }
            Error::InvalidTimeout => (b"22023", "timeout must be between 1 millisecond and 24 days".into()),
            Error::InvalidBackoff { .. } => {
                (b"22023", "backoff must have 1 to 100 intervals, each from 1 millisecond to 10 years".into())
            }
            Error::InvalidPausedName(name) => (b"22023", format!("{name} must have 1 to 128 characters")),
            Error::PauseEndsBefore => (b"22023", "until must be later than now".into()),
            Error::MayNotControl => (b"42501", "permission denied to control jobs of all tasks".into()),
            Error::InvalidConcurrency => (b"22023", "concurrency must be at least 1".into()),
            Error::InvalidLimitName => (b"22023", "the name of a limit must have 1 to 128 characters".into()),
            Error::InvalidLimit(message) => (b"22023", message.clone()),
            Error::NoSuchLimit(name) => (b"42704", format!("limit \"{name}\" does not exist")),
            Error::MayNotThrottle(name) => (b"42501", format!("permission denied for limit \"{name}\"")),
            Error::TooManyLimitKeys => (b"53400", "too many keys are limited at once".into()),
            Error::NegativeMost => (b"22023", "most must not be negative".into()),
            Error::NoSuchTask(task) => (b"42704", format!("task \"{task}\" is not registered")),
            Error::InvalidCron { message, .. } => (b"22023", message.clone()),
            Error::InvalidScheduleOption { message, .. } => (b"22023", message.clone()),
            Error::NoSuchSchedule(name) => (b"42704", format!("schedule \"{name}\" does not exist")),
            Error::ScheduleOfAnother { schedule, .. } => {
                (b"42501", format!("permission denied for schedule \"{schedule}\""))
            }
            Error::MayNotAddJobs { .. } => (b"42501", "permission denied to schedule jobs".into()),
            Error::UnknownZone(zone) => (b"22023", format!("time zone \"{zone}\" is not known")),
            Error::MayNotReadJobs => (b"42501", "permission denied for table jobs".into()),
            Error::UnknownHistogram(what) => (b"22023", format!("histogram \"{what}\" is not known")),
            Error::MayNotReset(Some(task)) => {
                (b"42501", format!("permission denied to reset the counters of task \"{task}\""))
            }
            Error::MayNotReset(None) => (b"42501", "permission denied to reset the counters of all tasks".into()),
            Error::NegativeCount => (b"22023", "count must not be negative".into()),
            Error::NotInHandler(function) => (b"55000", format!("kongtask.{function} can only be called by a handler")),
            Error::InvalidDelay => (b"22023", "delay must be zero or more, and finite".into()),
            Error::MayNotCancel { job, .. } => (b"42501", format!("permission denied to cancel job {job}")),
            Error::JobLocked(job) => (b"55P03", format!("job {job} is locked by another transaction")),
            Error::TooManyCancels => (b"53400", "too many running jobs are being cancelled".into()),
            Error::InvalidKeep(word) => (b"22023", format!("keep \"{word}\" is not known")),
            Error::InvalidKeepFor => (b"22023", "keep_for must be between 1 millisecond and 10 years".into()),
            Error::NegativeTimeout => (b"22023", "timeout must not be negative".into()),
            Error::NoSuchJob(job) => (b"42704", format!("job {job} does not exist")),
            Error::MayNotWait(job) => (b"42501", format!("permission denied to wait for job {job}")),
            Error::WaitsForItself(job) => (b"55000", format!("job {job} cannot end while this transaction lasts")),
            Error::KeepsNoRuns { task, .. } => (b"55000", format!("task \"{task}\" does not keep how its jobs end")),
            Error::TooManyWaits => (b"53400", "too many sessions are waiting for jobs".into()),
            Error::StandbyCannotWait => (b"55000", "a standby cannot wait for jobs".into()),
            Error::NotPreloaded => (b"55000", "the library kongtask is not preloaded".into()),
            Error::GaveUp(message) => (b"KT001", message.clone()),
            Error::TimedOut(timeout, _) => (b"57014", format!("timed out after {timeout:?}")),
            Error::EndedItself(_) => (b"57P01", "the handler terminated its own worker process".into()),
            Error::NoSuchHandler(handler) => (b"42883", format!("handler {handler} does not exist")),
            Error::HandlerNotCallable { handler, .. } => (b"42809", format!("{handler} cannot be a handler")),
            Error::HandlerSignature { handler } => (b"42P13", format!("{handler} does not have a handler's signature")),
            Error::HandlerOfSetIsProcedure { handler } => (b"42809", format!("{handler} cannot be a handler")),
            Error::ReservedTask => (b"22023", "task identifier kongtask.sql is reserved".into()),
            Error::CommandNotScheduled { .. } => {
                (b"42501", "permission denied to run a command that was not scheduled".into())
            }
            Error::CommandNeedsClient => {
                (b"0A000", "a job cannot copy from standard input or to standard output".into())
            }
            Error::CommandLeavesTransactionOpen => (b"25001", "the command leaves a transaction open".into()),
            Error::OnlyForWorkers => (b"0A000", "kongtask.sql cannot be called".into()),
            Error::NoPgCron => (b"55000", "pg_cron is not installed in this database".into()),
            Error::PgCronElsewhere(place) => (b"0A000", format!("it runs in {place}")),
            Error::NoSuchRole(role) => (b"42704", format!("role \"{role}\" does not exist")),
            Error::HandlerForbidden { handler, .. } => (b"42501", format!("permission denied for handler {handler}")),
            Error::RoleCannotLogIn(role) => (b"28000", format!("role \"{role}\" is not permitted to log in")),
            Error::TaskOfAnother { task, .. } => (b"42501", format!("permission denied for task \"{task}\"")),
            Error::ForeignMigration { id, schema } => (
                b"55000",
                format!(
                    "graphile-worker's migration {id} cannot be applied to schema {schema}: it belongs to the extension kongtask"
                ),
            ),
        };
        let context = match self {
            Error::TimedOut(_, error) | Error::EndedItself(error) => error.read().context,
            _ => None,
        };
        let [mut detail, hint] = [self.detail(), self.hint()].map(|part| part.map(DbText::from));
        if let Error::StillNeeded { why, .. } = self {
            detail = Some(lines(why));
        }
        Raise { sqlstate: *sqlstate, message: message.into(), detail, hint, context }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Error::NotInHandler(_) => Some("No kongtask worker is calling a handler in this session.".into()),
            Error::MayNotCancel { task, .. } => Some(format!("It is a job of task \"{task}\".")),
            Error::NoSuchJob(_) => Some(
                "It was never added, is not committed yet, was deleted or completed by an external worker, or its row of kongtask.runs is not kept any more."
                    .into(),
            ),
            Error::WaitsForItself(_) => Some("This transaction has added, changed or locked it, or runs it.".into()),
            Error::KeepsNoRuns { is_registered: false, .. } => Some("It is not registered: only external workers run it.".into()),
            Error::StandbyCannotWait => Some("Its primary runs the jobs, and cannot wake sessions here.".into()),
            Error::NotPreloaded => Some("Without it, no worker of this server ends jobs or wakes sessions.".into()),
            Error::InvalidWorkerId => Some("A worker id must have at least 10 characters.".into()),
            Error::HandlerNotCallable { why, .. } => Some((*why).into()),
            Error::HandlerOfSetIsProcedure { .. } => Some("It is a procedure that takes an array.".into()),
            Error::CommandNotScheduled { role } => Some(format!("Role \"{role}\" has no schedule with this command.")),
            Error::OnlyForWorkers => Some("It stands for the commands of schedules, which workers run.".into()),
            Error::HandlerForbidden { role, .. } => Some(format!("Role \"{role}\" lacks EXECUTE on the function or USAGE on its schema.")),
            Error::RoleCannotLogIn(_) => {
                Some("Before PostgreSQL 17, workers can only run as roles that have LOGIN.".into())
            }
            Error::InvalidMaxBatch { most: 1, .. } => {
                Some("A procedure may end transactions, so no two of its jobs can share one.".into())
            }
            Error::InvalidMaxBatch { is_set: false, .. } => Some(
                "Each job takes a subtransaction, and a transaction with more than 64 of them slows down the whole server."
                    .into(),
            ),
            Error::TaskOfAnother { role, .. } => Some(format!("Role \"{role}\" registered the task.")),
            Error::ScheduleOfAnother { role, .. } => Some(format!("Role \"{role}\" scheduled it.")),
            Error::MayNotAddJobs { role, .. } => Some(format!("Role \"{role}\" may not execute add_job.")),
            Error::InvalidBackoff { detail } => Some((*detail).into()),
            Error::InvalidCron { detail, .. } => Some(detail.clone()),
            Error::ForeignMigration { .. } => {
                Some("The extension's tables correspond to migrations 1 to 9, which graphile-worker 0.8 to 0.12 work with.".into())
            }
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Error::NotInstalled => "Run CREATE EXTENSION kongtask, or ALTER EXTENSION kongtask UPDATE.".into(),
            Error::MayNotCancel { .. } => {
                "Only the role that the task runs as, the owner of the extension or a superuser can cancel it.".into()
            }
            Error::JobLocked(_) => "Try again when that transaction has ended.".into(),
            Error::InvalidKeep(_) => "Use 'none', 'failures' or 'all'.".into(),
            Error::MayNotWait(_) => {
                "Only the role that the task runs as, the owner of the extension or a superuser can wait for it.".into()
            }
            Error::WaitsForItself(_) => "Commit first, and wait in another transaction.".into(),
            Error::KeepsNoRuns { task, is_registered: true } => {
                format!("Run SELECT kongtask.alter_task('{}', keep := 'all').", task.to_string().replace('\'', "''"))
            }
            Error::TooManyWaits => "Give waits a timeout, or look at kongtask.runs instead.".into(),
            Error::StandbyCannotWait => "Wait on the primary, or look at kongtask.runs here.".into(),
            Error::TooManyCancels => "Commit, and try again when the jobs have ended.".into(),
            Error::NotInHandler(_) => {
                "Call it in the function that runs the job. From elsewhere, reschedule_jobs and permanently_fail_jobs change a job that waits."
                    .into()
            }
            Error::StillNeeded { .. } => "Use DROP ... CASCADE to drop the dependent objects too.".into(),
            Error::HandlerNotCallable { .. } | Error::HandlerSignature { .. } => SIGNATURES.into(),
            Error::HandlerOfSetIsProcedure { .. } => {
                "Make it a function, or have it take one job: (), (json), (jsonb), (jobs) or (json, jobs).".into()
            }
            Error::InvalidMaxBatch { most: 1, .. } => "Leave max_batch out, or register a function.".into(),
            Error::ReservedTask => {
                "kongtask.schedule(name, cron, 'kongtask.sql', payload) registers a task kongtask.sql:ROLE by itself.".into()
            }
            Error::CommandNotScheduled { .. } => {
                "Schedule the command by kongtask.schedule; a job does not outlive the schedule of its command.".into()
            }
            Error::CommandNeedsClient => "Copy from or to a file or a program.".into(),
            Error::CommandLeavesTransactionOpen => "End by COMMIT or ROLLBACK what the command begins.".into(),
            Error::NoPgCron => "It is in the database that its setting cron.database_name names.".into(),
            Error::PgCronElsewhere(_) => "Schedule its command there by kongtask.schedule.".into(),
            Error::NoSuchRole(_) => "Create the role, or remove the job from pg_cron by cron.unschedule.".into(),
            Error::OnlyForWorkers => {
                "Schedule a command: kongtask.schedule(name, cron, 'kongtask.sql', '{\"command\": \"...\"}').".into()
            }
            Error::HandlerForbidden { handler, role } => {
                format!("Grant EXECUTE on function {handler}, and USAGE on its schema, to role {role}.")
            }
            Error::InvalidMaxBatch { is_set: false, .. } => {
                "To run more jobs at once, register a handler that takes json[] or jobs[]: it gets up to 10000 jobs in one call.".into()
            }
            Error::NoSuchHandler(_) => {
                "Create the function, or register another one with kongtask.register_task.".into()
            }
            Error::InvalidPausedName(_) => "Pass NULL for all.".into(),
            Error::InvalidConcurrency => "To keep all jobs of a task from beginning, use kongtask.pause.".into(),
            Error::InvalidLimitName => "It must not begin with task:, which stands for the concurrency of a task.".into(),
            Error::NoSuchLimit(_) => "SELECT name FROM kongtask.limits lists them.".into(),
            Error::MayNotThrottle(_) => {
                "A handler of a task under the limit may, and who may set the limit.".into()
            }
            Error::TooManyLimitKeys => "Raise kongtask.max_limit_keys, and restart the server.".into(),
            Error::NotPreloaded => "Add kongtask to shared_preload_libraries, and restart the server.".into(),
            Error::MayNotControl => {
                "Name a task that your role has registered; or have the owner of the extension or a superuser do it.".into()
            }
            Error::NoSuchTask(_) => "SELECT identifier FROM kongtask.tasks lists those that are registered.".into(),
            Error::InvalidCron { hint, .. } => hint.clone(),
            Error::InvalidScheduleOption { hint, .. } | Error::MayNotAddJobs { hint, .. } => hint.clone(),
            Error::NoSuchSchedule(_) => "SELECT name FROM kongtask.schedules lists those that there are.".into(),
            Error::ScheduleOfAnother { .. } => {
                "Only the role that scheduled it, the owner of the extension or a superuser can change it.".into()
            }
            Error::UnknownZone(_) => {
                "Give a full name of pg_timezone_names, such as Europe/Paris: an abbreviation or a POSIX string does not say when clocks change."
                    .into()
            }
            Error::MayNotReadJobs => "Grant the role SELECT on the table, and EXECUTE on get_job, by which row level security goes.".into(),
            Error::UnknownHistogram(_) => "Use 'run' or 'wait'.".into(),
            Error::MayNotReset(Some(_)) => {
                "Only the role that the task runs as, the owner of the extension or a superuser can.".into()
            }
            Error::MayNotReset(None) => {
                "Only the owner of the extension or a superuser can. Other roles can reset the counters of tasks that run as them."
                    .into()
            }
            Error::RoleCannotLogIn(role) => {
                format!("Run ALTER ROLE {role} LOGIN, or register the task as another role.")
            }
            Error::TaskOfAnother { .. } => {
                "Only the role that registered a task, or a superuser, can replace or remove it.".into()
            }
            Error::ForeignMigration { .. } => {
                "Run graphile-worker 0.8 to 0.12 on this schema, or give the later version a schema of its own.".into()
            }
            _ => return None,
        })
    }
}

/// Joins lines that are in the database's encoding, as names are.
fn lines(lines: &[DbText]) -> DbText {
    let mut joined = DbText::default();
    for (number, line) in lines.iter().enumerate() {
        joined.push(if number == 0 { "" } else { "\n" });
        joined.push(line);
    }
    joined
}

/// What `last_error` says of an attempt that failed.
pub fn last_error(error: &Raise) -> DbText {
    const MOST: usize = 64 * 1024;
    let mut text = headline(error);
    for (label, part) in [("DETAIL", &error.detail), ("HINT", &error.hint), ("CONTEXT", &error.context)] {
        if let Some(part) = part {
            text.push(&format!("\n{label}: "));
            text.push(part);
        }
    }
    // What the database cannot have, a dump of it could not be restored with.
    let mut text = text.valid();
    let left_out = text.clip(MOST);
    if left_out > 0 {
        text.push(&format!("... ({left_out} bytes left out)"));
    }
    text
}

/// The message with its SQLSTATE.
pub fn headline(error: &Raise) -> DbText {
    let mut text = error.message.clone();
    text.push(&format!(" (SQLSTATE {})", String::from_utf8_lossy(&error.sqlstate)));
    text
}
