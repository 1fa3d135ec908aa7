//! Databases in other encodings than UTF-8: what goes in comes out as it was.

use kongtask_tests::{Cluster, SOON, describe, error, rows, text, wait_until};
use postgres::Client;

const JOBS: &str = "select count(*) from graphile_worker.jobs";

/// A cluster with a database of an encoding that has the extension.
fn cluster(encoding: &str, settings: &[&str]) -> Cluster {
    let cluster = Cluster::with(&[&["kongtask.workers = 2"], settings].concat());
    create(&cluster, "other", encoding);
    cluster.connect_as("postgres", "other").batch_execute("create extension kongtask").expect("create extension");
    cluster
}

fn create(cluster: &Cluster, database: &str, encoding: &str) {
    cluster.sql(&format!(
        "create database {database} encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'"
    ));
}

fn run(db: &mut Client, statements: &str) {
    db.batch_execute(statements).unwrap_or_else(|e| panic!("{statements}: {}", describe(&e)));
}

fn comes(cluster: &Cluster, db: &mut Client, query: &str, expected: &str) {
    let mut last = String::new();
    let came = wait_until(SOON, || {
        last = text(db, query);
        last == expected
    });
    assert!(came, "{query}: {last:?}, not {expected:?}\n{}", cluster.log());
}

/// Handlers with the word in their names, registered for tasks that are called by it.
fn prepare(db: &mut Client, word: &str) {
    run(
        db,
        &format!(
            r#"create schema "{word}";
            create table done (how text, key text, queue text, payload json, flags jsonb);
            create function "{word}".note(p json, j graphile_worker.jobs) returns void language sql as
              $$ insert into done select j.task_identifier, j.key, j.queue_name, p, j.flags $$;
            create function "{word}"."{word}"(j graphile_worker.jobs[]) returns void language sql as
              $$ insert into done select x.task_identifier, x.key, x.queue_name, x.payload, x.flags from unnest(j) x $$;
            create function "{word}".fail(p json) returns void language plpgsql as $$ begin
              raise '% message', p #>> '{{}}' using detail = '{word} detail', hint = '{word} hint'; end $$;
            create function "{word}".long(p json) returns void language plpgsql as $$ begin
              raise 'x%', repeat('{word}', 100000); end $$;
            select kongtask.register_task('{word} plain', '"{word}".note(json, graphile_worker.jobs)'),
              kongtask.register_task('{word} claimed', '"{word}".note(json, graphile_worker.jobs)', in_place := false),
              kongtask.register_task('{word} batch', '"{word}".note(json, graphile_worker.jobs)', max_batch := 10),
              kongtask.register_task('{word} set', '"{word}"."{word}"(graphile_worker.jobs[])'),
              kongtask.register_task('{word} fail', '"{word}".fail(json)'),
              kongtask.register_task('{word} fail in batch', '"{word}".fail(json)', max_batch := 10),
              kongtask.register_task('{word} long', '"{word}".long(json)')"#
        ),
    );
}

