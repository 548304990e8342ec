use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::limits::SNIFF_BYTES;

fn sniff(bytes: &[u8]) -> Option<&'static str> {
    by_bytes(&bytes[..bytes.len().min(SNIFF_BYTES)], bytes.len() <= SNIFF_BYTES)
}

/// Real files in folders that are named by their type, from Magika's own tests.
fn real_files() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/files-magika");
    let mut files = Vec::new();
    for folder in std::fs::read_dir(&root).unwrap().map(|folder| folder.unwrap().path()).filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            files.push((file.strip_prefix(&root).unwrap().to_owned(), std::fs::read(&file).unwrap()));
        }
    }
    files.sort();
    files
}

/// Each of the real files: what its bytes show, the most likely type, the category.
#[test]
fn real_files_are_what_their_folder_says() {
    const TEXT_ONLY: Option<&str> = Some(TEXT);
    let expected: &[(&str, Option<&str>, Option<&str>, Category)] = &[
        ("asm", TEXT_ONLY, Some("text/x-asm"), Category::SourceCode),
        ("batch", Some("application/x-bat"), Some("application/x-bat"), Category::Script),
        ("c", TEXT_ONLY, Some("text/x-c"), Category::SourceCode),
        ("css", TEXT_ONLY, Some("text/css"), Category::SourceCode),
        ("csv", TEXT_ONLY, Some("text/csv"), Category::Spreadsheet),
        ("dockerfile", TEXT_ONLY, Some("text/x-dockerfile"), Category::SourceCode),
        ("docx", Some(DOCX), Some(DOCX), Category::Document),
        ("eml", Some("message/rfc822"), Some("message/rfc822"), Category::Document),
        ("empty", None, None, Category::Uncategorized),
        ("epub", Some("application/epub+zip"), Some("application/epub+zip"), Category::Document),
        ("flac", Some("audio/flac"), Some("audio/flac"), Category::Audio),
        ("handlebars", TEXT_ONLY, Some("text/x-template"), Category::SourceCode),
        ("html", Some("text/html"), Some("text/html"), Category::SourceCode),
        ("ignorefile", TEXT_ONLY, TEXT_ONLY, Category::Document),
        ("ini", TEXT_ONLY, TEXT_ONLY, Category::Document),
        ("javascript", TEXT_ONLY, Some("text/javascript"), Category::Script),
        ("jinja", TEXT_ONLY, Some("text/x-template"), Category::SourceCode),
        ("jpeg", Some("image/jpeg"), Some("image/jpeg"), Category::Image),
        ("json", Some("application/json"), Some("application/json"), Category::Uncategorized),
        ("latex", TEXT_ONLY, Some("application/x-tex"), Category::Document),
        ("makefile", TEXT_ONLY, Some("text/x-makefile"), Category::SourceCode),
        ("markdown", TEXT_ONLY, Some("text/markdown"), Category::Document),
        ("mht", Some("multipart/related"), Some("multipart/related"), Category::Document),
        ("mp3", Some("audio/mpeg"), Some("audio/mpeg"), Category::Audio),
        ("odp", Some(ODP), Some(ODP), Category::Presentation),
        ("ods", Some(ODS), Some(ODS), Category::Spreadsheet),
        ("odt", Some(ODT), Some(ODT), Category::Document),
        ("ogg", Some("audio/ogg"), Some("audio/ogg"), Category::Audio),
        ("outlook", Some("application/vnd.ms-outlook"), Some("application/vnd.ms-outlook"), Category::Document),
        ("pdf", Some("application/pdf"), Some("application/pdf"), Category::Pdf),
        ("pem", Some("application/pgp-keys"), Some("application/pgp-keys"), Category::Uncategorized),
        ("png", Some("image/png"), Some("image/png"), Category::Image),
        ("pptx", Some(PPTX), Some(PPTX), Category::Presentation),
        ("python", TEXT_ONLY, Some("text/x-python"), Category::Script),
        ("rtf", Some("application/rtf"), Some("application/rtf"), Category::Document),
        ("ruby", TEXT_ONLY, Some("text/x-ruby"), Category::Script),
        ("rust", TEXT_ONLY, Some("text/x-rust"), Category::SourceCode),
        ("smali", TEXT_ONLY, Some("text/x-smali"), Category::SourceCode),
        ("srt", TEXT_ONLY, Some("application/x-subrip"), Category::Uncategorized),
        ("svg", Some("image/svg+xml"), Some("image/svg+xml"), Category::Image),
        ("swift", TEXT_ONLY, Some("text/x-swift"), Category::SourceCode),
        ("toml", TEXT_ONLY, Some("application/toml"), Category::Uncategorized),
        ("tsv", TEXT_ONLY, Some("text/tab-separated-values"), Category::Spreadsheet),
        ("twig", TEXT_ONLY, Some("text/x-template"), Category::SourceCode),
        ("txt", TEXT_ONLY, TEXT_ONLY, Category::Document),
        ("typescript", TEXT_ONLY, Some("text/x-typescript"), Category::SourceCode),
        ("xlsx", Some(XLSX), Some(XLSX), Category::Spreadsheet),
        ("yaml", TEXT_ONLY, Some("application/yaml"), Category::Uncategorized),
        ("yara", TEXT_ONLY, Some("text/x-yara"), Category::SourceCode),
        ("zig", TEXT_ONLY, Some("text/x-zig"), Category::SourceCode),
        ("zip", Some(ZIP), Some(ZIP), Category::Archive),
    ];
    let files = real_files();
    assert!(files.len() > 60);
    for (path, bytes) in files {
        let found = ContentType::of(sniff(&bytes), path.to_str().unwrap());
        let folder = path.iter().next().unwrap();
        let (_, by_bytes, most_likely, category) = expected.iter().find(|(name, ..)| folder == *name).unwrap();
        let wanted = ContentType {
            by_bytes: *by_bytes,
            most_likely: *most_likely,
            category: *category,
            is_mismatch: false,
            ..found
        };
        assert_eq!(found, wanted, "{}", path.display());
    }
}

