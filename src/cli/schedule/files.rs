//! Job files that may change while they are used: what is broken is reported, and what was there before stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Code, Error, Result, ResultExt};
use crate::job::JobFile;

/// The job files of some places: files, or folders of them.
pub(super) struct Files {
    places: Vec<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
}

/// What is known of a file.
#[derive(Default)]
pub(super) struct Known {
    /// Its age and size when it was last read.
    stamp: Option<(SystemTime, u64)>,
    /// What it said when it was last right.
    pub(super) job: Option<JobFile>,
    /// What is wrong with it now.
    pub(super) problem: Option<Error>,
}

impl Files {
    /// Nothing is read yet.
    pub(super) fn new(places: Vec<PathBuf>) -> Self {
        Self { places, known: BTreeMap::new() }
    }

    /// Each file with what is known of it.
    pub(super) fn known(&self) -> impl Iterator<Item = (&Path, &Known)> {
        self.known.iter().map(|(path, known)| (path.as_path(), known))
    }

    /// The jobs as their files say them, or said them when they were last right.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &JobFile> {
        self.known.values().filter_map(|known| known.job.as_ref())
    }

    /// A job by its name.
    pub(super) fn job(&self, name: &str) -> Option<&JobFile> {
        self.jobs().find(|job| job.name == name)
    }

    /// Reads what is new or changed, and forgets what is gone; the files of which there is something to tell.
    pub(super) fn reread(&mut self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let mut is_whole = true;
        for place in &self.places {
            match files_of(place) {
                Ok(files) => paths.extend(files),
                // A folder that cannot be listed for a moment does not take its jobs away.
                Err(_) => is_whole = false,
            }
        }
        if is_whole {
            self.known.retain(|path, _| paths.contains(path));
        }
        paths.into_iter().filter(|path| self.reread_one(path)).collect()
    }

    fn reread_one(&mut self, path: &Path) -> bool {
        let stamp = std::fs::metadata(path).and_then(|metadata| Ok((metadata.modified()?, metadata.len()))).ok();
        let before = self.known.get(path);
        if stamp.is_some() && before.is_some_and(|known| known.stamp == stamp) {
            return false;
        }
        let read = JobFile::read(path).and_then(|job| match self.holder(&job.name, path) {
            None => Ok(job),
            Some(other) => Err(Error::new(
                Code::Configuration,
                format!(
                    "cannot use the job file `{}`: `{}` has a job `{}`, too",
                    path.display(),
                    other.display(),
                    job.name
                ),
            )),
        });
        let known = self.known.entry(path.to_owned()).or_default();
        match read {
            Ok(job) => {
                let is_news = known.problem.is_some() || known.job.as_ref() != Some(&job);
                *known = Known { stamp, job: Some(job), problem: None };
                is_news
            }
            Err(error) => {
                let is_news = known.problem.as_ref().is_none_or(|problem| problem.message() != error.message());
                // Read again at each tick: what is wrong may lie in another file.
                known.stamp = None;
                known.problem = Some(error);
                is_news
            }
        }
    }

    fn holder(&self, name: &str, except: &Path) -> Option<&Path> {
        let has = |known: &Known| known.job.as_ref().is_some_and(|job| job.name == name);
        self.known().find(|(path, known)| *path != except && has(known)).map(|(path, _)| path)
    }

    /// What is wrong with a place itself.
    pub(super) fn check(&self) -> Result<()> {
        for place in &self.places {
            files_of(place)?;
        }
        if self.known.is_empty() {
            let places: Vec<String> = self.places.iter().map(|place| format!("`{}`", place.display())).collect();
            return Err(Error::new(
                Code::Configuration,
                format!("there is no job file (*.toml) in {}", places.join(", ")),
            ));
        }
        Ok(())
    }
}

/// The job files of a place.
fn files_of(place: &Path) -> Result<Vec<PathBuf>> {
    if !place.is_dir() {
        return Ok(vec![place.to_owned()]);
    }
    let doing = format!("cannot list the job files of `{}`", place.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(place).or_error(Code::Configuration, &doing)? {
        let path = entry.or_error(Code::Configuration, &doing)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, name: &str, cron: &str) {
        std::fs::write(path, format!("name = \"{name}\"\ncron = \"{cron}\"\n")).unwrap();
    }

    #[test]
    fn a_file_that_breaks_is_told_once_and_what_it_said_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        write(&path, "a", "5 * * * *");
        std::fs::write(folder.path().join("README.md"), "no job").unwrap();
        let mut files = Files::new(vec![folder.path().to_owned()]);
        assert_eq!(files.reread(), [path.as_path()]);
        assert_eq!(files.reread(), [] as [PathBuf; 0]);
        write(&path, "a", "65 * * * *");
        assert_eq!(files.reread(), [path.as_path()]);
        assert_eq!(files.reread(), [] as [PathBuf; 0], "told once");
        let (_, known) = files.known().next().unwrap();
        assert!(known.problem.as_ref().unwrap().message().contains("the minute `65`"));
        assert_eq!(files.job("a").unwrap().cron.to_string(), "5 * * * *");
        write(&path, "a", "15 * * * *");
        assert_eq!(files.reread(), [path.as_path()]);
        assert_eq!(files.job("a").unwrap().cron.to_string(), "15 * * * *");
        std::fs::remove_file(&path).unwrap();
        assert_eq!((files.reread().len(), files.jobs().count()), (0, 0));
        assert_eq!(files.check().unwrap_err().code(), Code::Configuration);
    }

    #[test]
    fn two_files_cannot_hold_one_job_until_one_of_them_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1.toml"), folder.path().join("2.toml"));
        write(&one, "a", "5 * * * *");
        write(&two, "a", "6 * * * *");
        let mut files = Files::new(vec![one.clone(), two.clone()]);
        files.reread();
        assert!(files.known().last().unwrap().1.problem.is_some());
        assert_eq!(files.jobs().count(), 1);
        write(&one, "renamed", "5 * * * *");
        files.reread();
        assert_eq!(files.jobs().count(), 2);
        assert!(files.known().all(|(_, known)| known.problem.is_none()));
        std::fs::remove_file(&two).unwrap();
        assert_eq!(files.reread(), [two]);
        assert_eq!(files.jobs().count(), 2, "a file that was named is waited for");
    }
}
