//! Adds, changes and deletes rows without the executor, for a table whose shape is known. Starting the executor, which parses
//! the conditions of constraints and triggers each time, takes three times as long as the row itself.

use super::catch::{PgError, catch};
use super::index_scan::ScanKeyEntryInitialize;
use super::invalidation::relations_version;
use super::spi::Value;
use super::xact;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ffi::c_int;

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn table_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn table_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn index_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn index_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn heap_form_tuple(descriptor: pg_sys::TupleDesc, values: *const Datum, nulls: *const bool) -> pg_sys::HeapTuple;
    fn heap_insert(
        relation: pg_sys::Relation,
        tuple: pg_sys::HeapTuple,
        command: pg_sys::CommandId,
        options: c_int,
        bulk: pg_sys::BulkInsertState,
    );
    fn index_insert(
        index: pg_sys::Relation,
        values: *const Datum,
        nulls: *const bool,
        tuple: pg_sys::ItemPointer,
        heap: pg_sys::Relation,
        unique: pg_sys::IndexUniqueCheck::Type,
        unchanged: bool,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
    fn heap_copy_tuple_as_datum(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Datum;
    fn nextval_internal(sequence: Oid, check_permissions: bool) -> i64;
    fn systable_beginscan(
        heap: pg_sys::Relation,
        index: Oid,
        by_index: bool,
        snapshot: pg_sys::Snapshot,
        count: c_int,
        keys: *mut pg_sys::ScanKeyData,
    ) -> pg_sys::SysScanDesc;
    fn systable_getnext(scan: pg_sys::SysScanDesc) -> pg_sys::HeapTuple;
    fn systable_endscan(scan: pg_sys::SysScanDesc);
    fn heap_fetch(
        relation: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        tuple: pg_sys::HeapTuple,
        buffer: *mut pg_sys::Buffer,
        keep_buffer: bool,
    ) -> bool;
    fn RelationGetNumberOfBlocksInFork(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
    ) -> pg_sys::BlockNumber;
    fn heap_delete(
        relation: pg_sys::Relation,
        tuple: pg_sys::ItemPointer,
        command: pg_sys::CommandId,
        crosscheck: pg_sys::Snapshot,
        wait: bool,
        failure: *mut pg_sys::TM_FailureData,
        changing_partition: bool,
    ) -> pg_sys::TM_Result::Type;
    fn heap_lock_tuple(
        relation: pg_sys::Relation,
        tuple: pg_sys::HeapTuple,
        command: pg_sys::CommandId,
        mode: pg_sys::LockTupleMode::Type,
        wait: pg_sys::LockWaitPolicy::Type,
        follow_updates: bool,
        buffer: *mut pg_sys::Buffer,
        failure: *mut pg_sys::TM_FailureData,
    ) -> pg_sys::TM_Result::Type;
    fn ReleaseBuffer(buffer: pg_sys::Buffer);
    fn heap_update(
        relation: pg_sys::Relation,
        at: pg_sys::ItemPointer,
        tuple: pg_sys::HeapTuple,
        command: pg_sys::CommandId,
        crosscheck: pg_sys::Snapshot,
        wait: bool,
        failure: *mut pg_sys::TM_FailureData,
        lock: *mut pg_sys::LockTupleMode::Type,
        #[cfg(not(feature = "pg15"))] indexes: *mut pg_sys::TU_UpdateIndexes::Type,
    ) -> pg_sys::TM_Result::Type;
    fn heap_copytuple(tuple: pg_sys::HeapTuple) -> pg_sys::HeapTuple;
    fn heap_modify_tuple(
        tuple: pg_sys::HeapTuple,
        descriptor: pg_sys::TupleDesc,
        values: *const Datum,
        nulls: *const bool,
        replaces: *const bool,
    ) -> pg_sys::HeapTuple;
    fn heap_deform_tuple(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc, values: *mut Datum, nulls: *mut bool);
    fn TransactionIdIsCurrentTransactionId(xid: pg_sys::TransactionId) -> bool;
    fn HeapTupleGetUpdateXid(tuple: pg_sys::HeapTupleHeader) -> pg_sys::TransactionId;
    fn LockRelationOid(relation: Oid, lock: pg_sys::LOCKMODE);
    fn ConditionalLockRelationOid(relation: Oid, lock: pg_sys::LOCKMODE) -> bool;
    fn RelationGetIndexList(relation: pg_sys::Relation) -> *mut pg_sys::List;
    fn BuildIndexInfo(index: pg_sys::Relation) -> *mut pg_sys::IndexInfo;
    fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
    fn CommandCounterIncrement();
    fn GetTopFullTransactionId() -> pg_sys::FullTransactionId;
    fn GlobalVisCheckRemovableFullXid(relation: pg_sys::Relation, transaction: pg_sys::FullTransactionId) -> bool;
}

const LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
/// Held until the transaction ends.
const KEPT: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

/// A btree index that is not deferrable.
pub struct Index<const KEYS: usize> {
    pub oid: Oid,
    pub is_unique: bool,
    /// The attributes of its key.
    pub attributes: [i16; KEYS],
}

/// Returns true if rows may be written now, with the rules of an ordinary session.
pub fn may_write() -> bool {
    // SAFETY: reads two variables.
    unsafe { !pg_sys::XactReadOnly && pg_sys::SessionReplicationRole as u32 == pg_sys::SESSION_REPLICATION_ROLE_ORIGIN }
}

/// Locks a table as an INSERT does. From then on its definition stays, and cached knowledge of it is current.
pub fn lock(table: Oid) -> Result<(), PgError> {
    // SAFETY: the closure is one C call.
    unsafe { catch(|| LockRelationOid(table, LOCK)) }
}

/// Locks a table as a SELECT does.
pub fn lock_to_read(table: Oid) -> Result<(), PgError> {
    // SAFETY: the closure is one C call.
    unsafe { catch(|| LockRelationOid(table, pg_sys::AccessShareLock as pg_sys::LOCKMODE)) }
}

/// Returns false if a table cannot have a row, as it has no page: it is new, or was truncated. Locks it as a SELECT does. For
/// tables that are mostly empty: it takes a fraction of the time that planning a statement does.
pub fn may_have_rows(table: Oid) -> Result<bool, PgError> {
    const READS: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: in the closure are C calls only; an open table is closed by the transaction's end when one of them raises.
    unsafe {
        catch(|| {
            let relation = table_open(table, READS);
            let pages = RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            table_close(relation, KEPT);
            pages > 0
        })
    }
}

/// Locks a table exclusively, as a DROP does. Raises if the wait is cancelled or times out.
pub fn lock_all(table: Oid) {
    // SAFETY: within a utility statement, by pgrx's guarded binding.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE) }
}

/// Locks a table exclusively until the transaction ends, unless another transaction has it locked. Returns true if it is
/// locked. Never waits, so no other session waits behind this one either.
pub fn try_lock_all(table: Oid) -> Result<bool, PgError> {
    // SAFETY: the closure is one C call.
    unsafe { catch(|| ConditionalLockRelationOid(table, pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE)) }
}

/// Returns the next number of a sequence, without a check of privileges.
pub fn next_value(sequence: Oid) -> Result<i64, PgError> {
    // SAFETY: the closure is one C call.
    unsafe { catch(|| nextval_internal(sequence, false)) }
}

/// Adds a row to a table and its indexes, and returns it as a composite in the current memory context. Fires no trigger
/// and checks neither constraints nor privileges. The caller knows that there is nothing to fire or to check, that
/// `values` have the table's types, and that `indexes` are all that the row belongs in. The table must be [`lock`]ed.
/// Locks the indexes as an INSERT does.
pub fn insert<const COLUMNS: usize>(
    table: Oid,
    values: &[Value; COLUMNS],
    wide: &[Index<4>],
    narrow: &[Index<1>],
) -> Result<Datum, PgError> {
    let nulls = values.map(|value| value.is_none());
    let values = values.map(|value| value.unwrap_or(Datum::from(0)));
    // SAFETY: in the closure are C calls, plain arrays and references only; a relation that is open when one of them
    // raises is closed by the transaction's end.
    unsafe {
        catch(|| {
            let relation = table_open(table, LOCK);
            let descriptor = (*relation).rd_att;
            let tuple = heap_form_tuple(descriptor, values.as_ptr(), nulls.as_ptr());
            heap_insert(relation, tuple, GetCurrentCommandId(true), 0, std::ptr::null_mut());
            for index in narrow {
                index.enter(relation, tuple, &values, &nulls, false);
            }
            for index in wide {
                index.enter(relation, tuple, &values, &nulls, false);
            }
            let row = heap_copy_tuple_as_datum(tuple, descriptor);
            table_close(relation, KEPT);
            CommandCounterIncrement();
            row
        })
    }
}

/// Adds a row as [`insert`] does, unless the key of its one index, a unique one, is another row's. Returns where the row is;
/// `None` if another has the key, or another transaction is about to add one. Never waits.
pub fn insert_if_new<const COLUMNS: usize>(
    table: Oid,
    values: &[Value; COLUMNS],
    index: &Index<1>,
) -> Result<Option<RowAddress>, PgError> {
    let nulls = values.map(|value| value.is_none());
    let values = values.map(|value| value.unwrap_or(Datum::from(0)));
    // SAFETY: as in `insert`. If the key is another's, the row is deleted again by the command that follows the one that has
    // added it: its entry points to a dead row, as that of any row whose transaction is rolled back.
    unsafe {
        catch(|| {
            let relation = table_open(table, LOCK);
            let tuple = heap_form_tuple((*relation).rd_att, values.as_ptr(), nulls.as_ptr());
            heap_insert(relation, tuple, GetCurrentCommandId(true), 0, std::ptr::null_mut());
            let partial = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_PARTIAL;
            let is_new = index.enter_as(partial, relation, tuple, &values, &nulls, false);
            let mut at = (*tuple).t_self;
            CommandCounterIncrement();
            if !is_new {
                let mut failure = std::mem::zeroed::<pg_sys::TM_FailureData>();
                let command = GetCurrentCommandId(true);
                heap_delete(relation, &mut at, command, std::ptr::null_mut(), false, &mut failure, false);
                CommandCounterIncrement();
            }
            table_close(relation, KEPT);
            is_new.then(|| RowAddress::of(at))
        })
    }
}

impl<const KEYS: usize> Index<KEYS> {
    /// Enters a row of these values. `is_unchanged` is true for an update that has left the key as it was.
    ///
    /// # Safety
    /// Within the closure of [`catch`], the table being open and the tuple in it.
    unsafe fn enter(
        &self,
        relation: pg_sys::Relation,
        tuple: pg_sys::HeapTuple,
        values: &[Datum],
        nulls: &[bool],
        is_unchanged: bool,
    ) {
        let unique = if self.is_unique {
            pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES
        } else {
            pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO
        };
        // SAFETY: as its caller says.
        unsafe {
            self.enter_as(unique, relation, tuple, values, nulls, is_unchanged);
        }
    }

    /// Enters a row as [`Index::enter`] does. Returns false if the key is another row's already, where `unique` is to tell.
    ///
    /// # Safety
    /// As there.
    unsafe fn enter_as(
        &self,
        unique: pg_sys::IndexUniqueCheck::Type,
        relation: pg_sys::Relation,
        tuple: pg_sys::HeapTuple,
        values: &[Datum],
        nulls: &[bool],
        is_unchanged: bool,
    ) -> bool {
        let keys = self.attributes.map(|attribute| values[attribute as usize - 1]);
        let are_null = self.attributes.map(|attribute| nulls[attribute as usize - 1]);
        // SAFETY: as in `insert`.
        unsafe {
            let mut info = std::mem::zeroed::<pg_sys::IndexInfo>();
            let index = index_open(self.oid, LOCK);
            let (keys, are_null, at) = (keys.as_ptr(), are_null.as_ptr(), &raw mut (*tuple).t_self);
            let is_entered = index_insert(index, keys, are_null, at, relation, unique, is_unchanged, &mut info);
            index_close(index, KEPT);
            is_entered || unique != pg_sys::IndexUniqueCheck::UNIQUE_CHECK_PARTIAL
        }
    }
}

/// Where a version of a row lies in its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowAddress {
    block: u32,
    line: u16,
}

