//! scripts/install, by which `make install` and a tarball put the extension into a server or take it away, and where a server
//! then finds it.

use kongtask_tests::server_copy::copy_server;
use kongtask_tests::{Cluster, error, pg_config, run_script, tested_version};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const FILES: [&str; 3] = ["lib/kongtask.so", "share/extension/kongtask--1.sql", "share/extension/kongtask.control"];

/// A folder that servers' users can read.
fn folder() -> TempDir {
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    folder
}

fn name(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A folder as a build leaves it, of files that say only this.
fn staged(home: &Path, text: &str) -> PathBuf {
    let staged = home.join("staged");
    fs::create_dir_all(&staged).expect("a folder");
    for file in FILES {
        fs::write(staged.join(Path::new(file).file_name().expect("a name")), text).expect("a file");
    }
    staged
}

#[test]
fn what_a_server_has_open_is_replaced_and_not_written_over() {
    let home = folder();
    let server = home.path().join("server");
    let staged = staged(home.path(), "new");
    for folder in ["lib", "share/extension"] {
        fs::create_dir_all(server.join(folder)).expect("a folder");
    }
    let library = server.join(FILES[0]);
    fs::write(&library, "old").expect("a file");
    let mut open = File::open(&library).expect("the old library");
    let before = open.metadata().expect("its inode").ino();

    run_script("install", &[name(&staged)], &[("PREFIX", name(&server))]);

    for (file, mode) in FILES.iter().zip([0o755, 0o644, 0o644]) {
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

#[test]
fn uninstall_removes_what_install_put_there_and_nothing_else() {
    let home = folder();
    let server = home.path().join("server");
    let staged = staged(home.path(), "new");
    let environment = [("PREFIX", name(&server))];
    run_script("install", &[name(&staged)], &environment);
    let others = ["lib/other.so", "share/extension/other.control", "share/extension/kongtask_other--1.sql"];
    for file in others {
        fs::write(server.join(file), "").expect("a file");
    }

    run_script("install", &["--uninstall"], &environment);

    for file in FILES {
        assert!(!server.join(file).exists(), "{file}");
    }
    for file in others {
        assert!(server.join(file).exists(), "{file}");
    }
    // Once more is no error.
    run_script("install", &["--uninstall"], &environment);
}

#[test]
fn destdir_stands_before_the_folders_of_pg_config() {
    let home = folder();
    let staged = staged(home.path(), "new");
    // Not the tested server's: a script that forgot DESTDIR would write into it.
    let server = home.path().join("server");
    let asked = home.path().join("pg_config");
    let answers =
        format!("#!/bin/sh\ncase $1 in --pkglibdir) echo {0}/lib ;; *) echo {0}/share ;; esac\n", name(&server));
    fs::write(&asked, answers).expect("a program");
    fs::set_permissions(&asked, fs::Permissions::from_mode(0o755)).expect("chmod");
    let image = home.path().join("image");

    let environment = [("DESTDIR", name(&image)), ("PREFIX", ""), ("PG_CONFIG", name(&asked))];
    let said = run_script("install", &[name(&staged)], &environment);

    for file in FILES {
        let file = format!("{}{}/{file}", name(&image), name(&server));
        assert_eq!(fs::read_to_string(&file).expect("a file"), "new", "{file}");
        assert!(said.lines().any(|line| line == file), "{said}");
    }
    assert!(!server.exists());
}

/// The files that the tested server has installed, as a build stages them.
fn staged_from_server(home: &Path) -> PathBuf {
    let staged = home.join("staged");
    fs::create_dir(&staged).expect("a folder");
    fs::copy(format!("{}/kongtask.so", pg_config("--pkglibdir")), staged.join("kongtask.so")).expect("the library");
    for file in ours(Path::new(&format!("{}/extension", pg_config("--sharedir")))) {
        fs::copy(&file, staged.join(file.file_name().expect("a name"))).expect("a script");
    }
    staged
}

/// The extension's files in a folder.
fn ours(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    files.filter(|file| name(file).contains("/kongtask.") || name(file).contains("/kongtask--")).collect()
}

#[test]
fn a_server_finds_the_extension_in_a_folder_of_its_own() {
    let home = folder();
    let own = home.path().join("own");
    run_script("install", &[name(&staged_from_server(home.path()))], &[("PREFIX", name(&own))]);
    let (server, folders) = copy_server();
    fs::remove_file(folders.libraries.join("kongtask.so")).expect("the server's library");
    let mut settings = vec![format!("dynamic_library_path = '{}/lib:$libdir'", own.display())];
    let version = tested_version();
    if version >= 18 {
        for file in ours(&folders.extensions) {
            fs::remove_file(file).expect("the server's script");
        }
        settings.push(format!("extension_control_path = '{}/share:$system'", own.display()));
    }

    let cluster = Cluster::stopped_of(server, &settings.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.start();
    cluster.sql(
        "create extension kongtask;
         create table done (job bigint);
         create function note(j graphile_worker.jobs) returns void language sql as $$ insert into done values (j.id) $$;
         select kongtask.register_task('note', 'note(graphile_worker.jobs)'), graphile_worker.add_job('note')",
    );
    cluster.wait_for("select count(*) from done", "1");
    // As former versions name the library, which PostgreSQL 18 takes for the same.
    let former = "create function former(text) returns int language c as '$libdir/kongtask', 'kongtask_remove_job'";
    if version >= 18 {
        cluster.sql(former);
    } else {
        let (code, message) = error(&mut cluster.connect(), former);
        assert_eq!(code, "58P01", "{message}");
    }
}

#[test]
fn functions_of_former_versions_go_on_and_are_upgraded() {
    let cluster = Cluster::with(&[]);
    cluster.sql(
        "create extension kongtask version '0.2.0';
         -- As they are where the control file of then was read.
         update pg_proc set probin = '$libdir/kongtask' where probin = 'kongtask';
         create table done (job bigint);
         create function note(j graphile_worker.jobs) returns void language sql as $$ insert into done values (j.id) $$;
         select kongtask.register_task('note', 'note(graphile_worker.jobs)'), graphile_worker.add_job('note')",
    );
    cluster.wait_for("select count(*) from done", "1");
    cluster.sql("alter extension kongtask update; select graphile_worker.add_job('note')");
    cluster.wait_for("select count(*) from done", "2");
    cluster.wait_for("select count(distinct probin) from pg_proc where probin ~ 'kongtask$'", "2");
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL", "PANIC"]), Vec::<String>::new());
}

#[test]
fn the_version_is_that_of_cargo_toml() {
    let version = run_script("version", &[], &[]);
    let version = version.trim();
    assert!(version.split('.').filter(|part| part.parse::<u32>().is_ok()).count() == 3, "{version}");
    let cluster = Cluster::with_extension(&[]);
    assert_eq!(cluster.text("select extversion from pg_extension where extname = 'kongtask'"), version);
    if cluster.version() >= 18 {
        let loaded = "select version from pg_get_loaded_modules() where module_name = 'kongtask'";
        assert_eq!(cluster.text(loaded), version);
    }
    let changes = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../debian/changelog")).expect("changelog");
    assert!(changes.starts_with(&format!("kongtask ({version}-1) ")), "{changes}");
}

#[test]
fn what_pgxn_is_told_is_all_that_it_asks_for() {
    let meta: serde_json::Value = serde_json::from_str(&run_script("meta", &[], &[])).expect("JSON");
    let text = |pointer: &str| meta.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default().to_string();
    let version = run_script("version", &[], &[]);
    for pointer in ["/version", "/provides/kongtask/version"] {
        assert_eq!(text(pointer), version.trim(), "{pointer}");
    }
    assert_eq!(text("/provides/kongtask/file"), format!("sql/kongtask--{}.sql", version.trim()));
    assert_eq!([text("/name"), text("/license"), text("/meta-spec/version")], ["kongtask", "mit", "1.0.0"]);
    for pointer in ["/abstract", "/maintainer", "/resources/repository/url"] {
        assert_ne!(text(pointer), "", "{pointer}");
    }
}

#[test]
fn tests_beside_the_code_run_the_script_that_is_installed() {
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../src/lib.rs")).expect("lib.rs");
    let used: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pgrx::extension_sql_file!(\"../")?.split('"').next())
        .collect();
    let script = run_script("script", &[], &[]);
    let installed: Vec<&str> = script
        .lines()
        .filter_map(|line| line.strip_prefix("-- ").filter(|name| name.starts_with("sql/install/")))
        .collect();
    assert!(installed.len() > 1, "{script}");
    assert_eq!(used, installed);
}
