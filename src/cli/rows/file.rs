//! A file that is whole or not there: rows go to a name beside it, and the name changes at the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Code, Error, Result, ResultExt};
use crate::limits;

/// A file on its way. Dropped before its end, nothing of it stays, and what had its name before is as it was.
#[derive(Debug)]
pub(in crate::cli) struct OutputFile {
    target: PathBuf,
    part: PathBuf,
    writer: BufWriter<File>,
    is_finished: bool,
}

impl OutputFile {
    /// Begins a file of this name; one that exists is replaced at the end.
    ///
    /// # Errors
    /// `usage` when something else than a file has that name; `io`.
    pub(in crate::cli) fn create(path: &Path) -> Result<Self> {
        // A link stays a link, and what it names is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if fs::metadata(&target).is_ok_and(|there| !there.is_file()) {
            return Err(Error::new(Code::Usage, format!("`{}` is there and is no file", path.display())));
        }
        let Some(name) = target.file_name() else {
            return Err(Error::new(Code::Usage, format!("`{}` names no file", path.display())));
        };
        let part = target.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), Uuid::new_v4().simple()));
        let file = OpenOptions::new().write(true).create_new(true).open(&part);
        let file = file.or_error(Code::Io, format!("cannot create `{}`", path.display()))?;
        Ok(Self { target, part, writer: BufWriter::with_capacity(limits::FILE_BUFFER_BYTES, file), is_finished: false })
    }

    /// The name that it will have.
    pub(in crate::cli) fn path(&self) -> &Path {
        &self.target
    }

    /// How long it is now, to come back to with [`Self::cut`].
    ///
    /// # Errors
    /// `io`.
    pub(in crate::cli) fn mark(&mut self) -> Result<u64> {
        self.writer.stream_position().or_error(Code::Io, format!("cannot write to `{}`", self.target.display()))
    }

    /// Forgets what was written since.
    ///
    /// # Errors
    /// `io`.
    pub(in crate::cli) fn cut(&mut self, mark: u64) -> Result<()> {
        let mut cut = || {
            self.writer.seek(SeekFrom::Start(mark))?;
            self.writer.get_ref().set_len(mark)
        };
        cut().or_error(Code::Io, format!("cannot write to `{}`", self.target.display()))
    }

    /// Gives it its name. What is under the name is on the disk then.
    ///
    /// # Errors
    /// `io`.
    pub(in crate::cli) fn finish(mut self) -> Result<()> {
        let mut finish = || {
            self.writer.flush()?;
            self.writer.get_ref().sync_all()?;
            fs::rename(&self.part, &self.target)
        };
        finish().or_error(Code::Io, format!("cannot write `{}`", self.target.display()))?;
        self.is_finished = true;
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        // The buffer decides when; `finish` flushes.
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if !self.is_finished
            && let Err(error) = fs::remove_file(&self.part)
        {
            tracing::warn!(file = %self.part.display(), %error, "an unfinished file could not be removed");
        }
    }
}

/// A new file that only its owner may read.
pub(in crate::cli) fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(names(folder.path()), [""; 0]);

        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        let mark = file.mark().unwrap();
        file.write_all(&vec![b'x'; 3 * limits::FILE_BUFFER_BYTES]).unwrap();
        file.cut(mark).unwrap();
        file.write_all(b" two").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
        assert_eq!(names(folder.path()), ["rows.csv"]);

        // What was there stays until the new one is whole, and a link stays a link.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = OutputFile::create(&link).unwrap();
        file.write_all(b"three").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(names(folder.path()), ["link", "rows.csv"]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for path in [Path::new("/dev/null"), folder.path(), Path::new("/"), Path::new("..")] {
            assert_eq!(OutputFile::create(path).unwrap_err().code(), Code::Usage, "{}", path.display());
        }
        let missing = folder.path().join("no/such/folder/rows.csv");
        assert_eq!(OutputFile::create(&missing).unwrap_err().code(), Code::Io);
        assert_eq!(OutputFile::create(Path::new("")).unwrap_err().code(), Code::Usage);
    }
}
