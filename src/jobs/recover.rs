//! Releasing what ended workers of this server held.

use super::{affected, one_row, plan, queues, runs};
use crate::error::Error;
use crate::pg::args::Text;
use crate::pg::spi::{Plan, Value};
use crate::pg::text::{DbText, elements, text, texts};
use crate::schema;
use crate::schema::job_row::Job;
use crate::shared;
use crate::tasks::registry;

/// Releases the jobs of a worker whose ids are in a range, so that they can run again at once. The attempt is not
/// counted. Returns how many there were.
pub fn release(worker_id: Value, ids: (i64, i64)) -> Result<usize, Error> {
    static RELEASE: Plan = plan!("release", INT8OID, INT8OID, TEXTOID).by_index();
    let session = schema::session()?;
    let rows = session.execute(&RELEASE, &[Some(ids.0.into()), Some(ids.1.into()), worker_id])?;
    for row in 0..rows.count() {
        queues::release_with_job(rows.value(row, 0), worker_id)?;
    }
    Ok(rows.count())
}

/// Releases jobs as [`release`] does, and every queue that the worker holds. For a worker that has ended.
pub fn release_all_of(worker_id: &DbText, ids: (i64, i64)) -> Result<usize, Error> {
    let released = release(text(worker_id), ids)?;
    queues::release_all_of(texts(&[worker_id]))?;
    Ok(released)
}

/// Releases every job that a kongtask worker has locked, unless it is one of `living`. Attempts are not counted.
/// Returns how many jobs there were. For the time after a crash of the server, a promotion or a restore.
///
/// Reads all of `jobs`, so only the start of a scheduler calls it.
pub fn release_all_but(prefix: &str, living: &[DbText]) -> Result<usize, Error> {
    static JOBS: Plan = plan!("recover_jobs", TEXTOID, TEXTARRAYOID);
    static QUEUES: Plan = plan!("recover_queues", TEXTOID, TEXTARRAYOID);
    let values = [text(prefix), texts(living)];
    let released = affected(&JOBS, &values)?;
    affected(&QUEUES, &values)?;
    Ok(released)
}

/// What the log says of a job that crashed its worker.
pub struct Charged {
    pub task: DbText,
    pub for_good: bool,
    pub error: DbText,
    /// True if the attempt counts.
    pub is_attempt: bool,
}

/// Records a failed attempt of a job during which its worker crashed, or (not `crashed`) was killed. The third crash in
/// a row fails it for good. Returns `None` if the job is gone or another transaction has locked it.
pub fn charge(job: i64, crashed: bool) -> Result<Option<Charged>, Error> {
    const MOST: i32 = 3;
    const MESSAGE: &str = "worker process crashed while it ran this job: crash %s of %s (SQLSTATE 57P02)";
    static TASK_OF: Plan = plan!("task_of", INT8OID).by_index();
    static CHARGE: Plan = plan!("charge", INT8OID, TEXTOID, INTERVALARRAYOID, INT4OID, BOOLOID, INT4OID);
    let task = one_row(&TASK_OF, &[Some(job.into())])?.map(|task| Text::new(task).read());
    let tasks = registry::tasks()?;
    let retry = task.and_then(|task| tasks.get(&task)).map(|task| task.retry.clone()).unwrap_or_default();
    let [backoff, max_attempts] = retry.values()?;
    let session = schema::session()?;
    let values = [Some(job.into()), text(MESSAGE), backoff, max_attempts, Some(crashed.into()), Some(MOST.into())];
    let rows = session.execute(&CHARGE, &values)?;
    let Some(job) = (rows.count() > 0).then(|| rows.carry(0)).flatten().map(Job::new) else { return Ok(None) };
    let charged = Charged {
        task: job.task(),
        for_good: rows.get(0, 1).unwrap_or(false),
        error: rows.get(0, 2).unwrap_or_default(),
        is_attempt: rows.get(0, 3).unwrap_or(false),
    };
    if let Some(task) = tasks.get(&charged.task).filter(|_| charged.is_attempt) {
        let attempt = rows.get(0, 4).unwrap_or(1);
        runs::keep_crash(&job, task, attempt, charged.for_good, &charged.error)?;
    }
    Ok(Some(charged))
}

/// Unlocks all that these external workers hold. `workers` is a `text[]`. The queue of a job that a live kongtask
/// worker runs stays locked until that worker has ended the job.
pub fn unlock(workers: Value) -> Result<(), Error> {
    static JOBS: Plan = plan!("unlock_jobs", TEXTARRAYOID);
    affected(&JOBS, &[workers])?;
    let living = shared::living_workers();
    let gone: Vec<DbText> = elements(workers).into_iter().filter(|id| !living.contains(id)).collect();
    queues::release_all_of(texts(&gone))
}