impl RowAddress {
    /// Reads a `tid`.
    pub fn new(datum: Datum) -> RowAddress {
        // SAFETY: by the caller's word a tid.
        RowAddress::of(unsafe { *datum.cast_mut_ptr() })
    }

    pub(super) fn of(at: pg_sys::ItemPointerData) -> RowAddress {
        let pg_sys::ItemPointerData { ip_blkid, ip_posid } = at;
        RowAddress { block: u32::from(ip_blkid.bi_hi) << 16 | u32::from(ip_blkid.bi_lo), line: ip_posid }
    }

    /// Returns it as a number, which is not 0.
    pub fn to_number(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.line)
    }

    /// Returns the address that a number stands for; `None` for 0.
    pub fn of_number(number: u64) -> Option<RowAddress> {
        (number != 0).then_some(RowAddress { block: (number >> 16) as u32, line: number as u16 })
    }

    /// Returns it as a `tid`, in the current memory context.
    pub fn datum(self) -> Datum {
        // SAFETY: a fresh palloc of its size, filled in.
        unsafe {
            let address = pg_sys::palloc(size_of::<pg_sys::ItemPointerData>()).cast::<pg_sys::ItemPointerData>();
            *address = self.pointer();
            Datum::from(address)
        }
    }

    fn pointer(self) -> pg_sys::ItemPointerData {
        let block = pg_sys::BlockIdData { bi_hi: (self.block >> 16) as u16, bi_lo: self.block as u16 };
        pg_sys::ItemPointerData { ip_blkid: block, ip_posid: self.line }
    }
}

