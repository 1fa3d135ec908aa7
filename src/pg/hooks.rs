//! Seeing utility statements before they run.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char};

unsafe extern "C-unwind" {
    // Unguarded: an error of any utility statement must pass through here as it is.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// A statement that concerns us.
pub enum Statement {
    /// Others must leave this database before the statement runs.
    Empties(pg_sys::Oid),
    /// CREATE EXTENSION of ours.
    Creates,
    /// DROP EXTENSION of ours, possibly among others.
    Drops,
}

thread_local! {
    static BEFORE: Cell<Option<fn(Statement)>> = const { Cell::new(None) };
    static PREVIOUS: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Has `before` called before each statement that concerns us runs; it may wait, and it may raise.
pub fn before_statement(before: fn(Statement)) {
    BEFORE.set(Some(before));
    // SAFETY: called once, while libraries are preloaded.
    unsafe {
        PREVIOUS.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: Postgres hands us a valid statement; our part is guarded and holds nothing when what follows jumps.
    unsafe {
        notice((*statement).utilityStmt);
        match PREVIOUS.get() {
            Some(previous) => {
                previous(statement, text, read_only_tree, context, parameters, environment, destination, completion)
            }
            None => standard_ProcessUtility(
                statement,
                text,
                read_only_tree,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn notice(node: *mut pg_sys::Node) {
    // SAFETY: a valid utility statement.
    if let (Some(before), Some(statement)) = (BEFORE.get(), unsafe { classify(node) }) {
        before(statement);
    }
}

const EXTENSION: &[u8] = b"kongtask";

unsafe fn classify(node: *mut pg_sys::Node) -> Option<Statement> {
    // SAFETY: each cast follows the node's tag; names are NUL-terminated where not NULL.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_DropdbStmt => empties((*node.cast::<pg_sys::DropdbStmt>()).dbname),
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = node.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                    return None;
                }
                empties((*rename).subname)
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                let alter = node.cast::<pg_sys::AlterDatabaseStmt>();
                option((*alter).options, &[c"tablespace"]).and_then(|_| empties((*alter).dbname))
            }
            pg_sys::NodeTag::T_CreatedbStmt => {
                let create = node.cast::<pg_sys::CreatedbStmt>();
                option((*create).options, &[c"template"]).and_then(|option| empties(pg_sys::defGetString(option)))
            }
            pg_sys::NodeTag::T_CreateExtensionStmt => {
                let name = (*node.cast::<pg_sys::CreateExtensionStmt>()).extname;
                (CStr::from_ptr(name).to_bytes() == EXTENSION).then_some(Statement::Creates)
            }
            pg_sys::NodeTag::T_DropStmt => {
                let drop = node.cast::<pg_sys::DropStmt>();
                if (*drop).removeType != pg_sys::ObjectType::OBJECT_EXTENSION {
                    return None;
                }
                let objects = (*drop).objects;
                (0..(*objects).length)
                    .any(|i| {
                        let name = (*(*objects).elements.add(i as usize)).ptr_value;
                        CStr::from_ptr(string_value(name.cast())).to_bytes() == EXTENSION
                    })
                    .then_some(Statement::Drops)
            }
            _ => None,
        }
    }
}

unsafe fn string_value(node: *mut pg_sys::Node) -> *const c_char {
    // SAFETY: the grammar makes these String nodes.
    unsafe { (*node.cast::<pg_sys::String>()).sval }
}

unsafe fn option(options: *mut pg_sys::List, names: &[&CStr]) -> Option<*mut pg_sys::DefElem> {
    if options.is_null() {
        return None;
    }
    // SAFETY: a list of DefElem.
    unsafe {
        (0..(*options).length)
            .map(|i| (*(*options).elements.add(i as usize)).ptr_value.cast::<pg_sys::DefElem>())
            .find(|&element| names.contains(&CStr::from_ptr((*element).defname)))
    }
}

unsafe fn empties(name: *const c_char) -> Option<Statement> {
    if name.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated name; a catalog look-up within the statement's transaction.
    let database = unsafe { pg_sys::get_database_oid(name, true) };
    (database != pg_sys::InvalidOid).then_some(Statement::Empties(database))
}
