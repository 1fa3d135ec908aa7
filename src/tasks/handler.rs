//! Handlers: functions and procedures that run jobs. Finding, checking and calling them.

use crate::error::Error;
use crate::pg::procedure::{self, Callable, Procedure};
use crate::pg::spi::Value;
use crate::pg::text::{self, DbText};
use crate::pg::{invalidation, portal, python, role, version};
use crate::schema;
use crate::schema::job_row::{Job, begun};
use crate::tasks::command;
use pgrx::pg_sys::{Datum, JSONARRAYOID, JSONBOID, JSONOID, Oid, TEXTARRAYOID, VOIDOID};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};

/// The arguments that a handler takes.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    Json,
    Jsonb,
    Row,
    JsonAndRow,
    /// An array: many jobs in one call.
    JsonSet,
    RowSet,
}

/// How a handler is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Function,
    /// By CALL, so that it may end transactions.
    Procedure,
    /// [`command::HANDLER`]: what the job's command says is run instead.
    Command,
}

/// A function or procedure that the current role may run jobs with.
#[derive(Clone, Copy)]
pub struct Handler {
    function: Oid,
    takes: Takes,
    form: Form,
    is_python: bool,
}

impl Handler {
    /// Checks that the function has a handler's signature and that `role` may execute it. Errors: 42883, 42809, 42P13,
    /// 42501.
    pub fn check(function: Oid, role: Oid) -> Result<Handler, Error> {
        let Some(procedure) = procedure::look_up(function) else {
            return Err(Error::NoSuchHandler(function.to_u32().to_string().into()));
        };
        let handler = schema::name_of(function)?;
        let why = match procedure {
            Procedure { is_procedure: true, returns, .. } if returns != VOIDOID => Some("It has OUT arguments."),
            Procedure { is_plain: false, is_procedure: false, .. } => Some("It is an aggregate or a window function."),
            Procedure { returns_set: true, .. } => Some("It returns a set."),
            _ => None,
        };
        if let Some(why) = why {
            return Err(Error::HandlerNotCallable { handler, why });
        }
        let queue = schema::queue()?;
        let takes = match procedure.arguments[..] {
            [] => Takes::Nothing,
            [JSONOID] => Takes::Json,
            [JSONBOID] => Takes::Jsonb,
            [only] if only == queue.row => Takes::Row,
            [JSONOID, second] if second == queue.row => Takes::JsonAndRow,
            [JSONARRAYOID] => Takes::JsonSet,
            [only] if only == queue.rows => Takes::RowSet,
            _ => return Err(Error::HandlerSignature { handler }),
        };
        if procedure.is_procedure && matches!(takes, Takes::JsonSet | Takes::RowSet) {
            return Err(Error::HandlerOfSetIsProcedure { handler });
        }
        let form = match procedure.is_procedure {
            false => Form::Function,
            true if handler == *command::HANDLER => Form::Command,
            true => Form::Procedure,
        };
        if !version::may_execute(function, role) {
            let role = role::name(role).unwrap_or_default();
            return Err(Error::HandlerForbidden { handler, role });
        }
        let language = procedure::language_name(procedure.language);
        Ok(Handler { function, takes, form, is_python: language.as_deref() == Some(python::LANGUAGE) })
    }

    /// Returns the handler of this name for the current role. The result is cached until functions or privileges
    /// change. Errors as for [`Handler::check`].
    pub fn find(name: &DbText) -> Result<Handler, Error> {
        thread_local! {
            static KNOWN: RefCell<FxHashMap<DbText, Handler>> = RefCell::default();
            static VERSION: Cell<u64> = const { Cell::new(0) };
        }
        let version = invalidation::functions_version();
        if VERSION.replace(version) != version {
            KNOWN.take();
        }
        if let Some(handler) = KNOWN.with_borrow(|known| known.get(name).copied()) {
            return Ok(handler);
        }
        let handler = Handler::check(find_function(name)?, role::current())?;
        KNOWN.with_borrow_mut(|known| known.insert(name.clone(), handler));
        Ok(handler)
    }

    /// Checks that `role` may run the commands of its schedules. Errors: 42501.
    pub fn check_commands(role: Oid) -> Result<Handler, Error> {
        Handler::check(find_function(&command::HANDLER.into())?, role)
    }

    /// Returns true if one call takes many jobs.
    pub fn takes_sets(&self) -> bool {
        matches!(self.takes, Takes::JsonSet | Takes::RowSet)
    }

    /// Returns true if it is written in PL/Python.
    pub fn is_python(&self) -> bool {
        self.is_python
    }

    /// Returns true if it may end transactions. Its jobs are claimed, and run one at a time.
    pub fn has_steps(&self) -> bool {
        self.form != Form::Function
    }