/// Returns true if every snapshot in use sees that a transaction has ended, so that rows of a table that it has deleted
/// can be removed. The table must be [`lock`]ed.
pub fn is_removable(table: Oid, transaction: u64) -> Result<bool, PgError> {
    // SAFETY: as in `insert`.
    unsafe {
        catch(|| {
            let relation = table_open(table, KEPT);
            let is_removable =
                GlobalVisCheckRemovableFullXid(relation, pg_sys::FullTransactionId { value: transaction });
            table_close(relation, KEPT);
            is_removable
        })
    }
}

/// Adds rows to a table that has columns of these types, no check, no trigger and no rule, and one index, on its first
/// column. Returns false if the table has become another: then nothing was added, and the caller must use INSERTs. The
/// table must be [`lock`]ed. The rows are visible to the transaction's own statements after its next command.
pub fn append<const COLUMNS: usize>(
    table: Oid,
    types: &[Oid; COLUMNS],
    rows: &[[Value; COLUMNS]],
) -> Result<bool, PgError> {
    // SAFETY: as in `insert`; the table's definition is looked at under its lock.
    unsafe {
        catch(|| {
            let relation = table_open(table, LOCK);
            let mut index = std::ptr::null_mut();
            let mut info = std::ptr::null_mut();
            if is_simple(relation, types) {
                let indexes = RelationGetIndexList(relation);
                if pg_sys::list_length(indexes) == 1 {
                    index = index_open(pg_sys::list_nth_oid(indexes, 0), LOCK);
                    info = BuildIndexInfo(index);
                }
            }
            let fits = !info.is_null() && is_on_first_column(&*info);
            for row in rows.iter().filter(|_| fits) {
                let nulls = row.map(|value| value.is_none());
                let values = row.map(|value| value.unwrap_or(Datum::from(0)));
                let tuple = heap_form_tuple((*relation).rd_att, values.as_ptr(), nulls.as_ptr());
                heap_insert(relation, tuple, GetCurrentCommandId(true), 0, std::ptr::null_mut());
                let (key, is_null, at) = (&raw const values[0], &raw const nulls[0], &raw mut (*tuple).t_self);
                let unique = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO;
                index_insert(index, key, is_null, at, relation, unique, false, info);
                pg_sys::pfree(tuple.cast());
            }
            if !index.is_null() {
                index_close(index, KEPT);
            }
            table_close(relation, KEPT);
            fits
        })
    }
}

