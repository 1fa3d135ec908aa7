//! The definition of a table, as the caches of this backend have it: columns, defaults, checks, triggers and indexes. A
//! statement on the catalogs says the same, but a session that has just begun takes ten times as long for it as for adding
//! a row.

use super::catalog::{self, first, numbers, of};
use super::catch::{PgError, catch};
use super::text::DbText;
use pgrx::PgTupleDesc;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, CString, c_char, c_void};

// Not pgrx's bindings: see `catch`.
unsafe extern "C-unwind" {
    fn table_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn table_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn RelationGetIndexList(relation: pg_sys::Relation) -> *mut pg_sys::List;
    fn stringToNode(text: *const c_char) -> *mut c_void;
}

/// The caller has the lock.
const LOCKED: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

pub struct Definition {
    /// True for an ordinary table, kept as a heap.
    is_heap: bool,
    has_rules: bool,
    /// True if row level security applies to the table's owner, too.
    forces_row_security: bool,
    pub schema: Oid,
    pub owner: Oid,
    /// In order, dropped ones included.
    pub columns: Vec<Column>,
    /// The defaults of columns, by their numbers.
    pub defaults: Vec<(i16, Expression)>,
    /// The names of the checks.
    pub checks: Vec<DbText>,
    /// In the order in which they fire.
    pub triggers: Vec<Trigger>,
    /// In the order of their names.
    pub indexes: Vec<Index>,
}

pub struct Column {
    pub name: DbText,
    pub kind: Oid,
    /// -1 for a type without a modifier, such as a length.
    pub modifier: i32,
    /// True if it is an identity, or generated from others.
    pub is_made: bool,
}

pub struct Trigger {
    pub name: DbText,
    pub function: Oid,
    /// A set of `pg_sys::TRIGGER_TYPE_...`.
    pub events: u32,
    /// True if it fires in ordinary sessions, and in no other.
    pub fires_in_origin: bool,
}

impl Trigger {
    /// Returns the name of its function, if that is in a schema.
    pub fn function_in(&self, schema: Oid) -> Option<DbText> {
        // SAFETY: look-ups through a system cache; the name is palloc'd.
        unsafe {
            let name = pg_sys::get_func_name(self.function);
            let is_in = !name.is_null() && pg_sys::get_func_namespace(self.function) == schema;
            is_in.then(|| DbText::of_c(CStr::from_ptr(name)))
        }
    }
}

pub struct Index {
    pub oid: Oid,
    pub name: DbText,
    pub is_btree: bool,
    /// True if rows must be entered, and conflicts are found at once.
    pub is_in_use: bool,
    pub is_unique: bool,
    /// True if all rows are in it that belong there.
    pub is_valid: bool,
    /// The numbers of its columns; 0 for an expression.
    pub columns: Vec<i16>,
    /// The collation of its first column.
    pub collation: Oid,
    pub predicate: Option<Expression>,
}

/// An expression, as far as a queue's tables have such ones.
#[derive(PartialEq, Debug)]
pub enum Expression {
    Column(i16),
    /// A value that is passed by itself, of a type.
    Constant(Oid, i64),
    Call(Oid, Vec<Expression>),
    Operator(Oid, Vec<Expression>),
    IsNotNull(Box<Expression>),
    And(Vec<Expression>),
    Other,
}

impl Definition {
    /// Returns true for a heap without rules, and without row security that its owner is under.
    pub fn is_plain(&self) -> bool {
        self.is_heap && !self.has_rules && !self.forces_row_security
    }

    /// Returns true if the columns are exactly these, of types without a modifier, and none is generated.
    pub fn has_columns(&self, columns: &[(&str, Oid)]) -> bool {
        self.columns.len() == columns.len()
            && self.columns.iter().zip(columns).all(|(column, (name, kind))| {
                column.name == **name && column.kind == *kind && column.modifier == -1 && !column.is_made
            })
    }

    /// Returns true if exactly these triggers fire at any of some events, in this order, each with its function in the
    /// schema of the table.
    pub fn fires(&self, events: u32, triggers: &[(&str, &str)]) -> bool {
        let firing: Vec<&Trigger> = self.triggers.iter().filter(|trigger| trigger.events & events != 0).collect();
        firing.len() == triggers.len()
            && firing.into_iter().zip(triggers).all(|(trigger, (name, function))| {
                trigger.name == **name
                    && trigger.fires_in_origin
                    && trigger.function_in(self.schema).is_some_and(|its| its == **function)
            })
    }

