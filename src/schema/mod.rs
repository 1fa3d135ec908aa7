//! The queue's schema, and statements that run as the owner of its tables. CREATE EXTENSION names the schema, and it
//! can be renamed later, so it is found through the extension: it is the schema that holds the extension's table
//! `jobs`.

pub mod job_row;

use crate::error::Error;
use crate::pg::catch::Failure;
use crate::pg::function::guarded;
use crate::pg::invalidation::Watch;
use crate::pg::role::{self, As};
use crate::pg::spi::{self, Home, Plan, Value, plan};
use crate::pg::text::DbText;
use crate::pg::xact::{self, LatestSnapshot};
use crate::pg::{catalog, procedure};
use pgrx::pg_sys::{InvalidOid, Oid};
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::ops::Deref;
use std::rc::Rc;

/// The queue of this database.
pub struct Queue {
    pub home: Home,
    /// The schema's name, as the catalog has it.
    pub name: DbText,
    /// The search_path in which handlers and their arguments are named. Types of pg_catalog, and `jobs`, are
    /// unqualified: the former because people write them so, the latter because the schema may be renamed. pg_temp is
    /// listed, last: where it is not listed, it comes first, and a temporary type called json would hide the real one.
    pub path: CString,
    /// `jobs`, and the index of its primary key.
    pub table: Oid,
    pub primary_key: Oid,
    /// The index of the order in which the jobs of a queue run; `None` if there is none as installed.
    pub queue_order: Option<Oid>,
    /// The type of its rows, and of arrays of them.
    pub row: Oid,
    pub rows: Oid,
    /// True if the tables are as version 0.3.0 or later of the extension makes them. They are not before ALTER
    /// EXTENSION UPDATE.
    pub is_0_3: bool,
    /// `job_queues`, in such a schema.
    pub queues: Oid,
    /// The role that the queue's statements run as: the owner of `jobs`.
    owner: Oid,
    schema_owner: Oid,
    extension_owner: Oid,
}

impl Queue {
    /// Returns true if `role` may drop the schema.
    pub fn is_of(&self, role: Oid) -> bool {
        role::has_privileges_of(role, self.schema_owner)
    }

    /// Returns true if DROP OWNED BY these roles drops the extension itself.
    pub fn is_dropped_with_all_of(&self, roles: &[Oid]) -> bool {
        roles.contains(&self.extension_owner)
    }

    /// The roles whose DROP OWNED removes the queue: the owners of the extension and of its schema.
    pub fn owners(&self) -> [Oid; 2] {
        [self.extension_owner, self.schema_owner]
    }
}

thread_local! {
    static QUEUE: RefCell<Option<Rc<Queue>>> = const { RefCell::new(None) };
    /// How many schemas the queue has had, as far as this backend has seen.
    static HOMES: Cell<u64> = const { Cell::new(0) };
}

/// Returns where the queue is now. To be called within a transaction. Errors: 55000 if the extension is not installed.
pub fn queue() -> Result<Rc<Queue>, Error> {
    static WATCH: Watch = Watch::new().and_schemas();
    let known = QUEUE.with_borrow(Clone::clone);
    if let Some(queue) = known.as_ref().filter(|_| !WATCH.is_stale()) {
        return Ok(queue.clone());
    }
    WATCH.renew();
    let Some(found) = locate().inspect_err(|_| WATCH.spoil())? else {
        WATCH.spoil();
        return Err(Error::NotInstalled);
    };
    WATCH.relation(found.table);
    let schema = catalog::quoted(&found.name);
    let home = match known {
        Some(known) if *known.home.schema == schema => known.home.clone(),
        _ => {
            HOMES.set(HOMES.get() + 1);
            Home { schema: Rc::new(schema), number: HOMES.get() }
        }
    };
    let path = DbText::from(format!("pg_catalog, {}, pg_temp", home.schema)).c_string();
    let row = catalog::row_type(found.table);
    let queues = catalog::relation(&found.name, "job_queues").filter(|&queues| catalog::has_column(queues, c"job_id"));
    let queue = Rc::new(Queue {
        home,
        path,
        table: found.table,
        row,
        rows: catalog::array_of(row),
        owner: catalog::owner(found.table).unwrap_or_default(),
        schema_owner: found.schema_owner,
        extension_owner: found.extension_owner,
        primary_key: found.primary_key,
        queue_order: found.queue_order,
        is_0_3: queues.is_some(),
        queues: queues.unwrap_or(InvalidOid),
        name: found.name,
    });
    QUEUE.set(Some(queue.clone()));
    Ok(queue)
}

/// Where the queue is, as the catalog says.
struct Located {
    name: DbText,
    table: Oid,
    primary_key: Oid,
    queue_order: Option<Oid>,
    schema_owner: Oid,
    extension_owner: Oid,
}

