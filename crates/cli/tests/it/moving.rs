// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects and what is known of them between stores: `export`, `import`, `copy`, `sign`, `dump-db`, `load-db`,
//! `register-validity`.

use serde_json::json;

use crate::stand::Stand;

/// The key of nobody, for tests.
const SECRET: &str =
    "test-1:9DGFYRm0owKiMqsAdOwykae8XJzefyUn75OUb4uovj8s0887pONLSXKVTs+L+KvwcS8Dar8ZBU4Jw6nSZAuQUg==";
const PUBLIC: &str = "test-1:LNPPO6TjS0lylU7Pi/ir8HEvA2q/GQVOCcOp0mQLkFI=";

fn exported(stand: &Stand, arguments: &[&str]) -> Vec<u8> {
    let ended = stand.run(&[&["export"], arguments].concat());
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    ended.stdout
}

#[test]
fn what_is_exported_can_be_imported() {
    let stand = Stand::new();
    let library = stand.add("library", "l", &[]);
    let program = stand.add("program", "p", &[&library]);
    let alone = exported(&stand, &[&program]);
    let stream = exported(&stand, &["--recursive", &program]);
    assert!(stream.len() > alone.len());
    let other = ["--store", "./other"];
    let run = |arguments: &[&str], input: &[u8]| stand.feed(&[&other, arguments].concat(), input);
    // What it refers to is missing.
    let ended = run(&["import"], &alone);
    assert_eq!((ended.status, ended.stdout.len()), (1, 0));
    assert!(ended.stderr.contains(&library), "{}", ended.stderr);
    let ended = run(&["import"], &stream[..stream.len() - 1]);
    assert_eq!((ended.status, ended.stdout.len()), (1, 0));
    assert!(ended.stderr.contains("the end of the stream"), "{}", ended.stderr);
    let ended = run(&["import"], b"rubbish!");
    assert!(
        ended.status == 1 && ended.stderr.contains("expected 1 before an object"),
        "{}",
        ended.stderr
    );
    assert_eq!(run(&["import", "no-such-file"], b"").status, 1);
    assert_eq!(
        run(&["import"], &stream).fine(),
        format!("{library}\n{program}\n")
    );
    let again: serde_json::Value = serde_json::from_str(&run(&["import", "--json"], &stream).fine()).unwrap();
    assert_eq!(
        again[0],
        json!({ "path": library, "outcome": "already-valid", "layer": "upper" })
    );
    // From a file.
    std::fs::write(stand.path("stream"), &stream).unwrap();
    assert_eq!(
        stand
            .run(&["--store", "./third", "import", "stream"])
            .fine()
            .lines()
            .count(),
        2
    );
    let unknown = stand.run(&["export", "0g1savw1cf7pji42hasyx0smc4aw15nw-unknown"]);
    assert_eq!((unknown.status, unknown.stdout.len()), (1, 0));
}

#[test]
fn closures_are_copied_in_both_directions() {
    let stand = Stand::new();
    let library = stand.add("library", "l", &[]);
    let program = stand.add("program", "p", &[&library]);
    let ended = stand.run(&["copy", "--to", "./other", "--no-recursive", &program]);
    assert_eq!((ended.status, ended.stdout.len()), (1, 0));
    let text = stand.text(&["copy", "--to", "./other", &program]);
    assert!(text.starts_with("2 paths copied, "), "{text}");
    assert!(
        stand
            .text(&["copy", "--to", "./other", &program])
            .starts_with("0 paths copied")
    );
    let copied = stand.json(&[
        "--store", "./third", "copy", "--from", "./other", "--json", &program,
    ]);
    assert_eq!(copied["copied"], json!([library, program]));
    assert_eq!(
        (&copied["realisations"], &copied["realisationsLeft"]),
        (&json!(0), &json!(0))
    );
    let copied = stand.json(&[
        "copy", "--from", "./third", "--to", "./fourth", "--json", &library,
    ]);
    assert_eq!(copied["copied"], json!([library]));
    // A store to itself has nothing to copy.
    assert!(
        stand
            .text(&["copy", "--to", "./store", &program])
            .starts_with("0 paths copied")
    );
    let unknown = "0g1savw1cf7pji42hasyx0smc4aw15nw-unknown";
    assert_eq!(stand.run(&["copy", "--to", "./other", unknown]).status, 1);
}

