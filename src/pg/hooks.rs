//! Sees utility statements before they run. pgrx's hooks run within its guard, which every error of a utility statement
//! would pass through.

use super::catch::Failure;
use super::function::guarded;
use super::text::DbText;
use super::xact;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char};

unsafe extern "C-unwind" {
    // Unguarded: an error of a utility statement must pass through here unchanged.
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

/// A utility statement that concerns the extension.
pub enum Statement {
    /// It needs this database empty of other sessions.
    Empties(pg_sys::Oid),
    /// CREATE EXTENSION kongtask.
    Creates,
    /// ALTER EXTENSION kongtask UPDATE.
    Updates,
    /// DROP EXTENSION kongtask, possibly with others. `restrict`: of no other, and without CASCADE.
    Drops { restrict: bool },
    /// DROP SCHEMA ... CASCADE of these schemas.
    DropsSchemas(Vec<DbText>),
    /// DROP OWNED BY these roles. `restrict`: without CASCADE.
    DropsOwned { roles: Vec<pg_sys::Oid>, restrict: bool },
    /// COMMIT PREPARED, after it has run.
    HasCommittedPrepared,
    /// COPY FROM of a dump, into a table named with its schema, as dumps do.
    Loads { schema: DbText, table: DbText },
    /// A statement of a dump's post-data section: it makes an index, a constraint or a trigger.
    Completes,
    /// CREATE, ALTER or DROP SUBSCRIPTION.
    ChangesSubscriptions,
}

type Before = fn(Statement) -> Result<(), Failure>;

thread_local! {
    static BEFORE: Cell<Option<Before>> = const { Cell::new(None) };
    static PREVIOUS: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Calls `before` before each statement that concerns the extension (COMMIT PREPARED: after it). It may wait, and the
/// error that it returns is raised.
pub fn before_statement(before: Before) {
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
        let node = (*statement).utilityStmt;
        let commits_prepared = (*node).type_ == pg_sys::NodeTag::T_TransactionStmt
            && (*node.cast::<pg_sys::TransactionStmt>()).kind
                == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED;
        notice(node);
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
        if commits_prepared {
            notice_committed();
        }
    }
}

unsafe fn notice_committed() {
    // SAFETY: the caller vouches for its frame.
    unsafe { tell(|| Some(Statement::HasCommittedPrepared)) }
}

unsafe fn notice(node: *mut pg_sys::Node) {
    // SAFETY: a valid utility statement; the caller vouches for its frame.
    unsafe { tell(|| classify(node)) }
}

/// # Safety
/// It raises what fails: the caller's frames hold nothing that must be dropped.
unsafe fn tell(statement: impl FnOnce() -> Option<Statement>) {
    let told = guarded(|| match (BEFORE.get(), statement()) {
        (Some(before), Some(statement)) => before(statement),
        _ => Ok(()),
    });
    if let Err(failure) = told {
        // SAFETY: nothing is left to drop here but the failure itself, which sees to that.
        unsafe { failure.raise() }
    }
}

const EXTENSION: &str = "kongtask";

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
            pg_sys::NodeTag::T_CreateExtensionStmt => creates(node.cast()).then_some(Statement::Creates),
            pg_sys::NodeTag::T_AlterExtensionStmt => {
                let alter = node.cast::<pg_sys::AlterExtensionStmt>();
                (text((*alter).extname) == *EXTENSION).then_some(Statement::Updates)
            }
            pg_sys::NodeTag::T_DropStmt => {
                let drop = node.cast::<pg_sys::DropStmt>();
                let names = || elements((*drop).objects).map(|name| text(string_value(name.cast())));
                match (*drop).removeType {
                    pg_sys::ObjectType::OBJECT_EXTENSION => {
                        let restrict = (*drop).behavior == pg_sys::DropBehavior::DROP_RESTRICT && names().count() == 1;
                        names().any(|name| name == *EXTENSION).then_some(Statement::Drops { restrict })
                    }
                    pg_sys::ObjectType::OBJECT_SCHEMA if (*drop).behavior == pg_sys::DropBehavior::DROP_CASCADE => {
                        Some(Statement::DropsSchemas(names().collect()))
                    }
                    _ => None,
                }
            }
            pg_sys::NodeTag::T_DropOwnedStmt => {
                let drop = node.cast::<pg_sys::DropOwnedStmt>();
                let role = |node: *mut std::ffi::c_void| pg_sys::get_rolespec_oid(node.cast(), true);
                let restrict = (*drop).behavior == pg_sys::DropBehavior::DROP_RESTRICT;
                Some(Statement::DropsOwned { roles: elements((*drop).roles).map(role).collect(), restrict })
            }
            pg_sys::NodeTag::T_CreateSubscriptionStmt
            | pg_sys::NodeTag::T_AlterSubscriptionStmt
            | pg_sys::NodeTag::T_DropSubscriptionStmt => Some(Statement::ChangesSubscriptions),
            // Dumps turn this off, and hardly any other session does.
            // Scripts of extensions run with it off, and are no dump.
            _ if xact::checks_function_bodies() || pg_sys::creating_extension => None,
            pg_sys::NodeTag::T_CopyStmt => {
                let copy = node.cast::<pg_sys::CopyStmt>();
                let into = (*copy).relation;
                if !(*copy).is_from || into.is_null() || (*into).schemaname.is_null() {
                    return None;
                }
                Some(Statement::Loads { schema: text((*into).schemaname), table: text((*into).relname) })
            }
            pg_sys::NodeTag::T_AlterTableStmt => {
                let adds = |command: *mut std::ffi::c_void| {
                    (*command.cast::<pg_sys::AlterTableCmd>()).subtype == pg_sys::AlterTableType::AT_AddConstraint
                };
                let alter = node.cast::<pg_sys::AlterTableStmt>();
                elements((*alter).cmds).any(adds).then_some(Statement::Completes)
            }
            pg_sys::NodeTag::T_IndexStmt
            | pg_sys::NodeTag::T_CreateTrigStmt
            | pg_sys::NodeTag::T_CreateEventTrigStmt
            | pg_sys::NodeTag::T_RuleStmt
            | pg_sys::NodeTag::T_CreatePolicyStmt
            | pg_sys::NodeTag::T_RefreshMatViewStmt => Some(Statement::Completes),
            _ => None,
        }
    }
}