/// Finds the queue: the table `jobs` of the extension. By look-ups rather than by a statement, as each process does this first
/// of all, and would take longer to plan that than for all else until its first job.
fn locate() -> Result<Option<Located>, Error> {
    static TABLE: Plan = plan!("locate_queue");
    let _snapshot = LatestSnapshot::take();
    let Some(extension) = extension() else { return Ok(None) };
    let Some((extension_owner, home)) = catalog::owner_and_schema_of(extension)? else { return Ok(None) };
    let in_home = catalog::name_and_owner_of_schema(home).and_then(|(name, _)| catalog::relation(&name, "jobs"));
    let table = match in_home.filter(|&table| catalog::is_member(table, extension)) {
        Some(table) => table,
        // It has been moved to another schema.
        None => {
            let session = spi::Session::open(&Home::none());
            let rows = session.read(&TABLE, &[])?;
            let table = if rows.count() == 0 { None } else { rows.get(0, 0) };
            let Some(table) = table else { return Ok(None) };
            table
        }
    };
    let Some((name, schema_owner)) = catalog::schema_of(table).and_then(catalog::name_and_owner_of_schema) else {
        return Ok(None);
    };
    let (primary_key, order) = catalog::indexes(table, "jobs_queue_name_priority_run_at_id_idx")?;
    let queue_order = order.filter(|order| is_as_installed(order, table)).map(|order| order.oid);
    let primary_key = primary_key.unwrap_or_default();
    Ok(Some(Located { name, table, primary_key, queue_order, schema_owner, extension_owner }))
}

/// Returns true if an index has the order in which the jobs of a queue run.
fn is_as_installed(index: &catalog::Index, table: Oid) -> bool {
    let columns = [c"queue_name", c"priority", c"run_at", c"id"].map(|name| catalog::column(table, name));
    let predicate = index.predicate.as_ref().map(DbText::as_bytes);
    index.is_valid
        && index.columns == columns
        && predicate == Some(&b"((queue_name IS NOT NULL) AND (attempts < max_attempts))"[..])
}

/// Returns the OID of the extension in this database. It changes when the extension is dropped and created again.
pub fn extension() -> Option<Oid> {
    catalog::extension("kongtask")
}

/// Runs the main function of a background process. An error is ignored if the extension that was there at the start has
/// been dropped since: the error is a consequence of that.
pub fn while_there_is(extension: Oid, run: impl FnOnce() -> Result<(), Error>) -> Result<(), Failure> {
    guarded(|| run().map_err(Failure::from)).or_else(|failure| {
        let raise = failure.read();
        xact::abort();
        xact::begin();
        let is_there = self::extension() == Some(extension);
        // The transaction only read.
        xact::abort();
        if is_there { Err(Failure::Ours(raise)) } else { Ok(()) }
    })
}

/// A connection to SPI, with the owner of the tables as the current role.
pub struct OwnerSession {
    session: spi::Session,
    // Dropped after the connection.
    _as_owner: As,
}

impl Deref for OwnerSession {
    type Target = spi::Session;

    fn deref(&self) -> &spi::Session {
        &self.session
    }
}

/// Returns a function's name in the form that [`crate::tasks::handler::Handler::find`] reads.
pub fn name_of(function: Oid) -> Result<DbText, Error> {
    Ok(procedure::name(function, &queue()?.path))
}

/// Connects to SPI as the owner of the tables. Errors: 55000 if the extension is not installed.
pub fn session() -> Result<OwnerSession, Error> {
    let queue = queue()?;
    let _as_owner = As::role(queue.owner);
    Ok(OwnerSession { session: spi::Session::open(&queue.home), _as_owner })
}

/// Runs one statement as the owner of the tables. Returns the first column of its first row (a composite or a text), if
/// there is one, in the caller's memory context.
pub fn one_row(plan: &Plan, values: &[Value]) -> Result<Value, Error> {
    let session = session()?;
    let rows = session.execute(plan, values)?;
    Ok(if rows.count() == 0 { None } else { rows.carry(0) })
}

/// Runs one statement as the owner of the tables. Returns how many rows it affected.
pub fn affected(plan: &Plan, values: &[Value]) -> Result<usize, Error> {
    Ok(session()?.execute(plan, values)?.count())
}

/// Runs one statement as the owner of the tables; what it returns, a value that is passed by itself, such as a
/// timestamp.
pub fn value(plan: &Plan, values: &[Value]) -> Result<Value, Error> {
    let session = session()?;
    let rows = session.execute(plan, values)?;
    Ok(if rows.count() == 0 { None } else { rows.value(0, 0) })
}
