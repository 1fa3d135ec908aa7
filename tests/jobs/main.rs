//! How jobs run: taken from the ready list, in place or claimed, alone, in batches or in sets, and what becomes of their failures.

mod batches;
mod claimed;
mod exactly_once;
mod forbidden_flags;
mod handlers;
mod in_place;
mod keys;
mod payloads;
mod procedures;
mod ready_list;
mod retries;
mod sessions;
mod sets;
mod timeouts_and_cancel;