/// Returns the current transaction's number, which no other transaction has had.
pub fn current_transaction() -> Result<u64, PgError> {
    // SAFETY: the closure is one C call.
    Ok(unsafe { catch(|| GetTopFullTransactionId())? }.value)
}

/// Makes the changes of the transaction's commands so far visible to what comes next.
pub fn end_command() -> Result<(), PgError> {
    // SAFETY: the closure is one C call.
    unsafe { catch(|| CommandCounterIncrement()) }
}

/// Returns true if a table is a heap of these columns, without check, trigger, rule or row level security.
///
/// # Safety
/// The table is open.
unsafe fn is_simple<const COLUMNS: usize>(relation: pg_sys::Relation, types: &[Oid; COLUMNS]) -> bool {
    // SAFETY: reads the cache's entry of an open table.
    unsafe {
        let (form, descriptor) = ((*relation).rd_rel, (*relation).rd_att);
        let constraints = (*descriptor).constr;
        (*form).relkind as u8 == pg_sys::RELKIND_RELATION
            && (*form).relam == pg_sys::HEAP_TABLE_AM_OID
            && !(*form).relrowsecurity
            && (*relation).trigdesc.is_null()
            && (*relation).rd_rules.is_null()
            && (constraints.is_null() || (*constraints).num_check == 0)
            && (*descriptor).natts as usize == COLUMNS
            && (1..).zip(types).all(|(number, of)| pg_sys::SPI_gettypeid(descriptor, number) == *of)
    }
}

