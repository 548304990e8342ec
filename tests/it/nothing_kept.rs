//! Promise 3: attachment bytes are never written to disk, and message bodies are never requested.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::least_privilege::{all_rows, files};
use crate::support::{Lake, Tenant, ended, write};

/// Text that is in attachments and nowhere else.
const CANARY: &str = "kX7Qm2Zp9LrT4vWb8NcY6sHd3JfG5aEu";

/// Text that is in bodies and nowhere else.
const BODY: &str = "Wq3Tn8Jb5VxZ7cKd2RmP9fLh4GsY6aEo";

/// What could write to a file, or hide that it does; and what reads, which shows that the witness sees.
const CALLS: &str = "trace=open,openat,openat2,creat,memfd_create,mmap,write,pwrite64,writev,pwritev,pwritev2,sendfile,\
    copy_file_range,splice,vmsplice,io_uring_setup,read,readv,recvfrom,recvmsg";

/// The text as it would show in a trace, whatever the encoding in which it came.
fn forms(text: &str) -> Vec<String> {
    // Base64 of a text depends on its place in a group of three; the characters at both ends on its neighbours.
    let encoded = |before: usize| {
        let code = STANDARD.encode([&vec![b' '; before][..], text.as_bytes()].concat());
        code[4..code.len() - 4].to_owned()
    };
    vec![text.to_owned(), encoded(0), encoded(1), encoded(2)]
}

/// `strace`, installed where it is missing and we may.
fn strace() -> &'static str {
    static STRACE: OnceLock<()> = OnceLock::new();
    STRACE.get_or_init(|| {
        let is_there = || Command::new("strace").arg("--version").output().is_ok();
        if !is_there() {
            for arguments in [&["update"][..], &["install", "--yes", "--no-install-recommends", "strace"]] {
                // Whether it worked shows below.
                let _ = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").output();
            }
        }
        assert!(is_there(), "this test needs `strace`: install it, or run as root where apt-get can");
    });
    "strace"
}

fn mail(number: usize, parts: &[String]) -> String {
    let head = format!(
        "From: ann@contoso.example\r\nTo: partner@fabrikam.example\r\nMessage-ID: <{number}@contoso.example>\r\n\
         Date: Mon, 2 Nov 2026 10:00:0{number} +0000\r\nSubject: Files {number}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=outer{number}\r\n\r\n\
         --outer{number}\r\nContent-Type: text/plain\r\n\r\nThe body: {BODY}\r\n"
    );
    let parts: String = parts.iter().map(|part| format!("--outer{number}\r\n{part}\r\n")).collect();
    format!("{head}{parts}--outer{number}--\r\n")
}

fn part(kind: &str, name: &str, encoding: &str, content: &str) -> String {
    format!(
        "Content-Type: {kind}; name=\"{name}\"\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: {encoding}\r\n\r\n{content}"
    )
}

fn base64_lines(bytes: &[u8]) -> String {
    let code = STANDARD.encode(bytes);
    code.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join("\r\n")
}

/// Canaries plain, in Base64, in quoted-printable, in an attached message, and in one that is larger than every buffer.
fn write_corpus(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let large = format!("{CANARY} of a large file\n").repeat(60_000);
    let inner = format!(
        "From: eve@fabrikam.example\r\nTo: ann@contoso.example\r\nSubject: Fwd\r\nMessage-ID: <inner@fabrikam.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=inner\r\n\r\n--inner\r\nContent-Type: text/plain\r\n\r\n{CANARY} in the attached message\r\n\
         --inner\r\n{}\r\n--inner--\r\n",
        part("application/octet-stream", "nested.bin", "base64", &base64_lines(format!("in it: {CANARY}").as_bytes()))
    );
    let mails = [
        mail(1, &[part("text/plain", "plain.txt", "7bit", &format!("secret: {CANARY}\r\n"))]),
        mail(
            2,
            &[
                part(
                    "application/octet-stream",
                    "coded.bin",
                    "base64",
                    &base64_lines(format!("\0\x01{CANARY}\0").as_bytes()),
                ),
                part("text/plain", "quoted.txt", "quoted-printable", &format!("caf=C3=A9 {CANARY}=\r\n!")),
            ],
        ),
        mail(3, &[format!("Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n{inner}")]),
        mail(4, &[part("application/octet-stream", "large.bin", "base64", &base64_lines(large.as_bytes()))]),
    ];
    for (number, mail) in mails.iter().enumerate() {
        write(&folder.join(format!("{number}.eml")), mail);
    }
}