/// The main ones, by a client that speaks UTF-8: the word has to be one that the encoding has.
fn all_goes_in_and_comes_out(encoding: &str, word: &str) {
    let cluster = cluster(encoding, &[]);
    let db = &mut cluster.connect_as("postgres", "other");
    prepare(db, word);
    run(
        db,
        &format!(
            r#"select graphile_worker.add_job('{word} plain', to_json('{word}'::text));
            select graphile_worker.add_job('{word} plain', to_json('{word}'::text), job_key := '{word}', flags := '{{{word}}}');
            select graphile_worker.add_job('{word} claimed', to_json('{word}'::text), '{word} queue');
            select graphile_worker.add_job('{word} batch', to_json('{word}'::text)) from generate_series(1, 5);
            select graphile_worker.add_job('{word} set', to_json('{word}'::text)) from generate_series(1, 5);
            select graphile_worker.add_jobs(array[('{word} set', to_json('{word}'::text), '{word} queue', null, null, '{word} 1', null, null),
              ('{word} plain', to_json('{word}'::text), null, null, null, '{word} 2', null, array['{word}'])]::graphile_worker.job_spec[])"#
        ),
    );
    comes(&cluster, db, JOBS, "0");
    let mut expected = vec![
        format!("{word} plain|1|\"{word}\"|||"),
        format!("{word} plain|1|\"{word}\"|{word}||{{\"{word}\": true}}"),
        format!("{word} claimed|1|\"{word}\"||{word} queue|"),
        format!("{word} batch|5|\"{word}\"|||"),
        format!("{word} set|5|\"{word}\"|||"),
        format!("{word} set|1|\"{word}\"|{word} 1|{word} queue|"),
        format!("{word} plain|1|\"{word}\"|{word} 2||{{\"{word}\": true}}"),
    ];
    let mut done = rows(db, "select how, count(*), payload, key, queue, flags from done group by how, payload::text, payload::jsonb, key, queue, flags".replace("payload, key", "min(payload::text), key").as_str());
    expected.sort();
    done.sort();
    assert_eq!(done, expected);

    // What failed says why: alone, in a batch, and at such length that it is cut.
    run(
        db,
        &format!(
            "select graphile_worker.add_job('{word} fail', to_json('{word}'::text));
             select graphile_worker.add_job('{word} fail in batch', to_json('{word}'::text)) from generate_series(1, 3);
             select graphile_worker.add_job('{word} long', to_json('{word}'::text))"
        ),
    );
    comes(&cluster, db, "select count(*) from graphile_worker.jobs where last_error is not null", "5");
    let said = "select distinct left(last_error, strpos(last_error, E'\\nCONTEXT') - 1) from graphile_worker.jobs where task_identifier like '%fail%'";
    assert_eq!(rows(db, said), [format!("{word} message (SQLSTATE P0001)\nDETAIL: {word} detail\nHINT: {word} hint")]);
    let long = text(db, "select last_error from graphile_worker.jobs where task_identifier like '%long'");
    let characters: String = word.chars().cycle().take(20_000).collect();
    assert!(long.starts_with(&format!("x{characters}")) && long.ends_with(" bytes left out)"), "{:?}", long.get(..100));
    let whole = "select octet_length(split_part(last_error, '...', 1)) between 65532 and 65536 from graphile_worker.jobs where task_identifier like '%long'";
    assert_eq!(text(db, whole), "t");

    // Names are found by what they are.
    run(
        db,
        &format!(
            "select graphile_worker.add_job('{word} elsewhere', to_json('{word}'::text), job_key := '{word}', flags := '{{{word}}}')"
        ),
    );
    let get = |flags: &str| {
        format!(
            "select task_identifier from graphile_worker.get_job('{word} long worker', array['{word} elsewhere'], forbidden_flags := {flags})"
        )
    };
    assert_eq!(text(db, &get(&format!("'{{{word}}}'"))), "");
    assert_eq!(text(db, &get("null")), format!("{word} elsewhere"));
    assert_eq!(
        text(db, "select locked_by from graphile_worker.jobs where locked_by is not null"),
        format!("{word} long worker")
    );
    run(db, &format!("select graphile_worker.force_unlock_workers(array['{word} long worker'])"));
    assert_eq!(text(db, &format!("select key from graphile_worker.remove_job('{word}')")), word);

    // A dump of it can be made, and restored.
    let all =
        "select md5(string_agg(j::text, ',' order by id)) from graphile_worker.jobs j where last_error is not null";
    run(db, "update graphile_worker.jobs set run_at = 'infinity'");
    let (before, tasks) = (text(db, all), "select string_agg(t::text, ',' order by identifier) from kongtask.tasks t");
    let dump = cluster.client_program("pg_dump", &["-Fc", "other"]).stdout;
    create(&cluster, "restored", encoding);
    cluster.restore(&dump, "restored", &[]);
    let restored = &mut cluster.connect_as("postgres", "restored");
    assert_eq!(text(restored, all), before);
    assert_eq!(text(restored, tasks), text(db, tasks));
    run(restored, &format!("select graphile_worker.add_job('{word} plain', to_json('{word}'::text))"));
    let again = format!("select count(*) from done where how = '{word} plain' and key is null");
    comes(&cluster, restored, &again, "2");

    // What we say of it.
    run(
        db,
        &format!(
            "create role mallory; grant usage on schema kongtask, \"{word}\" to mallory; grant execute on function kongtask.unregister_task, kongtask.register_task to mallory"
        ),
    );
    run(db, "set role mallory");
    let refused = error(db, &format!("select kongtask.unregister_task('{word} plain')"));
    assert_eq!(refused, ("42501".into(), format!("permission denied for task \"{word} plain\"")));
    run(db, &format!("reset role; revoke execute on function \"{word}\".fail(json) from public; set role mallory"));
    let refused = error(db, &format!("select kongtask.register_task('x', '\"{word}\".fail(json)')"));
    assert_eq!(refused, ("42501".into(), format!("permission denied for handler \"{word}\".fail(json)")));
    run(db, "reset role");
    assert_eq!(text(db, &format!("select kongtask.unregister_task('{word} plain')")), "t");
    assert_eq!(cluster.log_lines(&["FATAL", "PANIC"]), Vec::<String>::new());
    let ended = cluster.log_lines(&["LOG"]).into_iter().find(|line| line.contains("exited with exit code 1"));
    assert_eq!(ended, None, "{}", cluster.log());
}

