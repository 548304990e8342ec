//! Every path below the root of a lake, built and parsed here and nowhere else.
//!
//! ```text
//! <lake>/file_events/ runs/ gaps/ quarantine/
//!        changes/ scope_members/                  Delta tables
//!        connections/<id>.json                    registry
//!        serve/tokens.json                        hashes of the server's API tokens
//!        serve/searches.json                      saved searches
//!        risk.toml                                rules of risk, where they are not the default ones
//!        checkpoints/<id>/<n>.json                state of a connection, or of a shard of it; the log of file_events
//!                                                 names the effective n
//! ```

use object_store::path::Path;
use uuid::Uuid;

/// The registry's folder.
pub(crate) fn connections(root: &Path) -> Path {
    root.clone().join("connections")
}

/// One connection's record.
pub(crate) fn connection(root: &Path, id: Uuid) -> Path {
    connections(root).join(format!("{id}.json"))
}

/// The document of the server's API tokens.
pub(crate) fn tokens(root: &Path) -> Path {
    root.clone().join("serve").join("tokens.json")
}

/// The document of the saved searches.
pub(crate) fn saved_searches(root: &Path) -> Path {
    root.clone().join("serve").join("searches.json")
}

/// The rules of risk.
pub(crate) fn risk_rules(root: &Path) -> Path {
    root.clone().join("risk.toml")
}

/// An object that says whether writing works; gone at once.
pub(crate) fn probe(root: &Path, id: Uuid) -> Path {
    root.clone().join("checkpoints").join(format!("probe-{id}"))
}

/// The folder of a connection's checkpoints.
pub(crate) fn checkpoints(root: &Path, connection: Uuid) -> Path {
    root.clone().join("checkpoints").join(connection.to_string())
}

/// One checkpoint. The number is padded so that a listing is in order.
pub(crate) fn checkpoint(root: &Path, connection: Uuid, number: i64) -> Path {
    checkpoints(root, connection).join(format!("{number:020}.json"))
}

/// The number of a checkpoint's path; `None` for anything else.
pub(crate) fn checkpoint_number(path: &Path) -> Option<i64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}

/// A table's folder.
pub(crate) fn table(root: &Path, name: &str) -> Path {
    root.clone().join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_path_tells_its_number() {
        let path = checkpoint(&Path::from("a/lake"), Uuid::nil(), 42);
        assert_eq!(checkpoint_number(&path), Some(42));
        assert_eq!(checkpoint_number(&Path::from("checkpoints/x.json")), None);
    }
}