/// Returns the utility statements that the client is running, without those that its functions run.
fn client_statements() -> impl Iterator<Item = *mut pg_sys::Node> {
    // SAFETY: the portal that runs the client's statement, if any, with its list of PlannedStmt.
    unsafe {
        let portal = pg_sys::ActivePortal;
        elements(if portal.is_null() { std::ptr::null_mut() } else { (*portal).stmts })
            .map(|statement| (*statement.cast::<pg_sys::PlannedStmt>()).utilityStmt)
            .filter(|node| !node.is_null())
    }
}

/// Returns true if the CREATE EXTENSION kongtask that the client is running has a SCHEMA clause. `None` if that is
/// unknown, as a function runs it, for example.
pub fn create_extension_names_schema() -> Option<bool> {
    // SAFETY: casts follow the node's tag.
    client_statements()
        .filter(|&node| unsafe { (*node).type_ } == pg_sys::NodeTag::T_CreateExtensionStmt)
        .map(|node| node.cast::<pg_sys::CreateExtensionStmt>())
        .find(|&statement| unsafe { creates(statement) })
        .map(|statement| unsafe { option((*statement).options, &[c"schema"]) }.is_some())
}

unsafe fn creates(statement: *mut pg_sys::CreateExtensionStmt) -> bool {
    // SAFETY: a valid statement.
    unsafe { text((*statement).extname) == *EXTENSION }
}

unsafe fn text(name: *const c_char) -> DbText {
    // SAFETY: a NUL-terminated name.
    DbText::of_c(unsafe { CStr::from_ptr(name) })
}

/// Returns the elements of a list of pointers. Not pgrx's List, which is bound to a memory context that must be named.
unsafe fn elements(list: *mut pg_sys::List) -> impl Iterator<Item = *mut std::ffi::c_void> {
    // SAFETY: NIL is null; otherwise it is a list.
    let length = if list.is_null() { 0 } else { unsafe { (*list).length } };
    // SAFETY: the list has as many elements as it says.
    (0..length as usize).map(move |i| unsafe { (*(*list).elements.add(i)).ptr_value })
}

unsafe fn string_value(node: *mut pg_sys::Node) -> *const c_char {
    // SAFETY: the grammar makes these String nodes.
    unsafe { (*node.cast::<pg_sys::String>()).sval }
}

unsafe fn option(options: *mut pg_sys::List, names: &[&CStr]) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: a list of DefElem.
    unsafe {
        elements(options)
            .map(|element| element.cast::<pg_sys::DefElem>())
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
