//! Functions that SQL calls: arguments in, a value or rows out, errors raised without loss.

use super::args::Text;
use super::catch::{Failure, Raise, unpack_sqlstate};
use super::clock::Timestamp;
use super::spi::{Rows, Value};
use super::text::DbText;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, Datum};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Defines `$symbol` as an SQL-callable function that calls a Rust function. Not `#[pg_extern]`: that converts every
/// argument and result, and replaces the SQLSTATE of an error.
macro_rules! sql_function {
    ($symbol:ident, $function:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C-unwind" fn $symbol(fcinfo: ::pgrx::pg_sys::FunctionCallInfo) -> ::pgrx::pg_sys::Datum {
                // SAFETY: Postgres calls this by its V1 convention, with nothing of ours on the stack.
                unsafe { $crate::pg::function::enter(fcinfo, $function) }
            }

            #[unsafe(export_name = concat!("pg_finfo_", stringify!($symbol)))]
            extern "C" fn info() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
                const V1: ::pgrx::pg_sys::Pg_finfo_record = ::pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
        };
    };
}
pub(crate) use sql_function;

/// A call of a function by SQL.
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// Returns how many arguments the function was declared with.
    pub fn arguments(&self) -> usize {
        // SAFETY: a valid call.
        unsafe { (*self.0).nargs as usize }
    }

    /// Returns argument `n`, from 0. An argument that an older version's function lacks is NULL.
    pub fn value(&self, n: usize) -> Value {
        if n >= self.arguments() {
            return None;
        }
        // SAFETY: Postgres passes as many arguments as the function is declared with.
        let argument = unsafe { *(*self.0).args.as_ptr().add(n) };
        (!argument.isnull).then_some(argument.value)
    }

    /// Returns argument `n`, a `text`.
    pub fn text(&self, n: usize) -> Option<Text> {
        self.value(n).map(Text::new)
    }

    /// Returns argument `n`, an `integer`.
    pub fn int4(&self, n: usize) -> Option<i32> {
        self.value(n).map(|datum| datum.value() as i32)
    }

    /// Returns argument `n`, a `bigint`.
    pub fn int8(&self, n: usize) -> Option<i64> {
        self.value(n).map(|datum| datum.value() as i64)
    }

    /// Argument `n`, a `timestamptz`.
    pub fn timestamp(&self, n: usize) -> Option<Timestamp> {
        self.value(n).map(|datum| datum.value() as Timestamp)
    }

    /// Returns argument `n`, a `boolean`.
    pub fn bool(&self, n: usize) -> Option<bool> {
        self.value(n).map(|datum| datum.value() != 0)
    }

    /// Returns argument `n`, an `oid` or one of its aliases.
    pub fn oid(&self, n: usize) -> Option<pg_sys::Oid> {
        self.value(n).map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    /// Returns what `make` makes at the first call of a function in a statement, and the same at its further calls.
    pub fn once_in_a_statement<T: 'static, E>(&mut self, make: impl FnOnce() -> Result<T, E>) -> Result<&'static T, E> {
        unsafe extern "C-unwind" fn forget<T>(kept: *mut c_void) {
            // SAFETY: what is boxed below; called once, when nothing can call the function any more.
            drop(unsafe { Box::from_raw(kept.cast::<T>()) });
        }
        // SAFETY: a valid call; one function keeps values of one type. The value lives as long as the statement runs,
        // and callers return before its end.
        unsafe {
            let info = (*self.0).flinfo;
            if (*info).fn_extra.is_null() {
                let kept = Box::into_raw(Box::new(make()?));
                let callback =
                    pg_sys::MemoryContextAllocZero((*info).fn_mcxt, size_of::<pg_sys::MemoryContextCallback>())
                        .cast::<pg_sys::MemoryContextCallback>();
                (*callback).func = Some(forget::<T>);
                (*callback).arg = kept.cast();
                pg_sys::MemoryContextRegisterResetCallback((*info).fn_mcxt, callback);
                (*info).fn_extra = kept.cast();
            }
            Ok(&*(*info).fn_extra.cast::<T>())
        }
    }

    /// Returns the `Node` that says how a trigger function was called; null for other calls.
    pub(super) fn context(&self) -> *mut pg_sys::Node {
        // SAFETY: a valid call.
        unsafe { (*self.0).context }
    }

    /// Returns rows of the declared type, all at once.
    pub fn return_rows(&mut self, sets: &[Rows<'_>]) {
        // SAFETY: the store is fed tuples of the function's declared row type, by the caller's word.
        self.return_stored(|store, _| unsafe {
            for &tuple in sets.iter().flat_map(Rows::tuples) {
                pg_sys::tuplestore_puttuple(store, tuple);
            }
        });
    }

    /// Returns rows of `N` columns of the declared types, all at once.
    pub fn return_values<const N: usize>(&mut self, rows: impl Iterator<Item = [Value; N]>) {
        self.return_stored(|store, descriptor| {
            for row in rows {
                let mut values = row.map(|value| value.unwrap_or(Datum::from(0)));
                let mut nulls = row.map(|value| value.is_none());
                // SAFETY: as many columns as the function declares, by the caller's word.
                unsafe {
                    pg_sys::tuplestore_putvalues(store, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
                }
            }
        });
    }

    fn return_stored(&mut self, fill: impl FnOnce(*mut pg_sys::Tuplestorestate, pg_sys::TupleDesc)) {
        // SAFETY: a function declared SETOF is called with a ReturnSetInfo; store and descriptor go where the caller
        // expects them to live.
        unsafe {
            let info = (*self.0).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            assert!(
                !info.is_null() && (*info).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize as i32 != 0,
                "called where a set cannot be returned"
            );
            let former = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            let descriptor = pg_sys::CreateTupleDescCopy((*info).expectedDesc);
            let store = pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(former);
            fill(store, descriptor);
            (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            (*info).setResult = store;
            (*info).setDesc = descriptor;
        }
    }
}

/// Runs a function for SQL. Raises its error once everything that it held is dropped.
///
/// # Safety
/// Called by Postgres, by its V1 convention.
pub unsafe fn enter<E: Into<Failure>>(
    fcinfo: pg_sys::FunctionCallInfo,
    function: fn(&mut Call) -> Result<Value, E>,
) -> Datum {
    match guarded(|| function(&mut Call(fcinfo)).map_err(Into::into)) {
        Ok(value) => {
            // SAFETY: a valid call.
            unsafe { (*fcinfo).isnull = value.is_none() };
            value.unwrap_or(Datum::from(0))
        }
        // SAFETY: nothing is left to drop but the failure itself, which sees to that.
        Err(failure) => unsafe { failure.raise() },
    }
}

/// Runs `f`. Turns a panic, which may be pgrx's translation of a Postgres error, into a failure.
pub fn guarded<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let report = match payload.downcast::<CaughtError>() {
            Ok(caught) => match *caught {
                CaughtError::PostgresError(report)
                | CaughtError::ErrorReport(report)
                | CaughtError::RustPanic { ereport: report, .. } => Raise {
                    sqlstate: unpack_sqlstate(report.sql_error_code() as i32),
                    message: DbText::of_rust(report.message()),
                    detail: report.detail().map(DbText::of_rust),
                    hint: report.hint().map(DbText::of_rust),
                    context: None,
                },
            },
            Err(payload) => Raise {
                sqlstate: *b"XX000",
                message: payload
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| payload.downcast_ref::<&str>().copied())
                    .map_or_else(|| "panic in kongtask".into(), DbText::of_rust),
                detail: None,
                hint: None,
                context: None,
            },
        };
        Err(Failure::Ours(report))
    })
}
