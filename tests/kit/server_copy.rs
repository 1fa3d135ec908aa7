//! Copies of the tested server, whose files a test may change.

use crate::{Server, pg_config, run, shared_folder};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders of a copy that extensions are installed into.
pub struct Folders {
    pub libraries: PathBuf,
    pub extensions: PathBuf,
}

/// Copies the tested server, by links where that will do: a server looks for its files beside its programs.
pub fn copy_server() -> (Server, Folders) {
    let home = shared_folder("kongtask-server-");
    let [programs, libraries, shared] =
        ["--bindir", "--pkglibdir", "--sharedir"].map(|what| PathBuf::from(pg_config(what)));
    let place = |folder: &Path| home.join(folder.strip_prefix("/").expect("an absolute path"));
    for folder in [&programs, &libraries, &shared] {
        fs::create_dir_all(place(folder).parent().expect("a folder")).expect("folders");
    }
    // Programs find out where they are, so that they must be there themselves.
    run(Command::new("cp").arg("-aL").arg(&programs).arg(place(&programs)));
    run(Command::new("cp").arg("-as").arg(&libraries).arg(place(&libraries)));
    run(Command::new("cp").arg("-as").arg(&shared).arg(place(&shared)));
    let folders = Folders { libraries: place(&libraries), extensions: place(&shared).join("extension") };
    (Server(place(&programs)), folders)
}