/// Danger: a temporary file, a spill, a log or a checkpoint keeps bytes of an attachment.
/// Provoked: attachments with a canary; the kernel tells what the whole process wrote, and where.
#[test]
fn no_byte_of_an_attachment_reaches_a_file_and_no_body_is_asked_for() {
    let lake = Lake::temp();
    let beside = lake.beside();
    write_corpus(&beside.join("corpus"));
    let tenant = Tenant::start(&["--corpus", beside.join("corpus").to_str().unwrap(), "--shift-dates", "now"]);
    lake.add(&tenant, "Test", &[]);
    let (trace, temporary, home) = (beside.join("trace"), beside.join("tmp"), beside.join("home"));
    std::fs::create_dir(&temporary).unwrap();
    std::fs::create_dir(&home).unwrap();
    let run = lake.run_command("Test");
    let mut command = Command::new(strace());
    command
        .args(["-f", "-y", "-qq", "-s", "4000000", "-e", CALLS, "-o"])
        .arg(&trace)
        .arg("--")
        .arg(run.get_program())
        .args(run.get_args());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(&home).env("HOME", &home).env("TMPDIR", &temporary).env("WAYBILL_LOG", "trace");
    let output = command.output().unwrap();
    let (exit, report) = ended(&output);
    assert_eq!(exit, 0, "{report:#}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(report["hashed"], 5, "{report:#}");

    let trace = String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).into_owned();
    let (canary, body) = (forms(CANARY), forms(BODY));
    let holds = |line: &str, forms: &[String]| forms.iter().any(|form| line.contains(form.as_str()));
    let lake_path = lake.path().to_str().unwrap().to_owned();
    let (mut received, mut written) = (0, 0);
    for line in trace.lines() {
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        let name = call.trim_start_matches("<... ").split(['(', ' ']).next().unwrap_or_default();
        let shown = &call[..call.len().min(300)];
        match name {
            "read" | "readv" | "recvfrom" | "recvmsg" => {
                received += u64::from(holds(call, &canary));
                assert!(!holds(call, &body), "a body came: {shown}");
            }
            "io_uring_setup" => panic!("what is written through a ring cannot be seen here: {shown}"),
            "memfd_create" => panic!("a file in memory: {shown}"),
            "open" | "openat" | "openat2" | "creat" => {
                let is_for_writing =
                    ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TMPFILE"].iter().any(|flag| call.contains(flag));
                let path = call.split('"').nth(1).unwrap_or_default();
                let is_allowed = path.starts_with(&lake_path) || path.starts_with("/dev/");
                assert!(
                    !is_for_writing || is_allowed || call.contains("= -1 "),
                    "a file outside of the lake is written: {shown}"
                );
            }
            "mmap" => {
                let is_shared = call.contains("MAP_SHARED") && call.contains("PROT_WRITE") && call.contains("</");
                assert!(!is_shared, "a file is written through memory: {shown}");
            }
            _ => {
                // Where `-y` shows a path, it is a file; sockets and pipes have no slash.
                let target = call.split_once('<').map_or("", |(_, rest)| rest);
                let is_file = target.starts_with('/') && !target.starts_with("/dev/");
                written += u64::from(is_file);
                assert!(!(holds(call, &canary) || holds(call, &body)), "it is written: {shown}");
            }
        }
    }
    assert!(received > 5, "the witness sees what comes ({received})");
    assert!(written >= 5, "the witness sees what is written ({written})");

    for folder in [&temporary, &home] {
        assert_eq!(files(folder), Vec::<std::path::PathBuf>::new(), "a file outside of the lake");
    }
    let mut forms = canary;
    forms.extend(body);
    for file in files(&lake.path()) {
        let bytes = std::fs::read(&file).unwrap();
        for form in &forms {
            assert!(memchr::memmem::find(&bytes, form.as_bytes()).is_none(), "{}", file.display());
        }
    }
    let rows = all_rows(&lake);
    assert!(rows.contains("large.bin") && !holds(&rows, &forms));
    assert!(
        !holds(&String::from_utf8_lossy(&output.stderr), &forms)
            && !holds(&String::from_utf8_lossy(&output.stdout), &forms)
    );
    assert_eq!(tenant.report()["body_requests"], 0);
}
