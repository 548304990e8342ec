//! Other people's programs, installed by `tests/clients/setup`.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{Process, WAYBILL, clean, repository};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(60);

/// Where the installed programs are: python, moto_server, azurite_blob, strace, systemd-analyze, airflow_python.
static TOOLS: LazyLock<Result<BTreeMap<String, PathBuf>, String>> = LazyLock::new(|| {
    let setup = repository("tests/clients/setup");
    let output = clean(Command::new(&setup)).output().map_err(|error| format!("cannot start {setup:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{setup:?} failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, path)| (name.to_owned(), path.into()))
        .collect())
});

/// Whether a test that needs other people's programs is to be left out, which it says.
pub(crate) fn is_offline() -> bool {
    let is_offline = std::env::var_os("WAYBILL_TEST_OFFLINE").is_some_and(|value| value == "1");
    if is_offline {
        println!("skipped: WAYBILL_TEST_OFFLINE=1, and this test needs programs that tests/clients/setup installs");
    }
    is_offline
}

/// A command of an installed program.
pub(crate) fn tool(name: &str) -> Command {
    clean(Command::new(path(name)))
}

/// Where something installed is.
pub(crate) fn path(name: &str) -> &'static Path {
    let tools = TOOLS.as_ref().unwrap_or_else(|error| {
        panic!("the tests need other people's programs (WAYBILL_TEST_OFFLINE=1 leaves these tests out): {error}")
    });
    tools.get(name).unwrap_or_else(|| panic!("tests/clients/setup does not print `{name}=`"))
}

/// Runs one of `tests/clients/*.py`, which must succeed; what it said is shown if it does not.
pub(crate) fn python(script: &str, arguments: &[&str]) {
    python_of("python", script, arguments);
}

/// The same with another Python than the one that most packages are installed for.
pub(crate) fn python_of(python: &str, script: &str, arguments: &[&str]) {
    let mut command = tool(python);
    command.arg(repository("tests/clients").join(script)).args(arguments).env("WAYBILL_BIN", WAYBILL);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} ended with {}", output.status);
}

/// A server of an installed program, which says at its start where it listens.
pub(crate) struct Server {
    /// `http://127.0.0.1:…`
    pub(crate) url: String,
    _process: Process,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        // A file and no pipe: it goes on talking, and nobody listens.
        let mut log = tempfile::tempfile().unwrap();
        let mut command = tool(name);
        command.args(arguments).stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap()).stdin(Stdio::null());
        let mut process = Process::start(&mut command);
        let started = Instant::now();
        loop {
            let mut text = String::new();
            log.rewind().unwrap();
            log.read_to_string(&mut text).unwrap();
            if let Some(url) = listening(&text) {
                return Self { url, _process: process };
            }
            assert!(process.is_running() && started.elapsed() < START, "{name} does not listen: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The address in a whole line of the log.
fn listening(text: &str) -> Option<String> {
    let (before, rest) = text.split_once("http://127.0.0.1:")?;
    let digits = rest.find(|character: char| !character.is_ascii_digit())?;
    // Before it listens, azurite tells what it was asked for.
    (!before.is_empty() && &rest[..digits] != "0").then(|| format!("http://127.0.0.1:{}", &rest[..digits]))
}
