//! Names as rows want them: base names and extensions of files, addresses and their domains.
//!
//! All input is hostile: names carry paths, line breaks and tricks, addresses are X.500 names of old Exchange servers.
//! Nothing is lost: where a name was changed, the raw one is kept beside it.

/// An attachment's name, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileName {
    /// The base name; `None` when nothing of the name is left.
    pub name: Option<String>,
    /// The extension, lower-case, without the dot.
    pub extension: Option<String>,
    /// The raw name, when it is more than the base name.
    pub path: Option<String>,
}

impl FileName {
    /// Takes the name of a file apart: `C:\plans\A.PDF` is `A.PDF`, `pdf`, and the whole as the path.
    pub fn of_file(raw: &str) -> Self {
        Self::keep(raw, base_name(raw))
    }

    /// Takes the name of an attached message, event or contact apart: it is a subject, so `Offer 1/2` is no path.
    pub fn of_item(raw: &str) -> Self {
        Self { extension: None, ..Self::keep(raw, raw) }
    }

    fn keep(raw: &str, base: &str) -> Self {
        let name: String = base.chars().filter(|c| !c.is_control()).collect();
        let name = name.trim();
        Self {
            name: (!name.is_empty()).then(|| name.to_owned()),
            extension: extension(name),
            path: (!raw.is_empty() && name != raw).then(|| raw.to_owned()),
        }
    }
}

/// What follows the last separator of a Windows or Unix path; separators at the end do not count.
fn base_name(path: &str) -> &str {
    let is_separator = |c| c == '/' || c == '\\';
    let base = path.trim().trim_end_matches(is_separator);
    let base = base.rsplit(is_separator).next().unwrap_or(base);
    // `C:plan.pdf` is relative to the current folder of a drive.
    match base.as_bytes() {
        [drive, b':', _, ..] if drive.is_ascii_alphabetic() => &base[2..],
        _ => base,
    }
}

/// Longer ones are no extensions but ends of sentences; the longest in use has about 20 letters.
const EXTENSION_CHARS: usize = 32;

/// The extension of a base name: lower-case, without the dot. `.profile` and `Version 1. Final` have none. Dots and
/// spaces at the end do not count, as on Windows, which opens `plan.exe. ` as a program.
pub fn extension(name: &str) -> Option<String> {
    let (stem, extension) = name.trim_end_matches(['.', ' ']).rsplit_once('.')?;
    let is_word = |c: char| c.is_alphanumeric() || "_-+~$#!@{}".contains(c);
    let fits = !extension.is_empty() && extension.chars().count() <= EXTENSION_CHARS;
    (!stem.trim().is_empty() && fits && extension.chars().all(is_word)).then(|| extension.to_lowercase())
}

/// An address as rows have it: trimmed, lower-case, without the angle brackets and the `smtp:` or `mailto:` that some
/// services put around it. `None` when nothing is left. X.500 names stay as they are, in lower case.
pub fn address(raw: &str) -> Option<String> {
    let mut address = raw.trim().to_lowercase();
    if address.starts_with('<') && address.ends_with('>') {
        address = address[1..address.len() - 1].trim().to_owned();
    }
    for prefix in ["smtp:", "mailto:"] {
        if let Some(rest) = address.strip_prefix(prefix) {
            address = rest.trim().to_owned();
        }
    }
    (!address.is_empty()).then_some(address)
}

/// The domain of an address in lower case; punycode stays punycode. An X.500 name has none.
pub fn domain_of(address: &str) -> Option<String> {
    let (_, domain) = address.rsplit_once('@')?;
    let domain = domain.trim().trim_end_matches(['>', '.']);
    let is_sound = !domain.is_empty() && !domain.contains(|c: char| c.is_whitespace() || c == '/' || c == '=');
    is_sound.then(|| domain.to_lowercase())
}

/// The addresses of a list, normalised; what is empty is left out.
pub fn addresses<'a>(raw: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    raw.into_iter().filter_map(address).collect()
}

/// All recipients, each once, in the order in which the lists name them.
pub fn recipients<'a>(lists: impl IntoIterator<Item = &'a [String]>) -> Vec<String> {
    once(lists.into_iter().flatten().filter_map(|recipient| address(recipient)))
}