/// Returns true for an index that is not unique, and whose only key is the table's first column.
fn is_on_first_column(index: &pg_sys::IndexInfo) -> bool {
    index.ii_NumIndexAttrs == 1
        && index.ii_NumIndexKeyAttrs == 1
        && index.ii_IndexAttrNumbers[0] == 1
        && index.ii_Expressions.is_null()
        && index.ii_Predicate.is_null()
        && index.ii_ReadyForInserts
        && !index.ii_Unique
        && index.ii_ExclusionOps.is_null()
}

/// A row that was found.
pub struct Found {
    /// The row as a composite, in the memory context that was current.
    pub row: Datum,
    at: pg_sys::ItemPointerData,
}

impl Found {
    pub fn address(&self) -> RowAddress {
        RowAddress::of(self.at)
    }
}

/// What a row's first attribute is.
pub struct FirstColumn {
    equals: u32,
    collation: Oid,
    value: Datum,
}

impl FirstColumn {
    fn number(value: i64) -> FirstColumn {
        FirstColumn { equals: pg_sys::F_INT8EQ, collation: pg_sys::InvalidOid, value: value.into() }
    }

    /// A text, by the collation of the index.
    pub fn text(value: Datum, collation: Oid) -> FirstColumn {
        FirstColumn { equals: pg_sys::F_TEXTEQ, collation, value }
    }

    /// # Safety
    /// Within the closure of [`catch`].
    unsafe fn to_key(&self, key: &mut pg_sys::ScanKeyData) {
        let (strategy, any) = (pg_sys::BTEqualStrategyNumber as u16, pg_sys::InvalidOid);
        // SAFETY: fills in the key.
        unsafe { ScanKeyEntryInitialize(key, 0, 1, strategy, any, self.collation, self.equals.into(), self.value) }
    }
}

