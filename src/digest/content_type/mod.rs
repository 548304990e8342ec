//! What a file is: by its first bytes, by its name, most likely, and whether the two contradict each other.
//!
//! The rule when they differ: bytes win when they are specific; the name wins when the bytes say only that it is some
//! text, some ZIP or some OLE file *and* the name claims something that such bytes can be. So `plan.docx` that begins
//! like any ZIP is a Word document, but `holiday.jpg` that holds text is text.
//!
//! | file | holds | most likely | contradiction |
//! |---|---|---|---|
//! | `a.docx` | ZIP | Word (the name says which ZIP) | no |
//! | `a.txt` | PDF | PDF (the bytes are specific) | yes |
//! | `a.jpg` | source code | text (a picture is never text) | yes |
//! | `a.jpg` | PNG | PNG | no (both are pictures, nobody hides anything) |
//! | `a.doc` | RTF | RTF | no (Word itself does that) |
//! | `a` | PDF | PDF | no (nothing was claimed) |
//! | `a.xyz` | PDF | PDF | no (nobody knows what was claimed, or what that looks like) |

mod bytes;
mod extension;

pub use bytes::by_bytes;
pub use extension::by_name;

/// Text of no particular kind.
pub(crate) const TEXT: &str = "text/plain";
/// A ZIP file of no particular kind.
pub(crate) const ZIP: &str = "application/zip";
/// An OLE compound file of no particular kind.
pub(crate) const OLE: &str = "application/x-ole-storage";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentType {
    /// What its first bytes show.
    pub by_bytes: Option<&'static str>,
    /// What its name claims.
    pub by_name: Option<&'static str>,
    /// The most likely of the two.
    pub most_likely: Option<&'static str>,
    /// What kind of thing that is.
    pub category: Category,
    /// Whether bytes and name contradict each other in a way that honest programs do not cause; read as an attempt to
    /// disguise the file.
    pub is_mismatch: bool,
}

impl ContentType {
    /// Weighs what the bytes show (from [`by_bytes`] or a [`Hasher`](crate::digest::Hasher)) against the file's name.
    pub fn of(by_bytes: Option<&'static str>, file_name: &str) -> Self {
        let by_name = by_name(file_name);
        let most_likely = match (by_bytes, by_name) {
            (Some(bytes), Some(name)) if refines(name, bytes) => Some(name),
            (bytes, name) => bytes.or(name),
        };
        Self {
            by_bytes,
            by_name,
            most_likely,
            category: Category::of(most_likely),
            is_mismatch: is_mismatch(by_bytes, by_name),
        }
    }
}

/// Whether what the name claims is one of the things that such bytes can be, and says more.
fn refines(name: &str, bytes: &str) -> bool {
    match bytes {
        TEXT => is_text(name) || (may_be_text(name) && Category::of_type(name) == Category::Uncategorized),
        ZIP => is_zip(name),
        // An encrypted Office file of the new formats is an OLE file, too.
        OLE => is_ole(name) || is_ooxml(name),
        // Templates, feeds, maps and notebooks are of these languages, and their names know more.
        "text/html" | "text/xml" | "application/json" => is_text(name) && name != TEXT,
        "application/gzip" => name == "application/x-tar",
        "video/mp4" | "audio/mp4" | "video/quicktime" => {
            matches!(name, "video/mp4" | "audio/mp4" | "video/quicktime" | "video/3gpp")
        }
        "audio/ogg" => matches!(name, "video/ogg" | "audio/opus"),
        "video/x-ms-wmv" => name == "audio/x-ms-wma",
        "image/tiff" => name.starts_with("image/x-"),
        // Files with macros, templates and slide shows look like plain ones from the outside.
        _ if is_ooxml(bytes) => is_ooxml(name) && Category::of_type(bytes) == Category::of_type(name),
        _ => false,
    }
}

