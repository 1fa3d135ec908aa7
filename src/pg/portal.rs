//! Statements run as a client's are: at the top level, where a procedure may end transactions, and VACUUM may run. Not
//! SPI: where no statement of a client is above it, plpgsql finds no portal to take a new snapshot for after a COMMIT.
//!
//! Both functions follow Postgres's exec_simple_query. They begin in a transaction that has no snapshot yet, and end in
//! one that is not committed: the statements' last.

use super::catch::{PgError, catch};
use super::version::portal_run;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn StartTransactionCommand();
    fn CommitTransactionCommand();
    fn BeginImplicitTransactionBlock();
    fn EndImplicitTransactionBlock();
    fn IsTransactionBlock() -> bool;
    fn IsTransactionState() -> bool;
    fn CommandCounterIncrement();
    fn GetTransactionSnapshot() -> pg_sys::Snapshot;
    fn PushActiveSnapshot(snapshot: pg_sys::Snapshot);
    fn PopActiveSnapshot();
    fn ProcessInterrupts();
    fn pg_parse_query(text: *const c_char) -> *mut pg_sys::List;
    fn pg_analyze_and_rewrite_fixedparams(
        statement: *mut pg_sys::RawStmt,
        text: *const c_char,
        types: *const Oid,
        count: c_int,
        environment: *mut pg_sys::QueryEnvironment,
    ) -> *mut pg_sys::List;
    fn pg_plan_queries(
        queries: *mut pg_sys::List,
        text: *const c_char,
        options: c_int,
        params: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::List;
    fn analyze_requires_snapshot(statement: *mut pg_sys::RawStmt) -> bool;
    fn CreateCommandTag(statement: *mut pg_sys::Node) -> pg_sys::CommandTag::Type;
    fn CreatePortal(name: *const c_char, replaces: bool, silently: bool) -> pg_sys::Portal;
    fn PortalDefineQuery(
        portal: pg_sys::Portal,
        prepared: *const c_char,
        text: *const c_char,
        tag: pg_sys::CommandTag::Type,
        statements: *mut pg_sys::List,
        plan: *mut pg_sys::CachedPlan,
    );
    fn PortalStart(portal: pg_sys::Portal, params: pg_sys::ParamListInfo, flags: c_int, snapshot: pg_sys::Snapshot);
    fn PortalDrop(portal: pg_sys::Portal, is_commit: bool);
    fn makeConst(
        of: Oid,
        modifier: i32,
        collation: Oid,
        length: c_int,
        value: Datum,
        is_null: bool,
        by_value: bool,
    ) -> *mut pg_sys::Const;
    fn makeFuncExpr(
        function: Oid,
        returns: Oid,
        arguments: *mut pg_sys::List,
        collation: Oid,
        input_collation: Oid,
        form: pg_sys::CoercionForm::Type,
    ) -> *mut pg_sys::FuncExpr;
    fn lappend(list: *mut pg_sys::List, value: *mut std::ffi::c_void) -> *mut pg_sys::List;
}

/// While it exists, parse trees and plans are made in memory that outlives the transactions that statements end. It is
/// emptied when the next ones run: a portal that an error has left is dropped by the rollback.
struct Scratch(());