#[test]
fn signatures_are_made_and_counted() {
    let stand = Stand::new();
    let library = stand.add("library", "l", &[]);
    // An import loses the content address: somebody has to vouch for it.
    let stream = exported(&stand, &[&library]);
    let own = ["--store", "./own"];
    assert_eq!(stand.feed(&[own[0], own[1], "import"], &stream).status, 0);
    let run = |arguments: &[&str]| stand.run(&[&own, arguments].concat());
    let ended = run(&["copy", "--to", "./other", &library]);
    assert!(
        ended.status == 1 && ended.stderr.contains("lacks a signature by a trusted key"),
        "{}",
        ended.stderr
    );
    let verify = ["verify", "--sigs-needed", "1", "--trusted-public-keys", PUBLIC];
    let ended = run(&verify);
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status, 1);
    assert!(
        text.contains(&format!("'{library}' is untrusted: 0 trusted signatures")),
        "{text}"
    );
    stand.file("key", SECRET);
    assert_eq!(run(&["sign", "--key-file", "no-such-file", &library]).status, 1);
    let ended = run(&["sign", "--key-file", "key", &library]);
    assert_eq!(
        (ended.status, ended.stderr.as_str()),
        (0, "note: added 1 signatures\n")
    );
    let signed = run(&["sign", "-r", "--key-file", "key", "--json", &library]).fine();
    assert_eq!(signed, "{\"signatures\":0}\n");
    assert_eq!(run(&verify).status, 0);
    let ended = run(&["verify", "--sigs-needed", "1", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(
        (ended.status, &report["untrusted"]),
        (1, &json!([{ "path": library, "signatures": 0 }]))
    );
    assert_eq!(run(&["verify"]).status, 0, "it is not asked for");
    let ended = run(&[
        "copy",
        "--to",
        "./other",
        "--trusted-public-keys",
        PUBLIC,
        &library,
    ]);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert_eq!(
        run(&["copy", "--to", "./third", "--no-check-sigs", &library]).status,
        0
    );
    assert_eq!(
        run(&["copy", "--to", "./fourth?require-sigs=false", &library]).status,
        0
    );
}

#[test]
fn registrations_are_dumped_and_loaded() {
    let stand = Stand::new();
    let library = stand.add("library", "l", &[]);
    let program = stand.add("program", "p", &[&library]);
    let text = stand.text(&["dump-db"]);
    assert_eq!(text.lines().count(), 5 + 6);
    assert!(text.contains(&format!("\n1\n{library}\n")), "{text}");
    assert_eq!(stand.text(&["dump-db", &library]).lines().count(), 5);
    let unknown = "0g1savw1cf7pji42hasyx0smc4aw15nw-unknown";
    assert_eq!(stand.run(&["dump-db", unknown]).status, 1);

    let feed = |arguments: &[&str], text: &str| {
        stand.feed(&[&["--store", "./other"], arguments].concat(), text.as_bytes())
    };
    let ended = feed(&["load-db"], &text[..text.len() - 1]);
    assert!(
        ended.status == 1 && ended.stderr.contains("ends in line 11"),
        "{}",
        ended.stderr
    );
    let ended = feed(&["load-db"], "rubbish\n");
    assert!(
        ended.status == 1 && ended.stderr.contains("line 1: expected a store path"),
        "{}",
        ended.stderr
    );
    assert!(
        !stand.path("other").exists(),
        "a text that is wrong is noticed before anything is opened"
    );
    assert_eq!(
        feed(&["load-db", "--json"], &text).fine(),
        "{\"copied\":0,\"registered\":2}\n"
    );
    assert_eq!(stand.text(&["--store", "./other", "dump-db"]), text);
    assert_eq!(stand.run(&["--store", "./other", "verify"]).status, 0);
    assert_eq!(
        stand.text(&["--store", "./other", "dump-db"]),
        "",
        "the objects were never there"
    );

    let base = program.strip_prefix("/nix/store/").unwrap();
    stand.file(&format!("third/nix/store/{base}"), "p");
    let short = format!("{program}\n\n0\n");
    let third = |arguments: &[&str], text: &str| {
        stand.feed(&[&["--store", "./third"], arguments].concat(), text.as_bytes())
    };
    let ended = third(&["register-validity"], &text);
    assert_eq!(ended.status, 1, "with hashes, which were not announced");
    let ended = third(&["register-validity"], &format!("{library}\n\n0\n"));
    assert!(
        ended.status == 1 && ended.stderr.contains("cannot register"),
        "{}",
        ended.stderr
    );
    let json = |ended: crate::stand::Ended| ended.fine();
    assert_eq!(
        json(third(&["register-validity", "--json"], &short)),
        "{\"copied\":0,\"registered\":1}\n"
    );
    assert_eq!(
        json(third(&["register-validity", "--json"], &short)),
        "{\"copied\":0,\"registered\":0}\n"
    );
    let again = third(&["register-validity", "--json", "--reregister"], &short);
    assert_eq!(json(again), "{\"copied\":0,\"registered\":1}\n");
    let given = text.split_once(&program).unwrap().1;
    let given = format!("{program}{}", given.split_once("\n1\n").unwrap().0) + "\n0\n";
    assert_eq!(
        third(&["register-validity", "--hash-given", "--reregister"], &given).status,
        0
    );
    assert_eq!(
        stand
            .run(&["--store", "./third", "verify", "--check-contents"])
            .status,
        0
    );
}

#[test]
fn few_open_files_make_small_batches() {
    let stand = Stand::new();
    let paths: Vec<String> = (0..60)
        .map(|number| stand.add(&format!("f{number}"), "x", &[]))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    std::fs::write(stand.path("stream"), exported(&stand, &paths)).unwrap();
    let mut shell = std::process::Command::new("sh");
    shell
        .current_dir(stand.path(""))
        .args(["-c", "ulimit -n 48; exec \"$0\" --store ./other import stream"])
        .arg(env!("CARGO_BIN_EXE_superpose"));
    let output = shell.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        stand
            .run(&["--store", "./other", "verify", "--check-contents"])
            .status,
        0
    );
    assert_eq!(
        stand.lines(&["--store", "./other", "path-info", "--all"]).len(),
        60
    );
}
