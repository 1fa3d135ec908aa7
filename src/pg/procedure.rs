//! Functions: their entries in the catalog, and calling them. Not pgrx's fn_call, which looks the function up by name at each
//! call, and raises errors as panics.

use super::catch::{PgError, catch};
use super::spi::Value;
use super::text::DbText;
use super::xact::Settings;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, CString, c_char, c_int};

unsafe extern "C-unwind" {
    fn fmgr_info(function: Oid, info: *mut pg_sys::FmgrInfo);
    fn regprocedurein(call: pg_sys::FunctionCallInfo) -> Datum;
    fn construct_array(
        elements: *const Datum,
        count: c_int,
        of: Oid,
        length: c_int,
        by_value: bool,
        alignment: c_char,
    ) -> Datum;
    fn datumCopy(value: Datum, by_value: bool, length: c_int) -> Datum;
    fn jsonb_in(call: pg_sys::FunctionCallInfo) -> Datum;
    fn json_in(call: pg_sys::FunctionCallInfo) -> Datum;
    fn jsonb_out(call: pg_sys::FunctionCallInfo) -> Datum;
    fn deconstruct_array(
        array: *mut pg_sys::ArrayType,
        of: Oid,
        length: c_int,
        by_value: bool,
        alignment: c_char,
        elements: *mut *mut Datum,
        nulls: *mut *mut bool,
        count: *mut c_int,
    );
    fn pg_detoast_datum(datum: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
    fn DirectFunctionCall1Coll(function: pg_sys::PGFunction, collation: Oid, argument: Datum) -> Datum;
}

/// What the catalog says of a function.
pub struct Procedure {
    pub arguments: Vec<Oid>,
    pub returns: Oid,
    pub returns_set: bool,
    /// The language that it is written in.
    pub language: Oid,
    /// Not a procedure, an aggregate or a window function.
    pub is_plain: bool,
    /// One that CALL runs.
    pub is_procedure: bool,
}

/// Looks a function up. Within a transaction.
pub fn look_up(function: Oid) -> Option<Procedure> {
    // SAFETY: a look-up through a system cache; the tuple is read before it is released; proargtypes has no NULLs and
    // no header of its own, so it follows the fixed part.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, function.into());
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let count = usize::try_from((*form).pronargs).unwrap_or(0);
        let arguments = (&raw const (*form).proargtypes.values).cast::<Oid>();
        let found = Procedure {
            arguments: (0..count).map(|i| *arguments.add(i)).collect(),
            returns: (*form).prorettype,
            returns_set: (*form).proretset,
            language: (*form).prolang,
            is_plain: (*form).prokind as u8 == pg_sys::PROKIND_FUNCTION,
            is_procedure: (*form).prokind as u8 == pg_sys::PROKIND_PROCEDURE,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// The name of a language; `None` if it was dropped. Within a transaction.
pub fn language_name(language: Oid) -> Option<CString> {
    // SAFETY: a catalog look-up; the name is palloc'd.
    unsafe {
        let name = pg_sys::get_language_name(language, true);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_owned())
    }
}

/// The function's name with argument types, as [`find`] reads it: `app.send_email(json)`. What is found along `path` is
/// not qualified.
pub fn name(function: Oid, path: &CStr) -> DbText {
    let _path = Settings::with(c"search_path", path);
    // SAFETY: catalog look-ups; the texts are palloc'd.
    unsafe { DbText::of_c(CStr::from_ptr(pg_sys::format_procedure(function))) }
}

/// The function of this name, as the current role finds it. Errors: 42883 if there is none, 42501 if its schema may not
/// be used, and those of a text that is no such name.
pub fn find(name: &DbText, path: &CStr) -> Result<Oid, PgError> {
    let _path = Settings::with(c"search_path", path);
    let name = name.c_string();
    let name = Datum::from(name.as_ptr());
    // SAFETY: the closure is one C call; the text is only read.
    let datum = unsafe { catch(|| DirectFunctionCall1Coll(Some(regprocedurein), pg_sys::InvalidOid, name)) }?;
    Ok(Oid::from(datum.value() as u32))
}

/// A function that is about to be called, once or often, within one transaction. What a language keeps for a caller
/// (plpgsql the compiled function) is kept in it.
pub struct Callable(*mut pg_sys::FmgrInfo);

impl Callable {
    /// Lives as long as the current memory context. Checks no permission.
    pub fn new(function: Oid) -> Result<Callable, PgError> {
        // SAFETY: palloc'd and zeroed; the closure is one C call.
        unsafe {
            let info = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
            catch(|| fmgr_info(function, info))?;
            Ok(Callable(info))
        }
    }

    /// Calls it. The arguments must be of its types, and no more than two.
    pub fn call(&self, arguments: &[Value]) -> Result<Value, PgError> {
        const MOST: usize = 2;
        assert!(arguments.len() <= MOST);
        // SAFETY: the call's frame is palloc'd and zeroed, with room for the arguments; the closure makes C calls only.
        unsafe {
            let frame = pg_sys::palloc0(
                size_of::<pg_sys::FunctionCallInfoBaseData>() + MOST * size_of::<pg_sys::NullableDatum>(),
            )
            .cast::<pg_sys::FunctionCallInfoBaseData>();
            (*frame).flinfo = self.0;
            (*frame).nargs = arguments.len() as i16;
            for (i, argument) in arguments.iter().enumerate() {
                let slot = (*frame).args.as_mut_ptr().add(i);
                (*slot).value = argument.unwrap_or(Datum::from(0));
                (*slot).isnull = argument.is_none();
            }
            let result = catch(|| match (*self.0).fn_addr {
                Some(entry) => entry(frame),
                None => Datum::from(0),
            })?;
            Ok((!(*frame).isnull).then_some(result))
        }
    }
}

/// Calls a function once, as [`Callable`] does.
pub fn call(function: Oid, arguments: &[Value]) -> Result<Value, PgError> {
    Callable::new(function)?.call(arguments)
}

/// A `json` value as `jsonb`.
pub fn jsonb(json: Datum) -> Result<Datum, PgError> {
    // SAFETY: `json` is a varlena of text; the closure is one C call.
    unsafe {
        let text = Datum::from(pg_sys::text_to_cstring(json.cast_mut_ptr()));
        catch(|| DirectFunctionCall1Coll(Some(jsonb_in), pg_sys::InvalidOid, text))
    }
}

/// A `jsonb` value as `json`.
pub fn json(jsonb: Datum) -> Result<Datum, PgError> {
    // SAFETY: `jsonb` is a jsonb; the closure is two C calls, of which the first returns a C string.
    unsafe {
        catch(|| {
            let text = DirectFunctionCall1Coll(Some(jsonb_out), pg_sys::InvalidOid, jsonb);
            Datum::from(pg_sys::cstring_to_text(text.cast_mut_ptr()))
        })
    }
}

/// A text as `json`. Errors: 22P02 if it is none.
pub fn json_of(text: &DbText) -> Result<Datum, PgError> {
    let text = text.c_string();
    let text = Datum::from(text.as_ptr());
    // SAFETY: the closure is one C call, and the text is only read.
    unsafe { catch(|| DirectFunctionCall1Coll(Some(json_in), pg_sys::InvalidOid, text)) }
}

/// A copy of a composite value, in the current memory context.
pub fn copy_row(row: Datum) -> Datum {
    // SAFETY: composites are by-reference varlenas.
    unsafe { datumCopy(row, false, -1) }
}

/// An array of non-null `elements`, by-reference varlenas of type `of`, in the current memory context. Errors: 54000 if
/// it would be too large.
pub fn array(elements: &[Datum], of: Oid) -> Result<Datum, PgError> {
    let (mut length, mut by_value, mut alignment) = (0, false, 0);
    // SAFETY: a catalog look-up, and a copy of values of that type; the closure is one C call.
    unsafe {
        pg_sys::get_typlenbyvalalign(of, &mut length, &mut by_value, &mut alignment);
        let (count, elements, length) = (elements.len() as c_int, elements.as_ptr(), c_int::from(length));
        catch(|| construct_array(elements, count, of, length, by_value, alignment))
    }
}

/// Makes `jsonb` of values of one type.
pub struct ToJsonb {
    of: Oid,
    /// SQL's to_jsonb, which has to be told the type of its argument.
    function: Callable,
}

impl ToJsonb {
    /// Lives as long as the current memory context.
    pub fn of(of: Oid) -> Result<ToJsonb, PgError> {
        let function = Callable::new(pg_sys::F_TO_JSONB.into())?;
        let (mut length, mut by_value) = (0, false);
        // SAFETY: catalog look-ups; palloc'd nodes, of which the function reads the type of the argument.
        unsafe {
            pg_sys::get_typlenbyval(of, &mut length, &mut by_value);
            let none = pg_sys::InvalidOid;
            let argument = pg_sys::makeConst(of, -1, none, length.into(), Datum::from(0), true, by_value);
            let arguments = pg_sys::lappend(std::ptr::null_mut(), argument.cast());
            let form = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
            let call = pg_sys::makeFuncExpr(pg_sys::F_TO_JSONB.into(), pg_sys::JSONBOID, arguments, none, none, form);
            (*function.0).fn_expr = call.cast();
        }
        Ok(ToJsonb { of, function })
    }

    /// Errors: those of a value that `jsonb` cannot have.
    pub fn call(&self, value: Value) -> Result<Value, PgError> {
        match value {
            Some(_) if self.of != pg_sys::JSONBOID => self.function.call(&[value]),
            _ => Ok(value),
        }
    }
}

/// Returns the type of the elements of an array type; `None` if it is none.
pub fn element_type(of: Oid) -> Option<Oid> {
    // SAFETY: a catalog look-up.
    let element = unsafe { pg_sys::get_element_type(of) };
    (element != pg_sys::InvalidOid).then_some(element)
}

/// Returns the elements of an array, in order, whatever its dimensions are. `of` is their type.
pub fn elements(array: Datum, of: Oid) -> Result<Vec<Value>, PgError> {
    let (mut length, mut by_value, mut alignment) = (0, false, 0);
    let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: by the caller's word an array of that type; two arrays of `count` are made of it.
    unsafe {
        pg_sys::get_typlenbyvalalign(of, &mut length, &mut by_value, &mut alignment);
        let length = c_int::from(length);
        catch(|| {
            let array = pg_detoast_datum(array.cast_mut_ptr()).cast();
            deconstruct_array(array, of, length, by_value, alignment, &mut elements, &mut nulls, &mut count);
        })?;
        Ok((0..usize::try_from(count).unwrap_or(0)).map(|at| (!*nulls.add(at)).then(|| *elements.add(at))).collect())
    }
}