/// Whether bytes and name contradict each other unexpectedly. `None` contradicts nothing.
pub fn is_mismatch(by_bytes: Option<&str>, by_name: Option<&str>) -> bool {
    let (Some(bytes), Some(name)) = (by_bytes, by_name) else { return false };
    if bytes == name || refines(name, bytes) || is_habit(bytes, name) {
        return false;
    }
    let (bytes_category, name_category) = (Category::of(by_bytes), Category::of(by_name));
    // A rare format's files may hold anything for all we know (`.xyz` is a chemist's, and many others').
    if name_category == Category::Uncategorized && !is_text(name) {
        return false;
    }
    // One kind of thing under the name of another of that kind hides nothing. What has no category has no kind.
    if bytes_category == name_category && bytes_category != Category::Uncategorized {
        return false;
    }
    if is_text(bytes) && is_text(name) {
        // Text that calls itself another text hides something only when it can be run and looks as if it could not.
        return bytes_category == Category::Script && name_category != Category::SourceCode;
    }
    true
}

/// What honest programs write under a name that claims something else.
fn is_habit(bytes: &str, name: &str) -> bool {
    let is_word = name == "application/msword";
    let is_excel = name == "application/vnd.ms-excel";
    match bytes {
        // Word saves RTF and HTML as .doc; databases and web pages export tables as .xls.
        "application/rtf" | "multipart/related" => is_word || is_excel,
        "text/html" | "text/xml" => is_word || is_excel || name == "message/rfc822" || name == "multipart/related",
        TEXT => is_word || is_excel || may_be_text(name),
        "message/rfc822" => matches!(name, "multipart/related" | "application/mbox"),
        // Old and new formats under each other's names; Office opens both.
        _ if is_ooxml(bytes) || is_ole(bytes) => {
            (is_ooxml(name) || is_ole(name)) && Category::of_type(bytes) == Category::of_type(name)
        }
        // Public keys are `.pub` like Publisher's files, private ones `.key` like Keynote's.
        "application/x-pem-file" | "application/pgp-keys" => {
            matches!(name, "application/x-mspublisher" | "application/vnd.apple.keynote")
                || ["x509", "pkcs", "pgp"].iter().any(|word| name.contains(word))
        }
        "application/pkcs7-mime" => name.contains("pkcs"),
        // Illustrator's files are PDF inside, `.svgz` is compressed SVG.
        "application/pdf" => name == "application/postscript",
        "application/gzip" => name == "image/svg+xml",
        _ => false,
    }
}

/// Formats that are mostly binary but are text in one of their versions, or have a name that texts use, too.
fn may_be_text(name: &str) -> bool {
    let is_binary_for_sure = matches!(
        Category::of_type(name),
        Category::Archive
            | Category::Audio
            | Category::Image
            | Category::Video
            | Category::Pdf
            | Category::Executable
            | Category::VirtualDiskImage
    );
    !is_binary_for_sure && !is_ooxml(name) && !is_ole(name)
}

/// Types that are text, whatever their name begins with.
fn is_text(mime_type: &str) -> bool {
    mime_type.starts_with("text/")
        || mime_type.starts_with("message/")
        || mime_type.ends_with("+xml")
        || mime_type.ends_with("+json")
        || matches!(
            mime_type,
            "application/json"
                | "application/x-ndjson"
                | "application/xml"
                | "application/rtf"
                | "application/x-pem-file"
                | "application/mbox"
                | "application/postscript"
                | "application/sql"
                | "application/toml"
                | "application/yaml"
                | "application/x-tex"
                | "application/x-latex"
                | "application/x-sh"
                | "application/x-csh"
                | "application/x-bat"
                | "application/x-perl"
                | "application/x-httpd-php"
                | "application/x-subrip"
                | "application/x-ipynb+json"
                | "application/vnd.apple.mpegurl"
                | "application/pgp-signature"
                | "application/pgp-encrypted"
                | "application/pgp-keys"
                | "application/x-mswebsite"
                | "application/hta"
                | "multipart/related"
                | "image/x-portable-pixmap"
                | "image/x-xbitmap"
                | "image/x-xpixmap"
        )
}

/// Types of the Office formats since 2007.
fn is_ooxml(mime_type: &str) -> bool {
    mime_type.starts_with("application/vnd.openxmlformats-officedocument.")
        || mime_type.contains(".macroenabled.")
        || mime_type.starts_with("application/vnd.ms-visio")
}

