//! How jobs run: taken from the ready list, in place or claimed, alone, in batches or in sets, and what becomes of their failures.

mod batches;
mod cancel;
mod claimed;
mod exactly_once;
mod forbidden_flags;
mod handlers;
mod in_place;
mod keys;
mod marks;
mod pauses;
mod payloads;
mod procedures;
mod progress;
mod ready_list;
mod redrive;
mod retries;
mod sessions;
mod sets;
mod table_shape;
mod task_options;
mod timeouts_and_cancel;
