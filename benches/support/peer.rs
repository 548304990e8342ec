//! A peer written in Python, in a process of its own: a JSON line in, a JSON line out.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A script of `benches/` at work, with the packages that `tests/clients/setup` installs.
pub(crate) struct Python {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Python {
    /// Starts a script of `benches/`.
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let setup = Command::new(repository.join("tests/clients/setup"))
            .stderr(Stdio::inherit())
            .output()
            .expect("the clients' setup runs");
        let told = String::from_utf8(setup.stdout).expect("it prints text");
        let python = told.lines().find_map(|line| line.strip_prefix("python=")).expect("it installs Python");
        let mut child = Command::new(python)
            .arg(repository.join("benches").join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer starts");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, stdin, stdout }
    }

    /// Says a line, and gives the line that comes back.
    pub(crate) fn ask(&mut self, line: &Value) -> Value {
        writeln!(self.stdin, "{line}").expect("the peer listens");
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("the peer answers");
        serde_json::from_str(&answer).expect("the peer answers in JSON")
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