const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
const PPTX: &str = "application/vnd.openxmlformats-officedocument.presentationml.presentation";
const ODT: &str = "application/vnd.oasis.opendocument.text";
const ODS: &str = "application/vnd.oasis.opendocument.spreadsheet";
const ODP: &str = "application/vnd.oasis.opendocument.presentation";

/// The bytes of the real file in a folder.
fn real(folder: &str) -> Vec<u8> {
    let files = real_files();
    files.into_iter().find(|(path, _)| path.starts_with(folder)).unwrap().1
}

#[test]
fn a_disguise_is_a_mismatch_and_a_habit_is_not() {
    let source = b"fn main() {}\n".to_vec();
    let script = b"#!/bin/sh\nrm -rf .\n".to_vec();
    let program = [b"MZ\x90\0\x03\0\0\0".as_slice(), &[0; 64]].concat();
    let ole = [b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1".as_slice(), &[0; 600]].concat();
    let cases: &[(&[u8], &str, Option<&str>, bool)] = &[
        (&source, "holiday.jpg", Some(TEXT), true),
        (&source, "notes", Some(TEXT), false),
        (&source, "notes.unknown", Some(TEXT), false),
        (&source, "main.rs", Some("text/x-rust"), false),
        (&source, "table.xls", Some(TEXT), false),
        (&script, "readme.txt", Some("text/x-shellscript"), true),
        (&script, "tool.py", Some("text/x-shellscript"), false),
        (&program, "invoice.pdf", Some("application/vnd.microsoft.portable-executable"), true),
        (&program, "setup.exe", Some("application/vnd.microsoft.portable-executable"), false),
        (&program, "setup.exe. ", Some("application/vnd.microsoft.portable-executable"), false),
        (&real("pdf"), "a.txt", Some("application/pdf"), true),
        (&real("pdf"), "a.ai", Some("application/pdf"), false),
        (&real("pdf"), "a.xyz", Some("application/pdf"), false),
        (&real("png"), "a.jpg", Some("image/png"), false),
        (&real("png"), "a.docx", Some("image/png"), true),
        (&real("zip"), "a.jpg", Some(ZIP), true),
        (&real("zip"), "a.docx", Some(DOCX), false),
        (&real("zip"), "a.apk", Some("application/vnd.android.package-archive"), false),
        (&real("docx"), "a.zip", Some(DOCX), true),
        (&real("docx"), "a.doc", Some(DOCX), false),
        (&real("docx"), "a.docm", Some("application/vnd.ms-word.document.macroenabled.12"), false),
        (&real("rtf"), "a.doc", Some("application/rtf"), false),
        (&real("html"), "a.xls", Some("text/html"), false),
        (&real("html"), "a.jpg", Some("text/html"), true),
        (&ole, "a.doc", Some("application/msword"), false),
        (&ole, "encrypted.xlsx", Some(XLSX), false),
        (&ole, "a.jpg", Some(OLE), true),
        (&real("json"), "a.ipynb", Some("application/x-ipynb+json"), false),
        (&real("eml"), "a.txt", Some("message/rfc822"), false),
        (b"", "a.jpg", Some("image/jpeg"), false),
    ];
    for (bytes, name, most_likely, is_mismatch) in cases {
        let found = ContentType::of(sniff(bytes), name);
        assert_eq!((found.most_likely, found.is_mismatch), (*most_likely, *is_mismatch), "{name}: {found:?}");
    }
}

#[test]
fn texts_are_told_apart() {
    let cases: &[(&str, &str)] = &[
        ("BM is no bitmap, MZ no program", TEXT),
        ("MZ", TEXT),
        ("%PDF-1.7\n", "application/pdf"),
        ("#!/usr/bin/env -S python3.12 -u\n", "text/x-python"),
        ("#! /bin/bash -e", "text/x-shellscript"),
        ("#!/usr/bin/env node", "text/javascript"),
        ("#!/usr/bin/awk -f", "text/x-script"),
        ("<?php echo 1;", "text/x-php"),
        ("  <!-- a --><!DOCTYPE html>\n<html>", "text/html"),
        ("<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a 'b>'>]><svg/>", "image/svg+xml"),
        ("<?xml version='1.0'?>\n<a>", "text/xml"),
        ("<jo@example.com>", TEXT),
        ("{\"a\": [1, 2]}", "application/json"),
        ("{\"a\": 1}\n{\"a\": 2}\n", "application/x-ndjson"),
        ("[section]\nkey = 1\n", TEXT),
        ("{ not json }", TEXT),
        ("BEGIN:VCALENDAR\r\nVERSION:2.0", "text/calendar"),
        ("begin:vcard\n", "text/vcard"),
        ("-----BEGIN CERTIFICATE-----\n", "application/x-pem-file"),
        ("@echo off\r\n", "application/x-bat"),
        ("Received: from a\r\n\tby b\r\nFrom: a@b\r\n\r\nHi", "message/rfc822"),
        ("From a@b Mon Nov 23 19:00:00 2026\nFrom: a@b\nTo: c@d\n\nHi", "application/mbox"),
        ("From: a letter\nthat goes on", TEXT),
        ("Dear Jo:\nthe date: tomorrow\n", TEXT),
    ];
    for (text, expected) in cases {
        assert_eq!(sniff(text.as_bytes()), Some(*expected), "{text:?}");
        let marked = format!("\u{feff}{text}");
        if !text.starts_with(' ') {
            assert_eq!(sniff(marked.as_bytes()), Some(*expected), "{marked:?}");
            let utf_16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert_eq!(sniff(&utf_16), Some(*expected), "{marked:?} in UTF-16");
        }
    }
}

#[test]
fn old_encodings_are_text_and_noise_is_nothing() {
    assert_eq!(sniff(b"Gr\xFC\xDFe aus K\xF6ln\r\n"), Some(TEXT));
    assert_eq!(sniff(b"<html>Gr\xFC\xDFe</html>"), Some("text/html"));
    assert_eq!(sniff(b"\x93\xFA\x96\x7B\x8C\xEA"), Some(TEXT));
    assert_eq!(sniff(b"\x00\x01\x02\x03\xFF\xFE"), None);
}

#[test]
fn containers_are_opened() {
    let entry = |name: &str, flags: u8, method: u8, bytes: &[u8]| -> Vec<u8> {
        let size = if flags & 8 == 0 { bytes.len() as u32 } else { 0 };
        let mut entry = b"PK\x03\x04\x14\0".to_vec();
        entry.extend([flags, 0, method, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        entry.extend(size.to_le_bytes());
        entry.extend(size.to_le_bytes());
        entry.extend([name.len() as u8, 0, 0, 0]);
        [&entry, name.as_bytes(), bytes].concat()
    };
    let word = [entry("[Content_Types].xml", 0, 8, b"xx"), entry("word/media/a.png", 0, 8, b"yy")].concat();
    assert_eq!(sniff(&word), Some(DOCX));
    // A Word file inside a ZIP file does not make that one a Word file.
    assert_eq!(sniff(&entry("a.docx", 0, 0, &word)), Some(ZIP));
    assert_eq!(sniff(&entry("a.docx", 8, 0, &word)), Some(ZIP));
    assert_eq!(sniff(&entry("word/media/a.png", 0, 8, b"yy")), Some(ZIP));
    assert_eq!(sniff(&entry("META-INF/MANIFEST.MF", 8, 8, b"yy")), Some("application/java-archive"));
    assert_eq!(sniff(b"PK\x05\x06"), Some(ZIP));
}

#[test]
fn formats_that_mails_carry_are_known() {
    let cases: &[(&[u8], &str)] = &[
        (b"\x78\x9F\x3E\x22\0\0", "application/vnd.ms-tnef"),
        (b"L\0\0\0\x01\x14\x02\0\0", "application/x-ms-shortcut"),
        (b"\x30\x82\x10\x00\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x07\x02\xA0", "application/pkcs7-mime"),
        (b"\xCB\x0D\x0D\x0A\0\0\0\0\x01\x02\x03", "application/x-python-code"),
        (b"BM\x36\0\0\0\0\0\0\0\x36\0", "image/bmp"),
        (b"\x1F\x8B\x08\0", "application/gzip"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(sniff(bytes), Some(*expected));
    }
    assert_eq!(sniff(b"\x30\x82\x10\x00\x02\x01"), None);
}

#[test]
fn every_category_is_written_once() {
    let mut words: Vec<&str> = Category::ALL.iter().map(|category| category.as_str()).collect();
    words.dedup();
    assert_eq!(words.len(), 13);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Danger: an attachment is chosen by whoever sends it.
    #[test]
    fn no_bytes_make_it_panic(
        magic in prop::sample::select(vec![
            b"".as_slice(), b"PK\x03\x04", b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", b"\xFF\xFE", b"\xFE\xFF", b"<", b"<!", b"{",
            b"#!", b"From ", b"\x28\xB5\x2F\xFD", b"\x50\x2A\x4D\x18", b"\x1A\x45\xDF\xA3", b"\0\0\0\x18ftyp", b"\x30\x82", b"PAR2",
        ]),
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        name: String,
        is_whole: bool,
    ) {
        ContentType::of(by_bytes(&[magic, &bytes].concat(), is_whole), &name);
    }

    /// Text that is cut anywhere, within a character too, stays text.
    #[test]
    fn a_cut_does_not_turn_text_into_noise(text in "[a-zäß€😀 ]{1,40}", cut in 0..3_usize) {
        let utf_8 = &text.as_bytes()[..text.len() - cut.min(text.len() - 1)];
        prop_assert_eq!(by_bytes(utf_8, false), Some(TEXT));
        let utf_16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        prop_assert_eq!(by_bytes(&utf_16[..utf_16.len() - cut.min(utf_16.len() - 2)], false), Some(TEXT));
    }
}
