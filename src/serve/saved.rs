//! Saved searches: questions that an organisation asks again, shared by everybody who may search.
//!
//! `serve/searches.json` in the lake holds them all. The console and the API show the same ones.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::clock::Time;
use crate::error::{Code, Error, Result, ResultExt};
use crate::event::{Action, Change};
use crate::lake::{Lake, Versioned};
use crate::limits;
use crate::search::query::{Query, Term};

/// What a saved search asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// What people call it; unique, whatever its case.
    pub(crate) name: String,
    /// What it is for.
    #[serde(default)]
    pub(crate) notes: Option<String>,
    /// The terms whose values are shown; empty for the usual ones.
    #[serde(default)]
    pub(crate) columns: Vec<String>,
    /// Which events: the JSON form of the search model, as it was given.
    pub(crate) query: Value,
    /// The term by which the events are sorted.
    #[serde(default)]
    pub(crate) sort_key: Option<String>,
    /// The greatest first.
    #[serde(default)]
    pub(crate) is_descending: bool,
}

/// A saved search, and who did what to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedSearch {
    pub(crate) id: Uuid,
    #[serde(flatten)]
    pub(crate) wanted: Wanted,
    pub(crate) created: Time,
    pub(crate) created_by: String,
    pub(crate) modified: Time,
    pub(crate) modified_by: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    /// Counts the changes.
    revision: i64,
    searches: Vec<SavedSearch>,
}

/// The saved searches of a lake.
pub(crate) struct Saved<'a> {
    lake: &'a Lake,
}

impl Wanted {
    /// The search that it asks.
    ///
    /// # Errors
    /// `usage` when it is none, as one from a newer Waybill might not be.
    pub(crate) fn query(&self) -> Result<Query> {
        Query::from_json(&self.query).map_err(|findings| crate::search::query::Finding::error(&findings))
    }

    fn check(mut self) -> Result<Self> {
        let refuse = |why: String| Err(Error::new(Code::Usage, format!("a search cannot be saved so: {why}")));
        self.name = crate::connection::display_name(&self.name)?;
        self.notes = self.notes.filter(|notes| !notes.trim().is_empty());
        if self.notes.as_ref().is_some_and(|notes| notes.chars().count() > limits::SAVED_SEARCH_NOTES_LETTERS) {
            return refuse(format!("its notes have more than {} letters", limits::SAVED_SEARCH_NOTES_LETTERS));
        }
        if self.columns.len() > limits::SAVED_SEARCH_COLUMNS {
            return refuse(format!("it has more than {} columns", limits::SAVED_SEARCH_COLUMNS));
        }
        if let Some(unknown) = self.columns.iter().chain(&self.sort_key).find(|term| Term::parse(term).is_none()) {
            return refuse(format!("there is no term `{unknown}`"));
        }
        self.query()?;
        Ok(self)
    }
}

impl<'a> Saved<'a> {
    /// Those of a lake.
    pub(crate) fn of(lake: &'a Lake) -> Self {
        Self { lake }
    }