/// Finds the row whose first attribute, a bigint, has a value, by the latest snapshot. `index` is a unique index on
/// that attribute. The table must be [`lock`]ed.
pub fn find(table: Oid, index: Oid, value: i64) -> Result<Option<Found>, PgError> {
    find_as(table, index, &FirstColumn::number(value), |tuple, descriptor| {
        // SAFETY: as `find_as` says.
        unsafe { Found { row: heap_copy_tuple_as_datum(tuple, descriptor), at: (*tuple).t_self } }
    })
}

/// Finds a row as [`find`] says. `copy` gets its tuple, which is valid during that call, and the table's descriptor; it
/// may make C calls, and drops nothing.
fn find_as<T>(
    table: Oid,
    index: Oid,
    first: &FirstColumn,
    copy: impl FnOnce(pg_sys::HeapTuple, pg_sys::TupleDesc) -> T,
) -> Result<Option<T>, PgError> {
    // SAFETY: as in `insert`.
    unsafe {
        catch(|| {
            let mut key = std::mem::zeroed::<pg_sys::ScanKeyData>();
            first.to_key(&mut key);
            let relation = table_open(table, LOCK);
            let scan = systable_beginscan(relation, index, true, pg_sys::GetActiveSnapshot(), 1, &mut key);
            let tuple = systable_getnext(scan);
            let found = (!tuple.is_null()).then(|| copy(tuple, (*relation).rd_att));
            systable_endscan(scan);
            table_close(relation, KEPT);
            found
        })
    }
}

/// A row that was found, as it lies in its table.
pub struct Version {
    /// The row as a composite, in the memory context that was current. What is stored apart from it (TOAST) is not read:
    /// it is good for looking at other columns only.
    pub row: Datum,
    tuple: pg_sys::HeapTuple,
}

