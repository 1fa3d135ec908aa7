//! Postgres errors as values: caught and raised again without loss. pgrx's PgTryBuilder loses the SQLSTATE where that
//! is not one of the server's own, the context, and the names of tables and constraints.

use super::text::DbText;
use cee_scape::{SigJmpBufFields, call_with_sigsetjmp};
use pgrx::pg_sys;
use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;

// Not pgrx's bindings: their guard turns an error into a panic.
unsafe extern "C-unwind" {
    fn ReThrowError(error: *mut pg_sys::ErrorData) -> !;
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(code: c_int) -> c_int;
    fn errmsg_internal(format: *const c_char, ...) -> c_int;
    fn errdetail_internal(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

/// An ERROR that Postgres raised. Its transaction (or subtransaction) can only be rolled back.
///
/// Lives as long as the transaction (or subtransaction) that it fails.
#[derive(Clone, Copy)]
pub struct PgError(*mut pg_sys::ErrorData);

impl PgError {
    /// Returns what the error says. To be called before its transaction is rolled back.
    pub fn read(&self) -> Raise {
        // SAFETY: the pointer is CopyErrorData's, valid for as long as its memory context.
        let data = unsafe { &*self.0 };
        Raise {
            sqlstate: unpack_sqlstate(data.sqlerrcode),
            message: text(data.message).unwrap_or_default(),
            detail: text(data.detail),
            hint: text(data.hint),
            context: text(data.context),
        }
    }

    /// Returns true if Postgres chose this transaction to end a deadlock (40P01).
    pub fn is_deadlock(&self) -> bool {
        // SAFETY: as in `read`.
        unpack_sqlstate(unsafe { (*self.0).sqlerrcode }) == *b"40P01"
    }

    /// Removes a statement of ours from the error's CONTEXT and QUERY. The user did not write it and cannot change it;
    /// statements of the user, and the functions that they call, stay.
    pub fn hide_statement(&self, statement: &CStr) {
        // SAFETY: as in `read`; and nothing else refers to the copy.
        let data = unsafe { &mut *self.0 };
        if !data.context.is_null() {
            // SAFETY: the strings of an ErrorData are NUL-terminated.
            let kept = without_statement(unsafe { CStr::from_ptr(data.context) }.to_bytes(), statement.to_bytes());
            if kept.is_empty() {
                data.context = std::ptr::null_mut();
            } else {
                // SAFETY: what is kept is no longer than what is there.
                unsafe {
                    std::ptr::copy_nonoverlapping(kept.as_ptr(), data.context.cast(), kept.len());
                    *data.context.add(kept.len()) = 0;
                }
            }
        }
        // SAFETY: as above.
        if !data.internalquery.is_null() && unsafe { CStr::from_ptr(data.internalquery) } == statement {
            (data.internalquery, data.internalpos) = (std::ptr::null_mut(), 0);
        }
    }

    /// Raises the error again, as if it had never been caught.
    ///
    /// # Safety
    /// Jumps out of every frame up to the nearest handler: none of them may hold anything that must be dropped.
    pub unsafe fn rethrow(self) -> ! {
        // SAFETY: the pointer is CopyErrorData's; the caller vouches for the frames.
        unsafe { ReThrowError(self.0) }
    }
}

fn text(pointer: *mut c_char) -> Option<DbText> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the strings of an ErrorData are NUL-terminated.
    Some(DbText::of_c(unsafe { CStr::from_ptr(pointer) }))
}

/// `context` without the entries that quote `statement`. An entry is found by the statement alone, because the words
/// around it (`SQL statement "..."`) are in the language of lc_messages.
fn without_statement(context: &[u8], statement: &[u8]) -> Vec<u8> {
    let mut rest = context.to_vec();
    let find = |text: &[u8]| text.windows(statement.len().max(1)).position(|window| window == statement);
    while let Some(at) = find(&rest) {
        let begin = rest[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let after = at + statement.len();
        let end =
            rest[after..].iter().position(|&byte| byte == b'\n').map_or(rest.len(), |newline| after + newline + 1);
        rest.drain(begin..end);
    }
    if rest.last() == Some(&b'\n') {
        rest.pop();
    }
    rest
}

/// Runs `f`, and returns the ERROR it raised, if it did.
///
/// # Safety
/// `f` is left by a jump: neither it nor what it calls in Rust may hold anything that must be dropped, and it must not
/// panic. In practice it is one call of an unguarded C function.
pub unsafe fn catch<T>(f: impl FnOnce() -> T) -> Result<T, PgError> {
    // SAFETY: one thread. What is saved here is put back on both ways out, as PG_TRY does; the jump buffer is in use
    // only while its frame lives.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let exception_stack = pg_sys::PG_exception_stack;
        let error_context_stack = pg_sys::error_context_stack;
        let mut result = MaybeUninit::<T>::uninit();
        let jumped = call_with_sigsetjmp(false, |buffer| {
            pg_sys::PG_exception_stack = std::ptr::from_ref::<SigJmpBufFields>(buffer).cast_mut().cast();
            result.write(f());
            0
        });
        pg_sys::PG_exception_stack = exception_stack;
        pg_sys::error_context_stack = error_context_stack;
        if jumped == 0 {
            return Ok(result.assume_init());
        }
        // Not into `context`: it may be SPI's, which is freed before the error is read.
        let transaction = pg_sys::CurTransactionContext;
        pg_sys::CurrentMemoryContext = if transaction.is_null() { pg_sys::TopMemoryContext } else { transaction };
        let error = pg_sys::CopyErrorData();
        pg_sys::CurrentMemoryContext = context;
        pg_sys::FlushErrorState();
        Err(PgError(error))
    }
}

/// Unpacks the five characters of a SQLSTATE.
pub(super) fn unpack_sqlstate(packed: c_int) -> [u8; 5] {
    std::array::from_fn(|i| ((packed >> (6 * i)) & 0x3f) as u8 + b'0')
}

/// The text of an error. It is built first and raised last, so that nothing is left to drop when Postgres jumps.
#[derive(Clone)]
pub struct Raise {
    pub sqlstate: [u8; 5],
    pub message: DbText,
    pub detail: Option<DbText>,
    pub hint: Option<DbText>,
    pub context: Option<DbText>,
}

/// A log level as `ereport` knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Log,
    /// For the client.
    Notice,
    Warning,
    Error,
}