    /// Every saved search, by name.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub(crate) async fn list(&self) -> Result<Vec<SavedSearch>> {
        let mut searches = self.read().await?.0.searches;
        searches.sort_by_key(|search| search.wanted.name.to_lowercase());
        Ok(searches)
    }

    /// One of them; nothing when there is none.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-damaged`.
    pub(crate) async fn find(&self, id: Uuid) -> Result<Option<SavedSearch>> {
        Ok(self.read().await?.0.searches.into_iter().find(|search| search.id == id))
    }

    /// Saves a search, as a new one or in the place of another; nothing when there is no other.
    ///
    /// # Errors
    /// `usage` when it is no search, its name is taken or there are too many; `connection-conflict` when somebody else
    /// saves at the same moment; `lake-unavailable`, `lake-not-writable`, `lake-damaged`.
    pub(crate) async fn put(
        &self,
        wanted: Wanted,
        over: Option<Uuid>,
        by: &str,
        now: Time,
    ) -> Result<Option<SavedSearch>> {
        let wanted = wanted.check()?;
        let (mut document, version) = self.read().await?;
        let is_called_so = |search: &&SavedSearch| {
            search.wanted.name.to_lowercase() == wanted.name.to_lowercase() && over != Some(search.id)
        };
        if document.searches.iter().find(is_called_so).is_some() {
            return Err(Error::new(Code::Usage, format!("there is a saved search `{}` already", wanted.name)));
        }
        let (modified, modified_by) = (now, by.to_owned());
        let detail = format!("search `{}`", wanted.name);
        let saved = match over {
            Some(id) => {
                let Some(search) = document.searches.iter_mut().find(|search| search.id == id) else { return Ok(None) };
                *search = SavedSearch { wanted, modified, modified_by, ..search.clone() };
                search.clone()
            }
            None => {
                if document.searches.len() >= limits::SAVED_SEARCHES {
                    let most = limits::SAVED_SEARCHES;
                    return Err(Error::new(
                        Code::Usage,
                        format!("there are {most} saved searches, and no room for more"),
                    ));
                }
                let (created, created_by) = (now, by.to_owned());
                let search = SavedSearch { id: Uuid::new_v4(), wanted, created, created_by, modified, modified_by };
                document.searches.push(search.clone());
                search
            }
        };
        self.write(document, version.as_ref(), Action::SearchSaved, by, now, detail).await?;
        Ok(Some(saved))
    }

    /// Removes one; nothing when there is none.
    ///
    /// # Errors
    /// Like [`Self::put`].
    pub(crate) async fn remove(&self, id: Uuid, by: &str, now: Time) -> Result<Option<SavedSearch>> {
        let (mut document, version) = self.read().await?;
        let Some(index) = document.searches.iter().position(|search| search.id == id) else { return Ok(None) };
        let removed = document.searches.remove(index);
        let detail = format!("search `{}`", removed.wanted.name);
        self.write(document, version.as_ref(), Action::SearchRemoved, by, now, detail).await?;
        Ok(Some(removed))
    }

    async fn read(&self) -> Result<(Document, Option<Versioned>)> {
        let Some(version) = self.lake.saved_searches().await? else { return Ok((Document::default(), None)) };
        let document = serde_json::from_slice(&version.bytes)
            .or_error(Code::LakeDamaged, "the lake's document of saved searches cannot be read")?;
        Ok((document, Some(version)))
    }

    async fn write(
        &self,
        mut document: Document,
        over: Option<&Versioned>,
        action: Action,
        by: &str,
        now: Time,
        detail: String,
    ) -> Result<()> {
        document.revision += 1;
        let bytes = serde_json::to_vec_pretty(&document).or_error(Code::Internal, "cannot write the saved searches")?;
        self.lake.put_saved_searches(bytes, over).await?;
        let change = Change {
            change_id: Uuid::new_v4().to_string(),
            changed_at: now,
            actor: by.to_owned(),
            action,
            connection_id: None,
            connection_name: None,
            status: None,
            status_before: None,
            code: None,
            detail: Some(detail),
            run_id: None,
        };
        self.lake.record(&[change], "searches", document.revision).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(name: &str) -> Wanted {
        let query = json!({"groups": [{"filters": [{"term": "file.name", "operator": "IS", "value": "*.pdf"}]}]});
        Wanted {
            name: name.to_owned(),
            notes: None,
            columns: vec!["file.name".to_owned()],
            query,
            sort_key: Some("@timestamp".to_owned()),
            is_descending: true,
        }
    }

    #[tokio::test]
    async fn a_search_is_saved_replaced_and_removed_and_its_name_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let (saved, now) = (Saved::of(&lake), Time::UNIX_EPOCH);
        let later = now + chrono::Duration::days(1);
        let first = saved.put(wanted(" PDFs "), None, "ann", now).await.unwrap().unwrap();
        assert_eq!((first.wanted.name.as_str(), first.modified_by.as_str()), ("PDFs", "ann"));
        assert_eq!(saved.put(wanted("pdfs"), None, "bob", now).await.unwrap_err().code(), Code::Usage);
        let second = saved.put(wanted("PDFS"), Some(first.id), "bob", later).await.unwrap().unwrap();
        assert_eq!((second.created_by.as_str(), second.modified_by.as_str(), second.modified), ("ann", "bob", later));
        assert_eq!(saved.list().await.unwrap(), std::slice::from_ref(&second));
        assert_eq!(saved.find(first.id).await.unwrap(), Some(second.clone()));
        assert_eq!(saved.put(wanted("x"), Some(Uuid::new_v4()), "bob", now).await.unwrap(), None);
        assert_eq!(saved.remove(first.id, "ann", later).await.unwrap(), Some(second));
        assert_eq!(saved.remove(first.id, "ann", later).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_search_is_not_saved() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        for bad in [
            Wanted { name: String::new(), ..wanted("") },
            Wanted { query: json!({}), ..wanted("x") },
            Wanted { query: json!({"groups": [{}]}), ..wanted("x") },
            Wanted { columns: vec!["file.nme".to_owned()], ..wanted("x") },
            Wanted { sort_key: Some("file.nme".to_owned()), ..wanted("x") },
            Wanted { notes: Some("x".repeat(limits::SAVED_SEARCH_NOTES_LETTERS + 1)), ..wanted("x") },
        ] {
            let refused = Saved::of(&lake).put(bad.clone(), None, "ann", Time::UNIX_EPOCH).await;
            assert_eq!(refused.unwrap_err().code(), Code::Usage, "{bad:?}");
        }
    }
}