impl Version {
    /// # Safety
    /// Within the closure of [`catch`], of a valid tuple of an open table.
    unsafe fn copy(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Version {
        // SAFETY: as its caller says. A copy of a row is a composite once its header says so, and the rest of it stays a
        // tuple.
        unsafe {
            let tuple = heap_copytuple(tuple);
            let header = (*tuple).t_data;
            pgrx::varlena::set_varsize_4b(header.cast(), (*tuple).t_len as i32);
            (*header).t_choice.t_datum.datum_typeid = (*descriptor).tdtypeid;
            (*header).t_choice.t_datum.datum_typmod = (*descriptor).tdtypmod;
            Version { row: Datum::from(header), tuple }
        }
    }

    /// Returns what [`delete`] takes.
    pub fn found(&self) -> Found {
        // SAFETY: a tuple that was copied.
        Found { row: self.row, at: unsafe { (*self.tuple).t_self } }
    }
}

/// Does what [`find`] does, for a row that is only looked at, may be [`update`]d, or deleted.
pub fn find_version(table: Oid, index: Oid, value: i64) -> Result<Option<Version>, PgError> {
    find_version_by(table, index, &FirstColumn::number(value))
}

/// Does what [`find_version`] does, for a row whose first attribute may be of another type.
pub fn find_version_by(table: Oid, index: Oid, first: &FirstColumn) -> Result<Option<Version>, PgError> {
    // SAFETY: as `find_as` says.
    find_as(table, index, first, |tuple, descriptor| unsafe { Version::copy(tuple, descriptor) })
}

/// Returns the version of a row that is at an address, if the active snapshot shows one there: it may be another row. The
/// table must be [`lock`]ed.
pub fn version_at(table: Oid, address: RowAddress) -> Result<Option<Version>, PgError> {
    // SAFETY: as `at` says.
    at(table, address, |tuple, descriptor| unsafe { Version::copy(tuple, descriptor) })
}

/// Returns the row that is at an address as [`version_at`] does, with what is stored apart from it.
pub fn found_at(table: Oid, address: RowAddress) -> Result<Option<Found>, PgError> {
    at(table, address, |tuple, descriptor| {
        // SAFETY: as `at` says.
        unsafe { Found { row: heap_copy_tuple_as_datum(tuple, descriptor), at: (*tuple).t_self } }
    })
}

/// Finds the row at an address as [`version_at`] says. `copy` is as for `find_as`.
fn at<T>(
    table: Oid,
    address: RowAddress,
    copy: impl FnOnce(pg_sys::HeapTuple, pg_sys::TupleDesc) -> T,
) -> Result<Option<T>, PgError> {
    xact::at_end(forget_reach);
    // SAFETY: as in `insert`. The buffer that is pinned is released once the tuple is copied.
    unsafe {
        catch(|| {
            let relation = table_open(table, LOCK);
            let mut tuple = std::mem::zeroed::<pg_sys::HeapTupleData>();
            tuple.t_self = address.pointer();
            let mut buffer = 0;
            let found = (reaches(relation, address.block)
                && heap_fetch(relation, pg_sys::GetActiveSnapshot(), &mut tuple, &mut buffer, false))
            .then(|| {
                let copied = copy(&mut tuple, (*relation).rd_att);
                ReleaseBuffer(buffer);
                copied
            });
            table_close(relation, KEPT);
            found
        })
    }
}

thread_local! {
    /// A table of which it is known how many blocks it has at least, and when that was read, as [`relations_version`] counts. The
    /// table is locked until the transaction ends, so that no other transaction makes it shorter. A TRUNCATE of this one is
    /// counted.
    static REACHES: Cell<Option<(Oid, u32, u64)>> = const { Cell::new(None) };
}

fn forget_reach(_committed: bool) {
    REACHES.set(None);
}

/// Returns true if a table has a block. To ask the system each time would take as long as to fetch the row.
///
/// # Safety
/// Within the closure of [`catch`], of an open table that is locked.
unsafe fn reaches(relation: pg_sys::Relation, block: u32) -> bool {
    // SAFETY: as its caller says.
    let (table, blocks) = unsafe {
        let table = (*relation).rd_id;
        if REACHES.get().is_some_and(|(its, blocks, at)| its == table && block < blocks && at == relations_version()) {
            return true;
        }
        (table, RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM))
    };
    // The lock may be a subtransaction's, and end with it.
    if xact::is_at_top() {
        REACHES.set(Some((table, blocks, relations_version())));
    }
    block < blocks
}