    /// Reads the definition of a table, which must be locked.
    pub fn of(table: Oid) -> Result<Definition, PgError> {
        // SAFETY: in the closures are C calls only. The cache's entry may be built anew whenever Postgres is called, so all of
        // it is copied before.
        unsafe {
            let (relation, indexes) = catch(|| {
                let relation = table_open(table, LOCKED);
                (relation, RelationGetIndexList(relation))
            })?;
            let form = &*(*relation).rd_rel;
            let mut definition = Definition {
                is_heap: form.relkind as u8 == pg_sys::RELKIND_RELATION && form.relam == pg_sys::HEAP_TABLE_AM_OID,
                has_rules: form.relhasrules,
                forces_row_security: form.relforcerowsecurity,
                schema: form.relnamespace,
                owner: form.relowner,
                columns: columns_in((*relation).rd_att),
                defaults: Vec::new(),
                checks: checks_in((*relation).rd_att),
                triggers: triggers_in((*relation).trigdesc),
                indexes: Vec::new(),
            };
            let defaults = defaults_in((*relation).rd_att);
            catch(|| table_close(relation, LOCKED))?;
            for (column, text) in defaults {
                definition.defaults.push((column, Expression::read(&text)?));
            }
            definition.defaults.sort_unstable_by_key(|(column, _)| *column);
            for at in 0..pg_sys::list_length(indexes) {
                definition.indexes.extend(Index::read(pg_sys::list_nth_oid(indexes, at))?);
            }
            definition.indexes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            Ok(definition)
        }
    }
}

/// Returns the names of a table's columns, in order. The table must be locked.
pub fn column_names(table: Oid) -> Result<Vec<DbText>, PgError> {
    // SAFETY: as in `Definition::of`.
    unsafe {
        let relation = catch(|| table_open(table, LOCKED))?;
        let columns = columns_in((*relation).rd_att);
        catch(|| table_close(relation, LOCKED))?;
        Ok(columns.into_iter().map(|column| column.name).collect())
    }
}

unsafe fn columns_in(descriptor: pg_sys::TupleDesc) -> Vec<Column> {
    // SAFETY: by the caller's word a relation's; names are NUL-terminated.
    unsafe {
        let column = |attribute: &pg_sys::FormData_pg_attribute| Column {
            name: DbText::of_c(CStr::from_ptr(attribute.attname.data.as_ptr())),
            kind: attribute.atttypid,
            modifier: attribute.atttypmod,
            is_made: attribute.attgenerated != 0 || attribute.attidentity != 0,
        };
        PgTupleDesc::from_pg_unchecked(descriptor).iter().map(column).collect()
    }
}

unsafe fn defaults_in(descriptor: pg_sys::TupleDesc) -> Vec<(i16, CString)> {
    // SAFETY: as in `columns_in`; of so many defaults, each with its text.
    unsafe {
        let Some(constraints) = (*descriptor).constr.as_ref() else { return Vec::new() };
        (0..usize::from(constraints.num_defval))
            .map(|at| &*constraints.defval.add(at))
            .filter(|default| !default.adbin.is_null())
            .map(|default| (default.adnum, CStr::from_ptr(default.adbin).to_owned()))
            .collect()
    }
}

unsafe fn checks_in(descriptor: pg_sys::TupleDesc) -> Vec<DbText> {
    // SAFETY: as in `columns_in`; of so many checks, each with its name.
    unsafe {
        let Some(constraints) = (*descriptor).constr.as_ref() else { return Vec::new() };
        (0..usize::from(constraints.num_check))
            .map(|at| DbText::of_c(CStr::from_ptr((*constraints.check.add(at)).ccname)))
            .collect()
    }
}

unsafe fn triggers_in(triggers: *const pg_sys::TriggerDesc) -> Vec<Trigger> {
    // SAFETY: by the caller's word a relation's, or null if it has none; of so many triggers, each with its name.
    unsafe {
        let Some(triggers) = triggers.as_ref() else { return Vec::new() };
        let trigger = |at: usize| {
            let trigger = &*triggers.triggers.add(at);
            Trigger {
                name: DbText::of_c(CStr::from_ptr(trigger.tgname)),
                function: trigger.tgfoid,
                events: trigger.tgtype as u32,
                fires_in_origin: trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ON_ORIGIN,
            }
        };
        let mut triggers: Vec<Trigger> = (0..triggers.numtriggers as usize).map(trigger).collect();
        triggers.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        triggers
    }
}

