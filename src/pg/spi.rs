//! Prepared statements of our own, run through SPI. Not pgrx's Spi: that raises errors as panics, and prepares for a
//! search_path that may change.

use super::catch::{PgError, catch};
use super::text::{DbText, Read};
use super::xact::{Settings, set_local};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_long};
use std::marker::PhantomData;
use std::rc::Rc;

unsafe extern "C-unwind" {
    fn SPI_prepare_cursor(text: *const c_char, nargs: c_int, types: *mut Oid, options: c_int) -> pg_sys::SPIPlanPtr;
    fn SPI_execute_plan(
        plan: pg_sys::SPIPlanPtr,
        values: *mut Datum,
        nulls: *const c_char,
        read_only: bool,
        count: c_long,
    ) -> c_int;
}

/// The schema that statements refer to.
#[derive(Clone)]
pub struct Home {
    /// Its name, quoted where SQL needs that.
    pub schema: Rc<DbText>,
    /// A number that no other name has had in this backend.
    pub number: u64,
}

impl Home {
    /// For statements that refer to no such schema.
    pub fn none() -> Home {
        Home { schema: Rc::default(), number: 0 }
    }
}

/// A statement that is parsed once in a backend. It qualifies every name, so that one parse serves every search_path.
pub struct Plan {
    text: &'static str,
    types: &'static [Oid],
    by_index: bool,
    /// The plan, and the number of the home that it was made for.
    kept: Cell<(pg_sys::SPIPlanPtr, u64)>,
    /// True once it has run.
    planned: Cell<bool>,
}

// SAFETY: a backend has one thread.
unsafe impl Sync for Plan {}

impl Plan {
    /// Defines a statement by its text and the types of its parameters. See [`expand`] for what `@` stands for in the
    /// text.
    pub const fn new(text: &'static str, types: &'static [Oid]) -> Plan {
        Plan { text, types, by_index: false, kept: Cell::new((std::ptr::null_mut(), 0)), planned: Cell::new(false) }
    }

    /// Marks a statement that finds its rows by an index, or takes the first ones in an index's order. It is never
    /// planned with a sequential scan or a sort, and is planned once for all parameters. The planner would choose those
    /// where statistics are older than the rows, as a queue's always are.
    pub const fn by_index(mut self) -> Plan {
        self.by_index = true;
        self
    }

    /// Returns the settings to plan it with, if it must be planned now.
    fn planning(&self, plan: pg_sys::SPIPlanPtr) -> Option<Settings> {
        // SAFETY: a kept plan.
        if !self.by_index || (self.planned.replace(true) && unsafe { pg_sys::SPI_plan_is_valid(plan) }) {
            return None;
        }
        let settings = Settings::keep();
        // jit is off because scans that are disabled look expensive to the planner, and would be compiled.
        for way in [c"enable_sort", c"enable_bitmapscan", c"enable_seqscan", c"jit"] {
            set_local(way, c"off");
        }
        Some(settings)
    }

    /// Its text, about this home.
    fn statement(&self, home: &Home) -> CString {
        DbText::from(expand(self.text, &home.schema.to_string())).c_string()
    }

    fn kept(&self, home: &Home) -> Result<pg_sys::SPIPlanPtr, PgError> {
        let (kept, number) = self.kept.get();
        if !kept.is_null() && number == home.number {
            return Ok(kept);
        }
        // A plan for a former home is kept to the end of the backend: it may be running further up the stack, in a
        // statement whose trigger renamed the schema.
        let statement = self.statement(home);
        let (text, nargs, types) = (statement.as_ptr(), self.types.len() as c_int, self.types.as_ptr().cast_mut());
        let options = if self.by_index { pg_sys::CURSOR_OPT_GENERIC_PLAN as c_int } else { 0 };
        // SAFETY: the closure is one C call; SPI only reads the types.
        let plan = unsafe { catch(|| SPI_prepare_cursor(text, nargs, types, options)) }
            .inspect_err(|error| error.hide_statement(&statement))?;
        assert!(!plan.is_null(), "SPI_prepare_cursor takes any statement that parses");
        // SAFETY: a fresh plan.
        unsafe { pg_sys::SPI_keepplan(plan) };
        self.kept.set((plan, home.number));
        self.planned.set(false);
        Ok(plan)
    }
}

/// What several statements have in common, each under the name by which they refer to it.
const PARTS: &[(&str, &str)] = &[
    ("@attempts_left@", include_str!("../../sql/query/parts/attempts_left.sql")),
    ("@backoff@", include_str!("../../sql/query/parts/backoff.sql")),
    ("@can_run@", include_str!("../../sql/query/parts/can_run.sql")),
    ("@found_job@", include_str!("../../sql/query/parts/found_job.sql")),
    ("@idle_jobs@", include_str!("../../sql/query/parts/idle_jobs.sql")),
    ("@new_job_values@", include_str!("../../sql/query/parts/new_job_values.sql")),
    ("@paused@", include_str!("../../sql/query/parts/paused.sql")),
    ("@plain_jobs@", include_str!("../../sql/query/parts/plain_jobs.sql")),
    ("@unfinished_jobs@", include_str!("../../sql/query/parts/unfinished_jobs.sql")),
    ("@schedule_terms@", include_str!("../../sql/query/parts/schedule_terms.sql")),
    ("@specs@", include_str!("../../sql/query/parts/specs.sql")),
    // The last, as other parts name it.
    ("@this_attempt@", include_str!("../../sql/query/parts/this_attempt.sql")),
];

