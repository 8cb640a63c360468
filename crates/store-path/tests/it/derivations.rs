// SPDX-License-Identifier: MIT OR Apache-2.0
//! Derivations as texts.

use superpose_store_path::{Derivation, DerivationKind, Error, Name, Result, StoreDir, StorePath};

use crate::derivation_files::Files;

fn parse(text: &[u8]) -> Result<Derivation> {
    Derivation::parse(text, &StoreDir::default(), &Name::new(b"x").unwrap())
}

#[test]
fn kinds_and_static_outputs() {
    fn check(name: &str, kind: DerivationKind, outputs: &[(&str, &str)]) {
        let (_, derivation) = Files::of_nix().named(name);
        assert_eq!(derivation.kind().unwrap(), kind);
        let found = derivation.static_outputs();
        let found: Vec<_> = found
            .iter()
            .map(|(name, path)| (name.as_str(), path.base_name()))
            .collect();
        assert_eq!(found, outputs);
    }
    check("floating.drv", DerivationKind::Floating, &[]);
    check("deferred.drv", DerivationKind::Deferred, &[]);
    check("impure.drv", DerivationKind::Impure, &[]);
    check(
        "fixedr.drv",
        DerivationKind::Fixed,
        &[("out", "c77j2ifxv2qlk9fvbw21if1rb5qg97di-fixedr")],
    );
    check(
        "multi.drv",
        DerivationKind::InputAddressed,
        &[
            ("dev", "xj92pdylsv3hzlha2k5ypxx60nyxai70-multi-dev"),
            ("out", "07r1rgh6j580vkvxb99pbjhybjb6v3ra-multi"),
        ],
    );
}

#[test]
fn strings_are_unescaped() {
    let (_, derivation) = Files::of_nix().named("multi.drv");
    assert_eq!(derivation.env[&b"quirks"[..]], b"a\"b\\c\nd\re\tf");
    assert_eq!(derivation.references().len(), 1);
}

#[test]
fn accepted_and_refused_texts() {
    const OUT: &str = r#"("out","","","")"#;
    const DRV: &str = "/nix/store/akj8mbqjx8nzkql9142nb7103vwn0wa2-plain.drv";
    const SRC: &str = "/nix/store/0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc";
    const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let text = |outputs: &str, drvs: &str, srcs: &str, env: &str| {
        format!(r#"Derive([{outputs}],[{drvs}],[{srcs}],"p","b",["a",""],[{env}])"#)
    };
    let good = [
        text(OUT, "", "", ""),
        text("", "", "", ""),
        text(
            OUT,
            &format!(r#"("{DRV}",["dev","out"])"#),
            &format!("\"{SRC}\""),
            r#"("a","b"),("b","")"#,
        ),
        text(&format!(r#"("out","{SRC}","","")"#), "", "", ""),
        text(&format!(r#"("out","{SRC}","sha256","{SHA}")"#), "", "", ""),
        text(&format!(r#"("out","{SRC}","text:sha256","{SHA}")"#), "", "", ""),
        text(&format!(r#"("out","{SRC}","git:sha256","{SHA}")"#), "", "", ""),
        text(r#"("out","","r:sha256","")"#, "", "", ""),
        text(r#"("out","","r:sha256","impure")"#, "", "", ""),
    ];
    for text in &good {
        let derivation = parse(text.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(derivation.render(&StoreDir::default())).unwrap(),
            *text
        );
        // No beginning of a text is a text.
        for end in 0..text.len() {
            assert!(parse(&text.as_bytes()[..end]).is_err(), "{}", &text[..end]);
        }
    }
    let bad = [
        format!("{}\n", good[0]),
        format!(" {}", good[0]),
        good[0].replace("Derive", "derive"),
        good[0].replace("Derive(", r#"DrvWithVersion("xp-dyn-drv","#),
        good[0].replace(",[]", ", []"),
        text(&format!("{OUT},"), "", "", ""),
        text(&format!("{OUT},{OUT}"), "", "", ""),
        text(r#"("out","","")"#, "", "", ""),
        text(r#"("","","","")"#, "", "", ""),
        text(r#"("a/b","","","")"#, "", "", ""),
        text(r#"("out","","",""#, "", "", ""),
        text(r#"("out","/nix/store/x","","")"#, "", "", ""),
        text(&format!(r#"("out","/{SRC}","","")"#), "", "", ""),
        text(&format!(r#"("out","{SRC}","","{SHA}")"#), "", "", ""),
        text(&format!(r#"("out","","","{SHA}")"#), "", "", ""),
        text(&format!(r#"("out","{SRC}","r:sha256","")"#), "", "", ""),
        text(&format!(r#"("out","{SRC}","r:sha256","impure")"#), "", "", ""),
        text(&format!(r#"("out","","sha256","{SHA}")"#), "", "", ""),
        text(&format!(r#"("out","{SRC}","sha1","{SHA}")"#), "", "", ""),
        text(&format!(r#"("out","{SRC}","x:sha256","{SHA}")"#), "", "", ""),
        text(OUT, &format!(r#"("{SRC}",["out"])"#), "", ""),
        text(OUT, &format!(r#"("{DRV}",["out","out"])"#), "", ""),
        text(OUT, &format!(r#"("{DRV}",["out"]),("{DRV}",[])"#), "", ""),
        text(OUT, &format!(r#"("{DRV}",(["out"],[]))"#), "", ""),
        text(OUT, "", &format!(r#""{SRC}","{SRC}""#), ""),
        text(OUT, "", &format!(r#""{SRC}/""#), ""),
        text(OUT, "", "", r#"("a","b"),("a","c")"#),
        text(OUT, "", "", r#"("a","b\"#),
        "\"".repeat(1000),
    ];
    for text in &bad {
        let error = parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("derivation `x`"), "{error}");
    }
}

#[test]
fn any_escaped_character_stands_for_itself() {
    let derivation = parse(br#"Derive([],[],[],"\p\\\"\n\r\t\N","",[],[])"#).unwrap();
    assert_eq!(derivation.platform, b"p\\\"\n\r\tN");
}

#[test]
fn sizes_are_bounded() {
    let text = vec![b' '; superpose_store_path::MAX_DERIVATION_LEN + 1];
    assert!(matches!(parse(&text), Err(Error::TooLarge { .. })));
}

#[test]
fn only_derivations_have_derivation_paths() {
    let path: StorePath = "0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc".parse().unwrap();
    let text = br#"Derive([],[],[],"","",[],[])"#;
    assert!(Derivation::parse_object(text, &StoreDir::default(), &path).is_err());
    let bare: StorePath = "0y839a054fcnhjcd2w1pb6a4k4fl38iw-.drv".parse().unwrap();
    assert!(Derivation::parse_object(text, &StoreDir::default(), &bare).is_err());
}