/// The domains of recipients, each once, in order.
pub fn recipient_domains(recipients: &[String]) -> Vec<String> {
    once(recipients.iter().filter_map(|recipient| domain_of(recipient)))
}

fn once(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(raw: &str) -> (Option<String>, Option<String>, Option<String>) {
        let FileName { name, extension, path } = FileName::of_file(raw);
        (name, extension, path)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_plain_name_has_no_path() {
        assert_eq!(file("Plan 2.PDF"), (some("Plan 2.PDF"), some("pdf"), None));
        assert_eq!(file("a.tar.gz"), (some("a.tar.gz"), some("gz"), None));
        assert_eq!(file("Zeichnung Größe.DWG"), (some("Zeichnung Größe.DWG"), some("dwg"), None));
        assert_eq!(file(".profile"), (some(".profile"), None, None));
        assert_eq!(file("Version 1. Final plan"), (some("Version 1. Final plan"), None, None));
        assert_eq!(file(""), (None, None, None));
    }

    #[test]
    fn a_path_keeps_its_base_name_and_itself() {
        for path in [r"C:\plans\A.PDF", r"\\server\share\A.PDF", "/home/jo/A.PDF", "../../A.PDF", "C:A.PDF", "x/A.PDF/"]
        {
            assert_eq!(file(path), (some("A.PDF"), some("pdf"), some(path)));
        }
        assert_eq!(file("a\r\nb.txt"), (some("ab.txt"), some("txt"), some("a\r\nb.txt")));
        assert_eq!(file("\u{0}"), (None, None, some("\u{0}")));
        assert_eq!(file(r"\"), (None, None, some(r"\")));
    }

    #[test]
    fn an_extension_is_what_windows_would_open() {
        assert_eq!(extension("plan.exe. "), some("exe"));
        assert_eq!(extension("invoice\u{202e}fdp.exe"), some("exe"));
    }

    #[test]
    fn the_name_of_an_item_is_a_subject() {
        let name = FileName::of_item("Offer 1/2.5");
        assert_eq!(name, FileName { name: some("Offer 1/2.5"), extension: None, path: None });
    }

    #[test]
    fn addresses_are_lower_case_and_bare() {
        assert_eq!(address(" <Jo@Example.COM> "), some("jo@example.com"));
        assert_eq!(address("SMTP:Jo@Example.COM"), some("jo@example.com"));
        assert_eq!(address("<>"), None);
        assert_eq!(address("/O=ORG/OU=EXCHANGE/CN=JO"), some("/o=org/ou=exchange/cn=jo"));
    }

    #[test]
    fn a_domain_is_what_follows_the_last_at_sign() {
        assert_eq!(domain_of("jo@Example.COM"), some("example.com"));
        assert_eq!(domain_of("\"a@b\"@xn--bcher-kva.example."), some("xn--bcher-kva.example"));
        assert_eq!(domain_of("/o=org/cn=jo@hn"), some("hn"));
        assert_eq!(domain_of("/o=org/cn=jo"), None);
        assert_eq!(domain_of("jo@"), None);
    }

    #[test]
    fn recipients_are_named_once_in_order() {
        let to = ["B@x.com".to_owned(), "a@y.com".to_owned()];
        let cc = ["b@X.com".to_owned(), "/O=ORG/CN=JO".to_owned()];
        let bcc = ["c@x.com".to_owned(), String::new()];
        let all = recipients([&to[..], &cc, &bcc]);
        assert_eq!(all, ["b@x.com", "a@y.com", "/o=org/cn=jo", "c@x.com"]);
        assert_eq!(recipient_domains(&all), ["x.com", "y.com"]);
    }

    proptest::proptest! {
        #[test]
        fn names_never_panic_and_nothing_is_lost(raw: String) {
            let FileName { name, path, .. } = FileName::of_file(&raw);
            proptest::prop_assert!(raw.is_empty() || path.as_deref().or(name.as_deref()) == Some(&raw));
            address(&raw);
            domain_of(&raw);
        }
    }
}