/// Types whose files are ZIP files.
fn is_zip(mime_type: &str) -> bool {
    is_ooxml(mime_type)
        || mime_type.ends_with("+zip")
        || mime_type.starts_with("application/vnd.oasis.opendocument.")
        || mime_type.starts_with("application/vnd.sun.xml.")
        || mime_type.starts_with("application/vnd.apple.")
        || mime_type.starts_with("application/x-iwork-")
        || matches!(
            mime_type,
            "application/java-archive"
                | "application/vnd.android.package-archive"
                | "application/vnd.google-earth.kmz"
                | "application/vnd.ms-xpsdocument"
                | "application/oxps"
                | "application/x-xpinstall"
                | "application/vsix"
                | "application/vnd.comicbook+zip"
                | "application/x-pytorch"
                | "image/openraster"
                | "application/x-msix"
                | "application/x-powerbi"
                | "application/x-nuget"
                | "application/x-wheel"
        )
}

/// Types whose files are OLE compound files.
fn is_ole(mime_type: &str) -> bool {
    matches!(
        mime_type,
        "application/msword"
            | "application/vnd.ms-excel"
            | "application/vnd.ms-powerpoint"
            | "application/vnd.ms-outlook"
            | "application/vnd.ms-project"
            | "application/vnd.ms-publisher"
            | "application/x-mspublisher"
            | "application/vnd.visio"
            | "application/vnd.ms-works"
            | "application/x-msi"
    )
}

/// What kind of thing a file is, in the words that users of the replaced product know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// Other files packed into one.
    Archive,
    /// Sound.
    Audio,
    /// Text for reading, e-mails included.
    Document,
    /// A program, or what installs or starts one.
    Executable,
    /// A picture or drawing.
    Image,
    /// A PDF.
    Pdf,
    /// Slides.
    Presentation,
    /// Text that is run as it is.
    Script,
    /// Text from which programs and pages are made.
    SourceCode,
    /// Tables.
    Spreadsheet,
    /// Moving pictures.
    Video,
    /// A disk in a file.
    VirtualDiskImage,
    /// Everything else, and what is not known.
    Uncategorized,
}

impl Category {
    /// Every category.
    pub const ALL: [Self; 13] = [
        Self::Archive,
        Self::Audio,
        Self::Document,
        Self::Executable,
        Self::Image,
        Self::Pdf,
        Self::Presentation,
        Self::Script,
        Self::SourceCode,
        Self::Spreadsheet,
        Self::Video,
        Self::VirtualDiskImage,
        Self::Uncategorized,
    ];

