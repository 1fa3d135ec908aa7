//! Roles and privileges. Privileges rise for the queue's own statements, and never for a user's. pgrx has no wrappers.

use super::catalog::quoted;
use super::text::DbText;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// While it exists, statements run as another role. Dropping it restores the former one, and so does the abort of a
/// transaction that fails meanwhile.
pub struct As {
    role: pg_sys::Oid,
    security_context: i32,
}

impl As {
    /// Becomes `role`, with SET ROLE forbidden (as in a SECURITY DEFINER function).
    pub fn role(role: pg_sys::Oid) -> As {
        let mut former = As { role: pg_sys::InvalidOid, security_context: 0 };
        // SAFETY: reads and sets two variables.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut former.role, &mut former.security_context);
            let mut context = former.security_context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
            if !pg_sys::superuser_arg(role) {
                // Deferred triggers of the tables must not wait until they would run as the former role.
                context |= pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
            }
            pg_sys::SetUserIdAndSecContext(role, context);
        }
        former
    }
}

impl Drop for As {
    fn drop(&mut self) {
        // SAFETY: puts back what `role` read.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.security_context) }
    }
}

/// Returns the current role.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads a variable.
    unsafe { pg_sys::GetUserId() }
}

pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up, within a transaction.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Returns true if `role` has the privileges of `of`: it is that role, an inheriting member of it, or a superuser.
pub fn has_privileges_of(role: pg_sys::Oid, of: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up, within a transaction.
    unsafe { pg_sys::has_privs_of_role(role, of) }
}

/// Returns true if the current role may read a table, and whether row level security applies to it there.
pub fn may_read(table: pg_sys::Oid) -> (bool, bool) {
    // SAFETY: catalog look-ups, within a transaction; told to raise nothing.
    unsafe {
        let may = pg_sys::pg_class_aclcheck(table, current(), pg_sys::ACL_SELECT as pg_sys::AclMode);
        let security = pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true);
        let is_limited = security == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32;
        (may == pg_sys::AclResult::ACLCHECK_OK, is_limited)
    }
}

/// Returns true if pg_stat_activity shows queries of `of` to the current role.
pub fn may_see_queries_of(of: pg_sys::Oid) -> bool {
    has_privileges_of(current(), pg_sys::ROLE_PG_READ_ALL_STATS.into()) || has_privileges_of(current(), of)
}

/// Returns the role's name; `None` if it has been dropped.
pub fn name(role: pg_sys::Oid) -> Option<DbText> {
    // SAFETY: a catalog look-up, within a transaction; the name is palloc'd.
    let name = unsafe { pg_sys::GetUserNameFromId(role, true) };
    // SAFETY: NUL-terminated where not NULL.
    (!name.is_null()).then(|| DbText::of_c(unsafe { CStr::from_ptr(name) }))
}

/// Returns true if the role exists and has LOGIN.
pub fn can_login(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up, within a transaction; the tuple is read before it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AUTHOID as i32, role.into());
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>();
        let answer = (*form).rolcanlogin;
        pg_sys::ReleaseSysCache(tuple);
        answer
    }
}

/// Returns what `regrole` prints for a role: its name, quoted where SQL needs that, or its number once it is dropped.
pub fn written(role: pg_sys::Oid) -> DbText {
    name(role).map_or_else(|| DbText::from(role.to_u32().to_string()), |name| quoted(&name))
}

/// Returns the role of this name, in the form that `regrole` prints: quoted where SQL needs that. `None` if it does not
/// exist, also for the number that `regrole` prints for a dropped role. To be called within a transaction.
pub fn named(text: &DbText) -> Option<pg_sys::Oid> {
    let name = CString::new(unquoted(text.as_bytes())?).ok()?;
    // SAFETY: a catalog look-up, by a NUL-terminated name.
    let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (role != pg_sys::InvalidOid).then_some(role)
}

/// Returns the name that an SQL identifier stands for; `None` if it is not one.
fn unquoted(identifier: &[u8]) -> Option<Vec<u8>> {
    if let [b'"', inner @ .., b'"'] = identifier {
        let mut name = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(&byte) = bytes.next() {
            if byte == b'"' && bytes.next() != Some(&b'"') {
                return None;
            }
            name.push(byte);
        }
        return (!name.is_empty()).then_some(name);
    }
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_' || !byte.is_ascii();
    let may_follow = |byte: &u8| is_letter(byte) || byte.is_ascii_digit() || *byte == b'$';
    let is_identifier = identifier.first().is_some_and(is_letter) && identifier.iter().all(may_follow);
    is_identifier.then(|| identifier.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::unquoted;

    #[test]
    fn identifiers_are_read_as_sql_does() {
        let read = |text: &str| unquoted(text.as_bytes()).map(|name| String::from_utf8(name).expect("UTF-8"));
        for (text, name) in [("alice", "alice"), ("Alice", "alice"), ("\"Alice\"", "Alice"), ("\"a\"\"b c\"", "a\"b c")]
        {
            assert_eq!(read(text).as_deref(), Some(name), "{text}");
        }
        assert_eq!(read("müller").as_deref(), Some("müller"));
        for text in ["", "\"", "\"\"", "16384", "-", "a b", "a.b", "\"a\"b\""] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