impl Scratch {
    fn enter() -> Scratch {
        thread_local! {
            static CONTEXT: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
        }
        // SAFETY: plain creation, once; the name is static. Nothing of the last use is left but what a rollback has
        // dropped.
        unsafe {
            if CONTEXT.get().is_null() {
                CONTEXT.set(pg_sys::AllocSetContextCreateExtended(
                    pg_sys::TopMemoryContext,
                    c"kongtask call".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                ));
            }
            pg_sys::MemoryContextReset(CONTEXT.get());
            pg_sys::MemoryContextSwitchTo(CONTEXT.get());
        }
        Scratch(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: what was current before may have been freed with its transaction.
        unsafe {
            pg_sys::debug_query_string = std::ptr::null();
            let transaction = pg_sys::CurTransactionContext;
            pg_sys::MemoryContextSwitchTo(if transaction.is_null() { pg_sys::TopMemoryContext } else { transaction });
        }
    }
}

/// CALLs a procedure, which may end transactions. The arguments, each with its type, are all that it takes. They are
/// passed by reference, and must outlive the transactions. `text` stands for the call where a statement is shown.
pub fn call(procedure: Oid, arguments: &[(Oid, Datum)], text: &CStr) -> Result<(), PgError> {
    let _scratch = Scratch::enter();
    let text = text.as_ptr();
    // SAFETY: the closure makes C calls only, and holds nothing that must be dropped; the nodes are made as the parser
    // makes them, in memory that outlives the call.
    unsafe {
        catch(|| {
            let mut constants = std::ptr::null_mut();
            for &(of, value) in arguments {
                let constant = makeConst(of, -1, pg_sys::InvalidOid, -1, value, false, false);
                constants = lappend(constants, constant.cast());
            }
            let statement = pg_sys::palloc0(size_of::<pg_sys::CallStmt>()).cast::<pg_sys::CallStmt>();
            (*statement).type_ = pg_sys::NodeTag::T_CallStmt;
            (*statement).funcexpr = makeFuncExpr(
                procedure,
                pg_sys::VOIDOID,
                constants,
                pg_sys::InvalidOid,
                pg_sys::InvalidOid,
                pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
            );
            let planned = pg_sys::palloc0(size_of::<pg_sys::PlannedStmt>()).cast::<pg_sys::PlannedStmt>();
            (*planned).type_ = pg_sys::NodeTag::T_PlannedStmt;
            (*planned).commandType = pg_sys::CmdType::CMD_UTILITY;
            (*planned).canSetTag = true;
            (*planned).utilityStmt = statement.cast();
            (*planned).stmt_location = -1;
            run_portal(text, statement.cast(), lappend(std::ptr::null_mut(), planned.cast()));
        })
    }
}

/// Why statements were not run, or not to their end.
pub enum Refused {
    Postgres(PgError),
    /// COPY FROM STDIN or TO STDOUT.
    NeedsClient,
    LeavesTransactionOpen,
}

impl From<PgError> for Refused {
    fn from(error: PgError) -> Refused {
        Refused::Postgres(error)
    }
}

/// Runs what a client could send as one simple query: several statements are one transaction, unless they end it.
pub fn run(text: &CStr) -> Result<(), Refused> {
    let _scratch = Scratch::enter();
    let text = text.as_ptr();
    // SAFETY: the closures make C calls only, and hold nothing that must be dropped; the text outlives them.
    unsafe {
        pg_sys::debug_query_string = text;
        let statements = catch(|| pg_parse_query(text))?;
        let count = if statements.is_null() { 0 } else { (*statements).length };
        let statement = |i: c_int| (*(*statements).elements.add(i as usize)).ptr_value.cast::<pg_sys::RawStmt>();
        // Before any is run, and with that perhaps committed.
        if (0..count).any(|i| copies_to_client((*statement(i)).stmt)) {
            return Err(Refused::NeedsClient);
        }
        for i in 0..count {
            let raw = statement(i);
            catch(|| run_one(text, raw, count > 1, i + 1 == count))?;
        }
        if catch(|| IsTransactionBlock())? {
            return Err(Refused::LeavesTransactionOpen);
        }
        catch(|| start())?;
    }
    Ok(())
}

/// Returns true for COPY ... FROM STDIN and TO STDOUT.
///
/// # Safety
/// A node that the parser has made.
unsafe fn copies_to_client(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller vouches for the node.
    unsafe {
        (*statement).type_ == pg_sys::NodeTag::T_CopyStmt && (*statement.cast::<pg_sys::CopyStmt>()).filename.is_null()
    }
}

/// Begins a transaction unless there is one.
unsafe fn start() {
    // SAFETY: called within `catch`.
    unsafe {
        if !IsTransactionState() {
            pg_sys::SetCurrentStatementStartTimestamp();
            in_scratch(|| StartTransactionCommand());
        }
    }
}

/// Keeps the current memory context, which beginning and ending a transaction change.
unsafe fn in_scratch(f: impl FnOnce()) {
    // SAFETY: the context outlives the transaction.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        f();
        pg_sys::CurrentMemoryContext = context;
    }
}

unsafe fn serve_interrupts() {
    // SAFETY: called within `catch`.
    unsafe {
        if pg_sys::InterruptPending != 0 {
            ProcessInterrupts();
        }
    }
}

/// Runs one of several statements.
unsafe fn run_one(text: *const c_char, raw: *mut pg_sys::RawStmt, is_one_of_many: bool, is_last: bool) {
    const PARALLEL_OK: c_int = pg_sys::CURSOR_OPT_PARALLEL_OK as c_int;
    // SAFETY: called within `catch`, with what the parser has made.
    unsafe {
        let ends_transaction = (*(*raw).stmt).type_ == pg_sys::NodeTag::T_TransactionStmt;
        start();
        if is_one_of_many {
            BeginImplicitTransactionBlock();
        }
        serve_interrupts();
        let needs_snapshot = analyze_requires_snapshot(raw);
        if needs_snapshot {
            PushActiveSnapshot(GetTransactionSnapshot());
        }
        let queries = pg_analyze_and_rewrite_fixedparams(raw, text, std::ptr::null(), 0, std::ptr::null_mut());
        let plans = pg_plan_queries(queries, text, PARALLEL_OK, std::ptr::null_mut());
        if needs_snapshot {
            PopActiveSnapshot();
        }
        serve_interrupts();
        run_portal(text, (*raw).stmt, plans);
        if is_last && is_one_of_many {
            EndImplicitTransactionBlock();
        }
        if ends_transaction {
            in_scratch(|| CommitTransactionCommand());
        } else {
            CommandCounterIncrement();
        }
    }
}

/// Runs the plans of one statement, and drops their result.
unsafe fn run_portal(text: *const c_char, statement: *mut pg_sys::Node, plans: *mut pg_sys::List) {
    // SAFETY: called within `catch`, with what the parser has made or could have.
    unsafe {
        let portal = CreatePortal(c"".as_ptr(), true, true);
        // Not one that pg_cursors shows.
        (*portal).visible = false;
        PortalDefineQuery(portal, std::ptr::null(), text, CreateCommandTag(statement), plans, std::ptr::null_mut());
        PortalStart(portal, std::ptr::null_mut(), 0, std::ptr::null_mut());
        portal_run(portal, pg_sys::None_Receiver);
        PortalDrop(portal, false);
    }
}