    /// The word in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Archive => "Archive",
            Self::Audio => "Audio",
            Self::Document => "Document",
            Self::Executable => "Executable",
            Self::Image => "Image",
            Self::Pdf => "Pdf",
            Self::Presentation => "Presentation",
            Self::Script => "Script",
            Self::SourceCode => "SourceCode",
            Self::Spreadsheet => "Spreadsheet",
            Self::Video => "Video",
            Self::VirtualDiskImage => "VirtualDiskImage",
            Self::Uncategorized => "Uncategorized",
        }
    }

    /// The category of a type.
    pub fn of(mime_type: Option<&str>) -> Self {
        mime_type.map_or(Self::Uncategorized, Self::of_type)
    }

    fn of_type(mime_type: &str) -> Self {
        match mime_type {
            "application/pdf" => Self::Pdf,
            "application/zip"
            | "application/x-tar"
            | "application/gzip"
            | "application/x-bzip2"
            | "application/x-xz"
            | "application/x-7z-compressed"
            | "application/vnd.rar"
            | "application/zstd"
            | "application/x-lzip"
            | "application/x-lz4"
            | "application/x-lzma"
            | "application/x-compress"
            | "application/vnd.bzip3"
            | "application/vnd.ms-cab-compressed"
            | "application/x-cpio"
            | "application/x-unix-archive"
            | "application/x-par2"
            | "application/x-lzh-compressed"
            | "application/x-arj"
            | "application/x-stuffit"
            | "application/x-ace-compressed"
            | "application/vnd.ms-outlook-pst"
            | "application/mbox"
            | "application/vnd.ms-tnef"
            | "application/x-bzip"
            | "application/x-ms-wim" => Self::Archive,
            "application/msword"
            | "application/rtf"
            | "application/epub+zip"
            | "application/x-mobipocket-ebook"
            | "application/postscript"
            | "application/vnd.ms-outlook"
            | "message/rfc822"
            | "application/onenote"
            | "application/vnd.ms-xpsdocument"
            | "application/oxps"
            | "application/vnd.ms-works"
            | "application/x-mspublisher"
            | "application/vnd.ms-publisher"
            | "application/vnd.apple.pages"
            | "application/vnd.ms-htmlhelp"
            | "multipart/related"
            | "text/plain"
            | "text/markdown"
            | "text/rtf"
            | "application/vnd.ms-project"
            | "application/x-hwp"
            | "application/x-tex"
            | "application/x-latex" => Self::Document,
            "application/vnd.ms-excel" | "application/vnd.apple.numbers" | "text/csv" | "text/tab-separated-values" => {
                Self::Spreadsheet
            }
            "application/vnd.ms-powerpoint" | "application/vnd.apple.keynote" => Self::Presentation,
            "application/vnd.microsoft.portable-executable"
            | "application/x-executable"
            | "application/x-mach-binary"
            | "application/x-msi"
            | "application/java-archive"
            | "application/java"
            | "application/vnd.android.package-archive"
            | "application/vnd.android.dex"
            | "application/vnd.debian.binary-package"
            | "application/x-rpm"
            | "application/wasm"
            | "application/x-ms-shortcut"
            | "application/x-msdownload"
            | "application/x-xpinstall"
            | "application/x-google-chrome-extension"
            | "application/x-python-code"
            | "application/x-msix"
            | "application/x-xar" => Self::Executable,
            "application/x-qemu-disk"
            | "application/x-virtualbox-vdi"
            | "application/x-vhd"
            | "application/x-vhdx"
            | "application/x-vmdk"
            | "application/x-iso9660-image"
            | "application/x-apple-diskimage"
            | "application/x-ova" => Self::VirtualDiskImage,
            "text/x-shellscript"
            | "application/x-sh"
            | "application/x-csh"
            | "text/x-python"
            | "text/x-perl"
            | "text/x-ruby"
            | "application/x-bat"
            | "text/x-powershell"
            | "text/vbscript"
            | "text/javascript"
            | "text/x-php"
            | "application/x-perl"
            | "application/x-httpd-php"
            | "text/x-script"
            | "application/hta"
            | "text/x-lua"
            | "text/x-tcl"
            | "text/x-applescript" => Self::Script,
            "text/html"
            | "text/css"
            | "application/xhtml+xml"
            | "application/sql"
            | "application/x-ipynb+json"
            | "text/x-dockerfile"
            | "text/x-makefile" => Self::SourceCode,
            "text/vcard" | "text/calendar" | "text/xml" | "text/cache-manifest" => Self::Uncategorized,
            "application/vnd.visio"
            | "application/vnd.ms-visio.drawing"
            | "application/vnd.oasis.opendocument.graphics" => Self::Image,
            _ => Self::of_family(mime_type),
        }
    }

    fn of_family(mime_type: &str) -> Self {
        let family = |prefix: &str| mime_type.starts_with(prefix);
        if family("image/") {
            Self::Image
        } else if family("audio/") {
            Self::Audio
        } else if family("video/") {
            Self::Video
        } else if family("application/vnd.openxmlformats-officedocument.wordprocessingml")
            || family("application/vnd.ms-word.")
            || family("application/vnd.oasis.opendocument.text")
            || family("application/vnd.sun.xml.writer")
        {
            Self::Document
        } else if family("application/vnd.openxmlformats-officedocument.spreadsheetml")
            || family("application/vnd.ms-excel.")
            || family("application/vnd.oasis.opendocument.spreadsheet")
            || family("application/vnd.sun.xml.calc")
        {
            Self::Spreadsheet
        } else if family("application/vnd.openxmlformats-officedocument.presentationml")
            || family("application/vnd.ms-powerpoint.")
            || family("application/vnd.oasis.opendocument.presentation")
            || family("application/vnd.sun.xml.impress")
        {
            Self::Presentation
        } else if family("text/x-") {
            Self::SourceCode
        } else {
            Self::Uncategorized
        }
    }
}

impl std::fmt::Display for Category {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
