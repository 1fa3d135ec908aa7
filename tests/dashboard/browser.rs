//! The pages in a browser: see `make dashboard-test`.
