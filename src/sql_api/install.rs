//! What the script of CREATE EXTENSION asks.

use crate::error::Error;
use crate::pg::function::Call;
use crate::pg::hooks;
use crate::pg::spi::Value;

/// Whether the CREATE EXTENSION that runs says SCHEMA; NULL where that can't be told.
pub fn schema_is_named(_: &mut Call) -> Result<Value, Error> {
    Ok(hooks::create_extension_names_schema().map(Into::into))
}