    /// Prepares to run a job with a handler that [has steps](Handler::has_steps), as `role`. What is returned lives in
    /// the current memory context, which must outlive the transaction. Errors: those of [`command::check`].
    pub fn steps(&self, job: &Job, role: Oid, name: &DbText) -> Result<Steps, Error> {
        if self.form == Form::Command {
            return Ok(Steps { row: job.row(), what: What::Command(command::check(job, role)?) });
        }
        let payload = || job.payload().map(|payload| (JSONOID, payload));
        let row = || Ok::<_, Error>((schema::queue()?.row, begun(job.row())));
        let arguments: Vec<(Oid, Datum)> = match self.takes {
            Takes::Nothing => Vec::new(),
            Takes::Json => payload().into_iter().collect(),
            Takes::Jsonb => match job.payload() {
                Some(payload) => vec![(JSONBOID, procedure::jsonb(payload)?)],
                None => Vec::new(),
            },
            Takes::Row => vec![row()?],
            Takes::JsonAndRow => payload().into_iter().chain([row()?]).collect(),
            Takes::JsonSet | Takes::RowSet => unreachable!("check() lets no procedure take a set"),
        };
        let text = DbText::from(format!("call {name}")).c_string();
        Ok(Steps { row: job.row(), what: What::Call { procedure: self.function, arguments, text } })
    }

    /// Prepares it to be called in the current transaction. Errors: 42809 if it is a procedure.
    pub fn prepare(&self) -> Result<Prepared, Error> {
        if self.has_steps() {
            let why = "It is a procedure now, and was registered as a function.";
            return Err(Error::HandlerNotCallable { handler: schema::name_of(self.function)?, why });
        }
        Ok(Prepared { takes: self.takes, function: Callable::new(self.function)? })
    }
}

fn find_function(name: &DbText) -> Result<Oid, Error> {
    // A role that may execute our own need not have USAGE on its schema.
    let _owner = (*name == *command::HANDLER).then(schema::session).transpose()?;
    Ok(procedure::find(name, &schema::queue()?.path)?)
}

/// A handler that can be called within one transaction.
pub struct Prepared {
    takes: Takes,
    function: Callable,
}

impl Prepared {
    /// Runs a job. The handler's result is ignored.
    pub fn call(&self, job: &Job) -> Result<(), Error> {
        let _current = Current::set(job.row());
        let (payload, row) = (job.payload(), || Some(begun(job.row())));
        match self.takes {
            Takes::Nothing => self.function.call(&[]),
            Takes::Json => self.function.call(&[payload]),
            Takes::Jsonb => self.function.call(&[payload.map(procedure::jsonb).transpose()?]),
            Takes::Row => self.function.call(&[row()]),
            Takes::JsonAndRow => self.function.call(&[payload, row()]),
            Takes::JsonSet | Takes::RowSet => return self.call_for_all(std::slice::from_ref(job)),
        }?;
        Ok(())
    }

    /// Runs many jobs in one call. For a handler that [takes sets](Handler::takes_sets).
    pub fn call_for_all(&self, jobs: &[Job]) -> Result<(), Error> {
        let set = match self.takes {
            Takes::RowSet => {
                let rows: Vec<Datum> = jobs.iter().map(|job| begun(job.row())).collect();
                procedure::array(&rows, schema::queue()?.row)?
            }
            _ => {
                let payloads: Vec<Datum> = jobs.iter().filter_map(Job::payload).collect();
                procedure::array(&payloads, JSONOID)?
            }
        };
        self.function.call(&[Some(set)])?;
        Ok(())
    }
}

/// A job that is about to run in transactions of its own.
pub struct Steps {
    row: Datum,
    what: What,
}

enum What {
    Call { procedure: Oid, arguments: Vec<(Oid, Datum)>, text: CString },
    Command(CString),
}

impl Steps {
    /// Runs it, from [`xact::begin_steps`](crate::pg::xact::begin_steps) on.
    pub fn run(&self) -> Result<(), Error> {
        let _current = Current::set(self.row);
        match &self.what {
            What::Call { procedure, arguments, text } => portal::call(*procedure, arguments, text)?,
            What::Command(command) => portal::run(command)?,
        }
        Ok(())
    }

    /// Returns the statement that pg_stat_activity shows.
    pub fn statement(&self) -> &CStr {
        match &self.what {
            What::Call { text, .. } => text,
            What::Command(command) => command,
        }
    }
}

thread_local! {
    static CURRENT: Cell<Option<Datum>> = const { Cell::new(None) };
}

/// While it exists, [`current_row`] returns the row of the job that runs.
struct Current;

impl Current {
    fn set(row: Datum) -> Current {
        CURRENT.set(Some(row));
        Current
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Returns the row of the job that runs, copied to the current memory context; `None` outside a handler.
pub fn current_row() -> Value {
    CURRENT.get().map(|row| procedure::copy_row(begun(row)))
}

/// Calls a function without arguments that returns text[], as the current role. Errors as for [`Handler::check`].
pub fn call_for_texts(name: &DbText) -> Result<Vec<DbText>, Error> {
    Ok(text::elements(procedure::call(check_for_texts(name)?, &[])?))
}

/// Finds such a function. Errors as for [`Handler::check`].
pub fn check_for_texts(name: &DbText) -> Result<Oid, Error> {
    let mut full = name.clone();
    if !full.as_bytes().ends_with(b")") {
        full.push("()");
    }
    let function = procedure::find(&full, &schema::queue()?.path)?;
    let found = procedure::look_up(function).ok_or_else(|| Error::NoSuchHandler(full.clone()))?;
    if !found.is_plain || found.returns_set || found.returns != TEXTARRAYOID || !found.arguments.is_empty() {
        let why = "It must be a function without arguments that returns text[].";
        return Err(Error::HandlerNotCallable { handler: full, why });
    }
    if !version::may_execute(function, role::current()) {
        let role = role::name(role::current()).unwrap_or_default();
        return Err(Error::HandlerForbidden { handler: full, role });
    }
    Ok(function)
}
