//! scripts/install, by which `make install` puts the extension into a server.

use kongtask_tests::run_script;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn what_a_server_has_open_is_replaced_and_not_written_over() {
    let home = tempfile::tempdir_in("/tmp").expect("a folder");
    let server = home.path().join("server");
    let package = home.path().join("package");
    let packaged = package.join(server.strip_prefix("/").expect("an absolute path"));
    for folder in ["lib", "share/extension"] {
        fs::create_dir_all(server.join(folder)).expect("a folder");
        fs::create_dir_all(packaged.join(folder)).expect("a folder");
    }
    let files = ["lib/kongtask.so", "share/extension/kongtask.control", "share/extension/kongtask--1.sql"];
    for file in files {
        fs::write(packaged.join(file), "new").expect("a file");
    }
    let library = server.join(files[0]);
    fs::write(&library, "old").expect("a file");
    let mut open = File::open(&library).expect("the old library");
    let before = open.metadata().expect("its inode").ino();

    run_script("install", &[package.to_str().expect("UTF-8")]);

    for (file, mode) in files.iter().zip([0o755, 0o644, 0o644]) {
        let file = server.join(file);
        assert_eq!(fs::read_to_string(&file).expect("a file"), "new", "{file:?}");
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, mode, "{file:?}");
    }
    assert_ne!(fs::metadata(&library).expect("the new library").ino(), before);
    let mut still_open = String::new();
    open.read_to_string(&mut still_open).expect("the old library");
    assert_eq!(still_open, "old");
    // Nothing is left beside them.
    for (folder, count) in [("lib", 1), ("share/extension", 2)] {
        assert_eq!(fs::read_dir(server.join(folder)).expect("a folder").count(), count, "{folder}");
    }
}
