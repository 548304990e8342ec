//! `\e`: a statement in the person's editor.

use std::io::Write as _;
use std::process::Command;

use uuid::Uuid;

use crate::cli::{rows, sql};
use crate::error::{Code, Error, Result, ResultExt};

/// Opens `$VISUAL`, else `$EDITOR`, else `vi` on a statement; gives what the person left there. The line of the variable
/// is for the shell, as with every program that has an editor.
///
/// # Errors
/// `io` when there is no editor, or it failed.
pub(super) fn edit(statement: &str) -> Result<String> {
    let chosen = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|line| !line.is_empty()));
    let editor = chosen.unwrap_or_else(|| "vi".to_owned());
    let path = std::env::temp_dir().join(format!("waybill-{}.sql", Uuid::new_v4().simple()));
    let edited = (|| {
        let mut file = rows::private_file(&path).or_error(Code::Io, format!("cannot create `{}`", path.display()))?;
        let text = if statement.is_empty() { String::new() } else { format!("{statement};\n") };
        file.write_all(text.as_bytes()).or_error(Code::Io, format!("cannot write `{}`", path.display()))?;
        drop(file);
        let line = format!("{editor} \"$1\"");
        let ended = Command::new("sh").arg("-c").arg(line).arg("sh").arg(&path).status();
        let ended = ended.or_error(Code::Io, format!("cannot start `{editor}`"))?;
        if !ended.success() {
            return Err(Error::new(Code::Io, format!("`{editor}` failed: {ended}")));
        }
        Ok(sql::read(&path)?.trim_end().to_owned())
    })();
    // Where it was never made, there is nothing to remove.
    drop(std::fs::remove_file(&path));
    edited
}