/// Changes columns of a row, and returns its new version, in the current memory context; `None` if another transaction
/// has changed or locked it. Never waits. The changes must leave the columns of unique indexes as they are. The rest is as
/// for [`insert`]: `unchanged` and `changed` are the indexes that the row belongs in, of which the former have only columns
/// that keep their values.
pub fn update<const COLUMNS: usize>(
    table: Oid,
    version: &Version,
    changes: &[(i16, Value)],
    unchanged: &[Index<1>],
    changed: &[Index<4>],
) -> Result<Option<Found>, PgError> {
    let (mut values, mut nulls, mut replaces) = ([Datum::from(0); COLUMNS], [false; COLUMNS], [false; COLUMNS]);
    for &(attribute, value) in changes {
        let at = attribute as usize - 1;
        (values[at], nulls[at], replaces[at]) = (value.unwrap_or(Datum::from(0)), value.is_none(), true);
    }
    // SAFETY: as in `insert`; the tuple was copied, and the table has as many columns as the caller says.
    unsafe {
        catch(|| {
            let relation = table_open(table, LOCK);
            let descriptor = (*relation).rd_att;
            let command = GetCurrentCommandId(true);
            let mut failure = std::mem::zeroed::<pg_sys::TM_FailureData>();
            // heap_update can only wait for who has the row locked. Once this transaction has, there is nobody.
            let mut locked = std::mem::zeroed::<pg_sys::HeapTupleData>();
            locked.t_self = (*version.tuple).t_self;
            let mut buffer = 0;
            let mut outcome = heap_lock_tuple(
                relation,
                &mut locked,
                command,
                pg_sys::LockTupleMode::LockTupleNoKeyExclusive,
                pg_sys::LockWaitPolicy::LockWaitSkip,
                false,
                &mut buffer,
                &mut failure,
            );
            ReleaseBuffer(buffer);
            let mut at = locked.t_self;
            let tuple =
                heap_modify_tuple(version.tuple, descriptor, values.as_ptr(), nulls.as_ptr(), replaces.as_ptr());
            if outcome == pg_sys::TM_Result::TM_Ok {
                let mut lock = pg_sys::LockTupleMode::LockTupleExclusive;
                #[cfg(not(feature = "pg15"))]
                let mut indexes = pg_sys::TU_UpdateIndexes::TU_All;
                outcome = heap_update(
                    relation,
                    &mut at,
                    tuple,
                    command,
                    std::ptr::null_mut(),
                    true,
                    &mut failure,
                    &mut lock,
                    #[cfg(not(feature = "pg15"))]
                    &mut indexes,
                );
            }
            let row = (outcome == pg_sys::TM_Result::TM_Ok).then(|| {
                let is_heap_only = u32::from((*(*tuple).t_data).t_infomask2) & pg_sys::HEAP_ONLY_TUPLE != 0;
                if !is_heap_only {
                    heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
                    for index in unchanged {
                        index.enter(relation, tuple, &values, &nulls, true);
                    }
                    for index in changed {
                        index.enter(relation, tuple, &values, &nulls, false);
                    }
                }
                Found { row: heap_copy_tuple_as_datum(tuple, descriptor), at: (*tuple).t_self }
            });
            table_close(relation, KEPT);
            CommandCounterIncrement();
            row
        })
    }
}

/// Returns true if the current transaction has deleted or updated a row whose first attribute, a bigint, has a value.
/// `index` is as in [`find`].
pub fn is_changed_here(table: Oid, index: Oid, value: i64) -> Result<bool, PgError> {
    // SAFETY: as in `insert`; a version of the row is looked at before the scan goes on, and its infomask says what its
    // xmax is.
    unsafe {
        catch(|| {
            let mut key = std::mem::zeroed::<pg_sys::ScanKeyData>();
            FirstColumn::number(value).to_key(&mut key);
            let relation = table_open(table, LOCK);
            // Every version, visible or not.
            let any = &raw mut pg_sys::SnapshotAnyData;
            let scan = systable_beginscan(relation, index, true, any, 1, &mut key);
            let mut is_changed = false;
            loop {
                let tuple = systable_getnext(scan);
                if tuple.is_null() || is_changed {
                    break;
                }
                let header = (*tuple).t_data;
                let (mask, xmax) = (u32::from((*header).t_infomask), (*header).t_choice.t_heap.t_xmax);
                let is_lock = mask & (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY) != 0;
                let is_multi = mask & pg_sys::HEAP_XMAX_IS_MULTI != 0;
                let changed_by = if is_multi && !is_lock { HeapTupleGetUpdateXid(header) } else { xmax };
                is_changed = !is_lock && TransactionIdIsCurrentTransactionId(changed_by);
            }
            systable_endscan(scan);
            table_close(relation, KEPT);
            is_changed
        })
    }
}

/// Deletes a row. Returns false if another transaction has changed or locked it. Never waits. Fires no trigger, as
/// [`insert`].
pub fn delete(table: Oid, found: &Found) -> Result<bool, PgError> {
    let mut at = found.at;
    // SAFETY: as in `insert`.
    unsafe {
        catch(|| {
            let mut failure = std::mem::zeroed::<pg_sys::TM_FailureData>();
            let relation = table_open(table, LOCK);
            let command = GetCurrentCommandId(true);
            let outcome = heap_delete(relation, &mut at, command, std::ptr::null_mut(), false, &mut failure, false);
            table_close(relation, KEPT);
            CommandCounterIncrement();
            outcome == pg_sys::TM_Result::TM_Ok
        })
    }
}