/// Returns the text of a statement with its parts filled in, for a schema whose name is quoted where SQL needs that.
fn expand(text: &str, schema: &str) -> String {
    let filled = PARTS.iter().fold(text.to_owned(), |text, (name, part)| match text.contains(name) {
        true => text.replace(name, &format!("\n{part}")),
        false => text,
    });
    filled.replace("@extschema@", schema)
}

/// Defines a statement by its file in `sql/query/` and the types of its parameters.
macro_rules! plan {
    ($file:literal $(, $type:ident)*) => {
        $crate::pg::spi::Plan::new(
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/query/", $file, ".sql")),
            &[$(::pgrx::pg_sys::$type),*],
        )
    };
}
pub(crate) use plan;

thread_local! {
    static MET_DEADLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Returns true if a statement of ours has met a deadlock since the last call, even one that user code caused by adding
/// a job.
pub fn met_deadlock() -> bool {
    MET_DEADLOCK.replace(false)
}

/// An argument or a column: NULL is `None`.
pub type Value = Option<Datum>;

/// A connection to SPI. Rows live until it is dropped. [`Rows::carry`] copies those that must outlive it.
pub struct Session {
    home: Home,
}

impl Session {
    /// Connects. [`Rows::carry`] will copy to the memory context that is current now.
    pub fn open(home: &Home) -> Session {
        let session = Session { home: home.clone() };
        // SAFETY: paired with SPI_finish in `drop`.
        unsafe { pg_sys::SPI_connect() };
        session
    }

    /// Runs a statement that may write, with a new snapshot.
    pub fn execute(&self, plan: &Plan, values: &[Value]) -> Result<Rows<'_>, PgError> {
        self.run(plan, values, false)
    }

    /// Runs a statement that only reads, with the active snapshot. Assigns no transaction id.
    pub fn read(&self, plan: &Plan, values: &[Value]) -> Result<Rows<'_>, PgError> {
        self.run(plan, values, true)
    }

    fn run(&self, plan: &Plan, values: &[Value], read_only: bool) -> Result<Rows<'_>, PgError> {
        const MOST: usize = 24;
        assert!(values.len() == plan.types.len() && values.len() <= MOST);
        let mut datums = [Datum::from(0); MOST];
        let mut nulls = [b'n' as c_char; MOST];
        for (i, value) in values.iter().enumerate() {
            if let Some(datum) = *value {
                (datums[i], nulls[i]) = (datum, b' ' as c_char);
            }
        }
        let kept = plan.kept(&self.home)?;
        let _planning = plan.planning(kept);
        let (datums, nulls) = (datums.as_mut_ptr(), nulls.as_ptr());
        // SAFETY: the closure is one C call; the values are of the plan's types by its caller's word.
        let code = unsafe { catch(|| SPI_execute_plan(kept, datums, nulls, read_only, 0)) }.inspect_err(|error| {
            error.hide_statement(&plan.statement(&self.home));
            if error.is_deadlock() {
                MET_DEADLOCK.set(true);
            }
        })?;
        assert!(code > 0, "SPI_execute_plan: {code}");
        // SAFETY: SPI's own result variables, just set.
        Ok(unsafe { Rows { table: pg_sys::SPI_tuptable, count: pg_sys::SPI_processed as usize, session: PhantomData } })
    }
}

impl Session {
    /// A composite value, copied to where the session was opened from.
    pub fn carry(&self, row: Value) -> Value {
        // SAFETY: a by-reference varlena.
        row.map(|row| unsafe { pg_sys::SPI_datumTransfer(row, false, -1) })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: paired with SPI_connect; also right after an error, as the session's owner unwinds.
        unsafe { pg_sys::SPI_finish() };
    }
}

/// The result of a statement.
pub struct Rows<'s> {
    table: *mut pg_sys::SPITupleTable,
    count: usize,
    session: PhantomData<&'s Session>,
}

impl Rows<'_> {
    /// Returns how many rows were returned or, if none are returned, affected.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns a column of a row, both counted from 0. By-reference values live as long as the session.
    pub fn value(&self, row: usize, column: usize) -> Value {
        assert!(row < self.count && !self.table.is_null());
        let mut is_null = false;
        // SAFETY: the row exists; SPI checks the column.
        let datum = unsafe {
            let tuple = *(*self.table).vals.add(row);
            pg_sys::SPI_getbinval(tuple, (*self.table).tupdesc, column as c_int + 1, &mut is_null)
        };
        (!is_null).then_some(datum)
    }

    /// Returns a column as a Rust type that fits it.
    pub fn get<T: Read>(&self, row: usize, column: usize) -> Option<T> {
        // SAFETY: our statements' columns are of the types that their callers name.
        self.value(row, column).and_then(|datum| unsafe { T::read(datum) })
    }

    /// Copies the first column of a row, a composite or a text, to the memory context from which the session was
    /// opened.
    pub fn carry(&self, row: usize) -> Value {
        // SAFETY: both are by-reference varlenas. Within a row, a small one has got a short header, which whoever
        // reads its attributes must not meet.
        self.value(row, 0).map(|datum| unsafe {
            let whole = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            pg_sys::SPI_datumTransfer(Datum::from(whole), false, -1)
        })
    }

    /// Frees the rows before the session ends.
    pub fn free(self) {
        // SAFETY: SPI's table, or null, and `self` is gone after this.
        unsafe { pg_sys::SPI_freetuptable(self.table) }
    }

    /// Returns the rows as tuples, for [`super::function::Call::return_rows`].
    pub(super) fn tuples(&self) -> &[pg_sys::HeapTuple] {
        if self.count == 0 {
            return &[];
        }
        // SAFETY: SPI's array of `count` tuples.
        unsafe { std::slice::from_raw_parts((*self.table).vals, self.count) }
    }
}