impl Level {
    fn code(self) -> c_int {
        (match self {
            Level::Debug => pg_sys::DEBUG1,
            Level::Log => pg_sys::LOG,
            Level::Notice => pg_sys::NOTICE,
            Level::Warning => pg_sys::WARNING,
            Level::Error => pg_sys::PGERROR,
        }) as c_int
    }
}

/// Copies text into Postgres's memory, which a jump frees, in a form that can be converted to the client's encoding.
fn palloc_text(text: DbText) -> *const c_char {
    let text = text.valid().c_string();
    // SAFETY: pstrdup copies into the current memory context.
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}

impl Raise {
    /// Raises an ERROR.
    ///
    /// # Safety
    /// As [`PgError::rethrow`].
    pub unsafe fn raise(self) -> ! {
        // SAFETY: the caller vouches for the frames above; `report` uses `self` up before it jumps.
        unsafe { self.report(Level::Error) };
        unreachable!("ereport(ERROR) does not return")
    }

    /// Writes a line to the server's log, and to the client. Serves no interrupts, as ereport would do: a process that
    /// logs what it has committed must also come to count it.
    pub fn log(self, level: Level) {
        assert!(level != Level::Error);
        // SAFETY: changes a counter of this process. With interrupts held and below ERROR, nothing jumps.
        unsafe {
            pg_sys::InterruptHoldoffCount += 1;
            self.report(level);
            pg_sys::InterruptHoldoffCount -= 1;
        }
    }