#[test]
fn all_goes_in_and_comes_out_of_latin_1() {
    all_goes_in_and_comes_out("LATIN1", "é");
}

#[test]
fn all_goes_in_and_comes_out_of_euc_jp() {
    all_goes_in_and_comes_out("EUC_JP", "日本語");
}

#[test]
fn all_goes_in_and_comes_out_of_utf_8() {
    all_goes_in_and_comes_out("UTF8", "é日");
}

/// There, UTF-8 is bytes like any others.
#[test]
fn all_goes_in_and_comes_out_of_sql_ascii() {
    all_goes_in_and_comes_out("SQL_ASCII", "é日");
}

#[test]
fn bytes_that_are_no_text_in_any_encoding_come_out_of_sql_ascii_as_they_were() {
    let cluster = cluster("SQL_ASCII", &[]);
    let db = &mut cluster.connect_as("postgres", "other");
    run(
        db,
        r"create table done (how text, key text, queue text, payload text, flags jsonb);
        do $$ begin
          execute format('create function %I(p json, j graphile_worker.jobs) returns void language plpgsql as
            $f$ begin insert into done select j.task_identifier, j.key, j.queue_name, p #>> %L, j.flags;
            if p #>> %2$L = %3$L then raise %4$L; end if; end $f$',
            E'\xe9\xff', '{}', E'f\xfe', E'\xff\x80 failed');
          perform kongtask.register_task(E'\xe9\xff t', format('%I(json, graphile_worker.jobs)', E'\xe9\xff')::regprocedure);
          perform graphile_worker.add_job(E'\xe9\xff t', to_json(E'\xfe'::text));
          perform graphile_worker.add_job(E'\xe9\xff t', to_json(E'\xfe'::text), E'\xfeq', job_key := E'k\xff', flags := array[E'\xff']);
          perform graphile_worker.add_job(E'\xe9\xff t', to_json(E'f\xfe'::text));
        end $$",
    );
    comes(&cluster, db, "select count(*) from graphile_worker.jobs where last_error is null", "0");
    comes(&cluster, db, JOBS, "1");
    let hex = |column: &str| format!("encode(convert_to({column}, 'SQL_ASCII'), 'hex')");
    let done = format!(
        "select {}, {}, {}, {}, {} from done order by key",
        hex("how"),
        hex("key"),
        hex("queue"),
        hex("payload"),
        hex("(select string_agg(k, '') from jsonb_object_keys(flags) k)"),
    );
    assert_eq!(rows(db, &done), ["e9ff2074|6bff|fe71|fe|ff", "e9ff2074|||fe|"]);
    let said = format!("select {} from graphile_worker.jobs", hex("split_part(last_error, ' failed', 1)"));
    assert_eq!(text(db, &said), "ff80");
    let said = cluster.speak("SQL_ASCII", b"create role mallory; grant usage on schema kongtask to mallory; grant execute on function kongtask.unregister_task to mallory;
      set role mallory; select kongtask.unregister_task(E'\\xe9\\xff t')", "other");
    let expected = b"permission denied for task \"\xe9\xff t\"";
    assert!(said.windows(expected.len()).any(|said| said == expected), "{}", said.escape_ascii());
}

/// A client that speaks the database's own encoding, in whose bytes nothing is UTF-8.
fn nothing_is_changed_for_a_client_that_speaks(encoding: &str, word: &[u8], in_utf_8: &str) {
    let cluster = cluster(encoding, &[]);
    prepare(&mut cluster.connect_as("postgres", "other"), in_utf_8);
    let with = |statements: &str| {
        let mut bytes = Vec::new();
        for (at, part) in statements.split('@').enumerate() {
            bytes.extend_from_slice(if at > 0 { word } else { b"" });
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    };
    let said = cluster.speak(
        encoding,
        &with(
            r#"select key, queue_name from graphile_worker.add_job('@ plain', to_json('@'::text), '@q', job_key := '@');
            select task_identifier from graphile_worker.add_job('@ fail', to_json('@'::text))"#,
        ),
        "other",
    );
    assert_eq!(said.escape_ascii().to_string(), with("@|@q\n@ fail\n").escape_ascii().to_string());
    let db = &mut cluster.connect_as("postgres", "other");
    comes(&cluster, db, "select count(last_error) || ' ' || count(*) from graphile_worker.jobs", "1 1");
    let said = cluster.speak(
        encoding,
        b"select payload from done; select split_part(last_error, E'\\nCONTEXT', 1) from graphile_worker.jobs",
        "other",
    );
    let expected = with("\"@\"\n@ message (SQLSTATE P0001)\nDETAIL: @ detail\nHINT: @ hint\n");
    assert_eq!(said.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn nothing_is_changed_for_a_client_that_speaks_latin_1() {
    nothing_is_changed_for_a_client_that_speaks("LATIN1", b"\xe9", "é");
}

#[test]
fn nothing_is_changed_for_a_client_that_speaks_euc_jp() {
    nothing_is_changed_for_a_client_that_speaks("EUC_JP", b"\xc6\xfc", "日");
}

/// From whichever database one looks at them.
#[test]
fn workers_are_shown_in_the_encoding_of_the_database_that_asks() {
    let cluster = Cluster::with_extension(&["kongtask.workers = 1", "max_worker_processes = 24"]);
    let databases = [("latin1", "é"), ("euc_jp", "日"), ("sql_ascii", "ß")];
    for (encoding, word) in databases {
        create(&cluster, encoding, encoding);
        let db = &mut cluster.connect_as("postgres", encoding);
        run(
            db,
            &format!(
                "create extension kongtask;
                 create function nap() returns void language sql as $$ select pg_sleep(600) $$;
                 select kongtask.register_task('{word}', 'nap()');
                 select graphile_worker.add_job('{word}')"
            ),
        );
    }
    cluster.wait_for("select count(task_identifier) from kongtask.workers", "3");
    let shown = "select string_agg(database || ' ' || task_identifier, ', ' order by database) from kongtask.workers where task_identifier <> ''";
    assert_eq!(cluster.text(shown), "euc_jp 日, latin1 é, sql_ascii ß");
    let seen_from = |database| text(&mut cluster.connect_as("postgres", database), shown);
    assert_eq!(seen_from("latin1"), r"euc_jp \xc6\xfc, latin1 é, sql_ascii ÃŸ".replace('Ÿ', "\u{9f}"));
    assert_eq!(seen_from("euc_jp"), r"euc_jp 日, latin1 é, sql_ascii \xc3\x9f");
    let said = cluster.speak("SQL_ASCII", shown.as_bytes(), "sql_ascii");
    assert_eq!(said.escape_ascii().to_string(), r"euc_jp \xc6\xfc, latin1 \xe9, sql_ascii \xc3\x9f\n");
}

/// Names of roles and databases are in the encoding of the database where they were given.
#[test]
fn a_role_and_a_database_may_be_called_by_what_another_database_cannot_have() {
    let cluster = cluster("LATIN1", &[]);
    cluster.sql("create extension kongtask");
    let db = &mut cluster.connect_as("postgres", "other");
    run(
        db,
        r#"create role "é" login superuser;
        create function nap() returns void language sql as $$ select pg_sleep(600) $$;
        set session authorization "é";
        select kongtask.register_task('nap', 'nap()');
        select graphile_worker.add_job('nap');
        reset session authorization"#,
    );
    run(db, "create database \"dé\" template other");
    comes(&cluster, db, "select role from kongtask.workers where task_identifier = 'nap'", "é");
    let shown = "select string_agg(database || ' ' || role, ', ' order by database) from kongtask.workers where task_identifier = 'nap'";
    cluster.wait_for(shown, r"d\xe9 \xe9, other \xe9");
    cluster.sql(
        r#"create function nap() returns void language sql as $$ select 1 $$; create role mallory;
        grant usage on schema kongtask to mallory; grant execute on function kongtask.unregister_task to mallory;
        do $$ declare r text; begin select quote_ident(rolname) into r from pg_roles where rolsuper and rolname <> 'postgres';
        execute 'set local role ' || r; perform kongtask.register_task('nap', 'nap()'); end $$"#,
    );
    let mut client = cluster.connect();
    run(&mut client, "set role mallory");
    let refused = client.batch_execute("select kongtask.unregister_task('nap')").expect_err("another's");
    let refused = refused.as_db_error().expect("an error of the server's");
    assert!(refused.detail().is_some_and(|detail| detail.contains(r"\xe9")), "{:?}", refused.detail());
}

/// As they are where they were set: ALTER SYSTEM writes the bytes of the session's database.
#[test]
fn a_flag_of_the_database_s_encoding_is_forbidden() {
    let cluster = cluster("LATIN1", &[]);
    let mut db = cluster.connect_as("postgres", "other");
    prepare(&mut db, "é");
    run(&mut db, "create function é() returns text[] language sql as $$ select array['è'] $$");
    run(&mut db, "alter system set kongtask.forbidden_flags = 'x, é'");
    run(&mut db, "alter system set kongtask.forbidden_flags_function = 'public.é'");
    cluster.stop("fast");
    cluster.start();
    let db = &mut cluster.connect_as("postgres", "other");
    run(
        db,
        "select graphile_worker.add_job('é plain', to_json(1), flags := '{é}');
         select graphile_worker.add_job('é plain', to_json(2), flags := '{è}');
         select graphile_worker.add_job('é plain', to_json(3), flags := '{ê}', priority := 1)",
    );
    comes(&cluster, db, "select string_agg(payload::text, ' ') from done", "3");
    assert_eq!(text(db, JOBS), "2");
}

/// A queue whose schema is called so.
#[test]
fn the_queue_s_schema_may_be_called_so() {
    let cluster = Cluster::with(&["kongtask.workers = 1"]);
    create(&cluster, "other", "EUC_JP");
    let db = &mut cluster.connect_as("postgres", "other");
    run(
        db,
        r#"create schema "日本"; create extension kongtask schema "日本";
        create table done (n int);
        create function note(j "日本".jobs) returns void language sql as $$ insert into done values (1) $$;
        select kongtask.register_task('語', 'note("日本".jobs)');
        select "日本".add_job('語', queue_name := '語')"#,
    );
    comes(&cluster, db, "select count(*) from done", "1");
    run(db, r#"alter schema "日本" rename to "本日"; select "本日".add_job('語')"#);
    comes(&cluster, db, "select count(*) from done", "2");
    let refused = error(db, r#"insert into "本日".migrations (id) values (10)"#);
    assert!(refused.1.contains("schema \"本日\""), "{refused:?}");
}
