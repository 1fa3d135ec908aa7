//! Functions that the script of CREATE EXTENSION calls.

use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::hooks;
use crate::pg::spi::Value;

/// Returns true if the running CREATE EXTENSION has a SCHEMA clause; NULL if that cannot be known.
pub fn schema_is_named(_: &mut Call) -> Result<Value, Error> {
    Ok(hooks::create_extension_names_schema().map(Into::into))
}