    unsafe fn report(self, level: Level) {
        let [a, b, c, d, e] = self.sqlstate.map(|c| c_int::from(c.wrapping_sub(b'0') & 0x3f));
        let code = a | b << 6 | c << 12 | d << 18 | e << 24;
        let message = palloc_text(self.message);
        let [detail, hint, context] = [self.detail, self.hint, self.context].map(|part| part.map(palloc_text));
        // SAFETY: ereport's sequence; the strings are in Postgres's memory and each is printed through "%s".
        unsafe {
            if errstart(level.code(), std::ptr::null()) {
                errcode(code);
                errmsg_internal(c"%s".as_ptr(), message);
                if let Some(detail) = detail {
                    errdetail_internal(c"%s".as_ptr(), detail);
                }
                if let Some(hint) = hint {
                    errhint(c"%s".as_ptr(), hint);
                }
                if let Some(context) = context {
                    errcontext_msg(c"%s".as_ptr(), context);
                }
                errfinish(c"kongtask".as_ptr(), 0, std::ptr::null());
            }
            // Below ERROR, ereport returns, and a worker logs in a memory context that is never emptied.
            for text in [Some(message), detail, hint, context].into_iter().flatten() {
                pg_sys::pfree(text.cast_mut().cast());
            }
        }
    }
}

/// The reason why a call failed: Postgres has raised an error, or we are about to.
pub enum Failure {
    Postgres(PgError),
    Ours(Raise),
}

impl Failure {
    /// Returns what the error says, also after its transaction has ended.
    pub fn read(self) -> Raise {
        match self {
            Failure::Postgres(error) => error.read(),
            Failure::Ours(raise) => raise,
        }
    }

    /// Raises it.
    ///
    /// # Safety
    /// As [`PgError::rethrow`].
    pub unsafe fn raise(self) -> ! {
        // SAFETY: the caller vouches for the frames above.
        unsafe {
            match self {
                Failure::Postgres(error) => error.rethrow(),
                Failure::Ours(raise) => raise.raise(),
            }
        }
    }
}

/// Returns true if a line of this level would be logged.
pub fn is_logged(level: Level) -> bool {
    // SAFETY: reads the settings.
    unsafe { pg_sys::message_level_is_interesting(level.code()) }
}

/// Logs a line.
pub fn log(level: Level, message: impl Into<DbText>) {
    log_with(level, message, None, None);
}

/// Logs a line with a detail and a hint.
pub fn log_with(level: Level, message: impl Into<DbText>, detail: Option<String>, hint: Option<String>) {
    let sqlstate = if level == Level::Warning { *b"01000" } else { *b"00000" };
    let [detail, hint] = [detail, hint].map(|part| part.map(DbText::from));
    Raise { sqlstate, message: message.into(), detail, hint, context: None }.log(level);
}

#[cfg(test)]
mod tests {
    use super::without_statement;

    #[test]
    fn a_statement_of_ours_is_left_out_of_a_context_in_any_language() {
        let ours = b"insert into q.jobs\nvalues ($1)";
        let context = |text: &str| String::from_utf8(without_statement(text.as_bytes(), ours)).expect("UTF-8");
        let trigger = "PL/pgSQL function app.t() line 1 at RAISE";
        let caller = "SQL statement \"select q.add_job('a')\"\nPL/pgSQL function app.f() line 2 at PERFORM";
        for quoted in [
            "SQL statement \"insert into q.jobs\nvalues ($1)\"",
            "SQL-Anweisung \u{bb}insert into q.jobs\nvalues ($1)\u{ab}",
        ] {
            assert_eq!(context(quoted), "");
            assert_eq!(context(&format!("{trigger}\n{quoted}")), trigger);
            assert_eq!(context(&format!("{quoted}\n{caller}")), caller);
            assert_eq!(context(&format!("{trigger}\n{quoted}\n{caller}\n{quoted}")), format!("{trigger}\n{caller}"));
        }
        assert_eq!(context(caller), caller);
    }
}
