//! Reading rows in the order of an index, without planner and executor: the index is read from exactly where it is to be,
//! and no further than the rows that are asked for. A statement cannot say that: where two indexes have the same order,
//! the planner chooses by statistics, which are older than the rows.

use super::catch::{PgError, catch};
use super::heap::RowAddress;
use super::spi::Value;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn table_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn table_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn index_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn index_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn systable_beginscan_ordered(
        heap: pg_sys::Relation,
        index: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        count: c_int,
        keys: *mut pg_sys::ScanKeyData,
    ) -> pg_sys::SysScanDesc;
    fn systable_getnext_ordered(scan: pg_sys::SysScanDesc, direction: pg_sys::ScanDirection::Type)
    -> pg_sys::HeapTuple;
    fn systable_endscan_ordered(scan: pg_sys::SysScanDesc);
    pub(super) fn ScanKeyEntryInitialize(
        key: *mut pg_sys::ScanKeyData,
        flags: c_int,
        attribute: i16,
        strategy: u16,
        subtype: Oid,
        collation: Oid,
        function: Oid,
        argument: Datum,
    );
    fn heap_deform_tuple(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc, values: *mut Datum, nulls: *mut bool);
}

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
/// Held until the transaction ends.
const KEPT: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

/// A comparison of a column with a value of its type.
#[derive(Clone, Copy)]
pub struct Condition {
    pub attribute: i16,
    pub strategy: u32,
    /// The function of the operator.
    pub function: u32,
    pub value: Datum,
}

/// A scan of a btree index, by the active snapshot of when it began.
pub struct IndexScan {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    scan: pg_sys::SysScanDesc,
    values: Vec<Datum>,
    nulls: Vec<bool>,
    at: pg_sys::ItemPointerData,
}

impl IndexScan {
    const MOST: usize = 4;

    /// Begins a scan for rows that meet all conditions: four at most, of columns of the index. Texts are compared by the
    /// collation of the index's first column. Checks no privileges.
    pub fn begin(table: Oid, index: Oid, conditions: &[Condition]) -> Result<IndexScan, PgError> {
        let count = conditions.len();
        assert!(count <= Self::MOST);
        // SAFETY: in the closure are C calls, plain arrays and references only; what is open when one of them raises is
        // closed by the transaction's end.
        unsafe {
            let (table, index, scan) = catch(|| {
                let table = table_open(table, LOCK);
                let index = index_open(index, LOCK);
                let collation = *(*index).rd_indcollation;
                let mut keys = std::mem::zeroed::<[pg_sys::ScanKeyData; Self::MOST]>();
                for (key, condition) in keys.iter_mut().zip(conditions) {
                    let &Condition { attribute, strategy, function, value } = condition;
                    let function = Oid::from(function);
                    ScanKeyEntryInitialize(
                        key,
                        0,
                        attribute,
                        strategy as u16,
                        pg_sys::InvalidOid,
                        collation,
                        function,
                        value,
                    );
                }
                let snapshot = pg_sys::GetActiveSnapshot();
                let scan = systable_beginscan_ordered(table, index, snapshot, count as c_int, keys.as_mut_ptr());
                (table, index, scan)
            })?;
            let columns = (*(*table).rd_att).natts as usize;
            let (values, nulls) = (vec![Datum::null(); columns], vec![true; columns]);
            Ok(IndexScan { table, index, scan, values, nulls, at: pg_sys::ItemPointerData::default() })
        }
    }

    /// Reads the next row. Returns false if there is none.
    pub fn next(&mut self) -> Result<bool, PgError> {
        let (values, nulls, at) = (self.values.as_mut_ptr(), self.nulls.as_mut_ptr(), &raw mut self.at);
        // SAFETY: as in `begin`; there is room for each column of the table, whose lock is held.
        unsafe {
            catch(|| {
                let tuple = systable_getnext_ordered(self.scan, pg_sys::ScanDirection::ForwardScanDirection);
                if !tuple.is_null() {
                    heap_deform_tuple(tuple, (*self.table).rd_att, values, nulls);
                    *at = (*tuple).t_self;
                }
                !tuple.is_null()
            })
        }
    }

    /// Returns where the row is.
    pub fn address(&self) -> RowAddress {
        RowAddress::of(self.at)
    }

    /// Returns a column of the row, by its number (from 1). By-reference values live until the next row is read.
    pub fn value(&self, attribute: i16) -> Value {
        let at = usize::from(attribute.unsigned_abs()) - 1;
        (!self.nulls[at]).then(|| self.values[at])
    }

    /// Ends the scan. One that is dropped instead ends with its transaction.
    pub fn end(self) -> Result<(), PgError> {
        // SAFETY: as in `begin`.
        unsafe {
            catch(|| {
                systable_endscan_ordered(self.scan);
                index_close(self.index, KEPT);
                table_close(self.table, KEPT);
            })
        }
    }
}