impl Index {
    fn read(oid: Oid) -> Result<Option<Index>, PgError> {
        use pg_sys::SysCacheIdentifier::{INDEXRELID, RELOID};
        // SAFETY: look-ups through system caches; tuples are read before they are released.
        unsafe {
            let class = pg_sys::SearchSysCache1(RELOID as i32, oid.into());
            if class.is_null() {
                return Ok(None);
            }
            let form = &*pg_sys::GETSTRUCT(class).cast::<pg_sys::FormData_pg_class>();
            let name = DbText::of_c(CStr::from_ptr(form.relname.data.as_ptr()));
            let is_btree = form.relam == pg_sys::BTREE_AM_OID;
            pg_sys::ReleaseSysCache(class);
            let tuple = pg_sys::SearchSysCache1(INDEXRELID as i32, oid.into());
            if tuple.is_null() {
                return Ok(None);
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_index>();
            let value = |attribute: u32| {
                let mut is_null = false;
                let value = pg_sys::SysCacheGetAttr(INDEXRELID as i32, tuple, attribute as i16, &mut is_null);
                (!is_null).then_some(value)
            };
            let predicate: Option<DbText> = of(value(pg_sys::Anum_pg_index_indpred));
            let index = Index {
                oid,
                name,
                is_btree,
                is_in_use: form.indisready && form.indislive && form.indimmediate,
                is_unique: form.indisunique,
                is_valid: form.indisvalid,
                columns: numbers(value(pg_sys::Anum_pg_index_indkey)),
                collation: first(value(pg_sys::Anum_pg_index_indcollation)),
                predicate: None,
            };
            pg_sys::ReleaseSysCache(tuple);
            let predicate = predicate.map(|text| Expression::read(&text.c_string())).transpose()?;
            Ok(Some(Index { predicate, ..index }))
        }
    }
}

impl Expression {
    /// Reads an expression as the catalogs have it.
    fn read(text: &CStr) -> Result<Expression, PgError> {
        // SAFETY: the closure is one C call; by the caller's word the text of a node.
        unsafe { Ok(Expression::of(catch(|| stringToNode(text.as_ptr()))?.cast())) }
    }

    unsafe fn of(node: *const pg_sys::Node) -> Expression {
        // SAFETY: each cast follows the node's tag.
        unsafe {
            match node.as_ref().map(|node| node.type_) {
                Some(pg_sys::NodeTag::T_Var) => Expression::Column((*node.cast::<pg_sys::Var>()).varattno),
                Some(pg_sys::NodeTag::T_Const) => {
                    let constant = &*node.cast::<pg_sys::Const>();
                    if constant.constisnull || !constant.constbyval {
                        return Expression::Other;
                    }
                    Expression::Constant(constant.consttype, constant.constvalue.value() as i64)
                }
                Some(pg_sys::NodeTag::T_FuncExpr) => {
                    let call = &*node.cast::<pg_sys::FuncExpr>();
                    Expression::Call(call.funcid, Expression::all(call.args))
                }
                Some(pg_sys::NodeTag::T_OpExpr) => {
                    let operation = &*node.cast::<pg_sys::OpExpr>();
                    Expression::Operator(operation.opno, Expression::all(operation.args))
                }
                Some(pg_sys::NodeTag::T_NullTest) => {
                    let test = &*node.cast::<pg_sys::NullTest>();
                    if test.nulltesttype != pg_sys::NullTestType::IS_NOT_NULL {
                        return Expression::Other;
                    }
                    Expression::IsNotNull(Box::new(Expression::of(test.arg.cast())))
                }
                Some(pg_sys::NodeTag::T_BoolExpr) => {
                    let joined = &*node.cast::<pg_sys::BoolExpr>();
                    if joined.boolop != pg_sys::BoolExprType::AND_EXPR {
                        return Expression::Other;
                    }
                    Expression::And(Expression::all(joined.args))
                }
                _ => Expression::Other,
            }
        }
    }

    unsafe fn all(list: *const pg_sys::List) -> Vec<Expression> {
        // SAFETY: NIL, or a list of nodes.
        unsafe {
            let length = if list.is_null() { 0 } else { (*list).length as usize };
            (0..length).map(|at| Expression::of((*(*list).elements.add(at)).ptr_value.cast())).collect()
        }
    }
}

/// Returns true if a role may do all of this to a table: a set of `pg_sys::ACL_...`.
pub fn may(role: Oid, table: Oid, what: u32) -> bool {
    let all = pg_sys::AclMode::from(what);
    // SAFETY: a catalog look-up, within a transaction.
    unsafe { pg_sys::pg_class_aclmask(table, role, all, pg_sys::AclMaskHow::ACLMASK_ALL) == all }
}

/// Returns true if a sequence belongs to the owner of a table.
pub fn is_sequence_of(sequence: Oid, owner: Oid) -> bool {
    // SAFETY: a look-up through a system cache.
    let kind = unsafe { pg_sys::get_rel_relkind(sequence) };
    kind as u8 == pg_sys::RELKIND_SEQUENCE && catalog::owner(sequence) == Some(owner)
}
