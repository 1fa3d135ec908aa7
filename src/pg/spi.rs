//! Statements of our own: plans kept for the life of the backend, run through SPI.

use super::catch::{PgError, catch};
use super::text::{DbText, Read};
use super::xact::{Settings, set_local};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_long};
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

/// The schema that statements are about.
#[derive(Clone)]
pub struct Home {
    /// Its name as SQL needs it, quoted or not.
    pub schema: Rc<DbText>,
    /// No other name has had it in this backend.
    pub number: u64,
}

impl Home {
    /// For statements that name no such schema.
    pub fn none() -> Home {
        Home { schema: Rc::default(), number: 0 }
    }
}

/// A statement, parsed once in a backend. It qualifies every name, so that one parse serves every search_path.
pub struct Plan {
    text: &'static str,
    types: &'static [Oid],
    by_index: bool,
    /// The plan, and the number of the home that it was made for.
    kept: Cell<(pg_sys::SPIPlanPtr, u64)>,
    /// Whether it has run.
    planned: Cell<bool>,
}

// SAFETY: a backend has one thread.
unsafe impl Sync for Plan {}

impl Plan {
    /// `text`, with parameters of these types. Where it says `@extschema@` it means the home of the session it is run in.
    pub const fn new(text: &'static str, types: &'static [Oid]) -> Plan {
        Plan { text, types, by_index: false, kept: Cell::new((std::ptr::null_mut(), 0)), planned: Cell::new(false) }
    }

    /// For a statement that finds its rows by an index, or takes the first in the order of one: it is never planned to
    /// read all, or to sort, and planned once for all parameters. The planner would do either where a table's statistics
    /// are older than its rows, and a queue's are never young enough.
    pub const fn by_index(mut self) -> Plan {
        self.by_index = true;
        self
    }

    /// What it is to be planned with, if it is to be planned now.
    fn planning(&self, plan: pg_sys::SPIPlanPtr) -> Option<Settings> {
        // SAFETY: a kept plan.
        if !self.by_index || (self.planned.replace(true) && unsafe { pg_sys::SPI_plan_is_valid(plan) }) {
            return None;
        }
        let settings = Settings::keep();
        // jit: what none of them can be done without is taken to be expensive, and compiled.
        for way in [c"enable_sort", c"enable_bitmapscan", c"enable_seqscan", c"jit"] {
            set_local(way, c"off");
        }
        Some(settings)
    }

    fn kept(&self, home: &Home) -> Result<pg_sys::SPIPlanPtr, PgError> {
        let (kept, number) = self.kept.get();
        if !kept.is_null() && number == home.number {
            return Ok(kept);
        }
        // A plan for a former home is left to the end of the backend: it may be running further up the stack, in a
        // statement whose trigger renamed the schema.
        let text = DbText::from(self.text.replace("@extschema@", &home.schema.to_string())).c_string();
        let (text, nargs, types) = (text.as_ptr(), self.types.len() as c_int, self.types.as_ptr().cast_mut());
        let options = if self.by_index { pg_sys::CURSOR_OPT_GENERIC_PLAN as c_int } else { 0 };
        // SAFETY: the closure is one C call; SPI only reads the types.
        let plan = unsafe { catch(|| SPI_prepare_cursor(text, nargs, types, options)) }?;
        assert!(!plan.is_null(), "SPI_prepare_cursor takes any statement that parses");
        // SAFETY: a fresh plan.
        unsafe { pg_sys::SPI_keepplan(plan) };
        self.kept.set((plan, home.number));
        self.planned.set(false);
        Ok(plan)
    }
}

/// A statement of ours: the files in `sql/query/` that its text is made of, and the types of its parameters.
macro_rules! plan {
    ([$($file:literal),+] $(, $type:ident)*) => {
        $crate::pg::spi::Plan::new(
            concat!($(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/query/", $file, ".sql"))),+),
            &[$(::pgrx::pg_sys::$type),*],
        )
    };
    ($file:literal $(, $type:ident)*) => { $crate::pg::spi::plan!([$file] $(, $type)*) };
}
pub(crate) use plan;

thread_local! {
    static MET_DEADLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Whether a statement of ours has met a deadlock since the last call: also one that a user's code ran, by adding a job, say.
pub fn met_deadlock() -> bool {
    MET_DEADLOCK.replace(false)
}

/// An argument or a column: NULL is `None`.
pub type Value = Option<Datum>;

/// A connection to SPI. Rows live until it is dropped; what must outlive it is copied by [`Rows::carry`].
pub struct Session {
    home: Home,
}

impl Session {
    /// Opens a session. The memory context that is current now is the one that `carry` copies to.
    pub fn open(home: &Home) -> Session {
        let session = Session { home: home.clone() };
        // SAFETY: paired with SPI_finish in `drop`.
        unsafe { pg_sys::SPI_connect() };
        session
    }

    /// Runs a statement that may write, with a snapshot of its own.
    pub fn execute(&self, plan: &Plan, values: &[Value]) -> Result<Rows<'_>, PgError> {
        self.run(plan, values, false)
    }

    /// Runs a statement that only reads, with the active snapshot: assigns no transaction id.
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

/// What a statement returned.
pub struct Rows<'s> {
    table: *mut pg_sys::SPITupleTable,
    count: usize,
    session: PhantomData<&'s Session>,
}

impl Rows<'_> {
    /// How many rows were returned, or affected where none are returned.
    pub fn count(&self) -> usize {
        self.count
    }

    /// A column of a row, both counted from 0. By-reference values live as long as the session.
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

    /// A column read as a Rust type that fits it.
    pub fn get<T: Read>(&self, row: usize, column: usize) -> Option<T> {
        // SAFETY: our statements' columns are of the types that their callers name.
        self.value(row, column).and_then(|datum| unsafe { T::read(datum) })
    }

    /// The first column of a row, a composite or a text, copied to where the session was opened from.
    pub fn carry(&self, row: usize) -> Value {
        // SAFETY: both are by-reference varlenas. Within a row, a small one has got a short header, which whoever
        // reads its attributes must not meet.
        self.value(row, 0).map(|datum| unsafe {
            let whole = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            pg_sys::SPI_datumTransfer(Datum::from(whole), false, -1)
        })
    }

    /// Frees them before the session ends.
    pub fn free(self) {
        // SAFETY: SPI's table, or null, and `self` is gone after this.
        unsafe { pg_sys::SPI_freetuptable(self.table) }
    }

    /// The rows as tuples, for [`super::function::Call::return_rows`].
    pub(super) fn tuples(&self) -> &[pg_sys::HeapTuple] {
        if self.count == 0 {
            return &[];
        }
        // SAFETY: SPI's array of `count` tuples.
        unsafe { std::slice::from_raw_parts((*self.table).vals, self.count) }
    }
}
