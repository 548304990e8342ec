//! How values of events look: short in tables, whole on the page of an event.

use maud::{Markup, html};
use serde_json::Value;

use super::fields::{Field, Looks};
use crate::search::browse::JsonRow;
use crate::serve::console::connections::when;
use crate::serve::console::layout::{Kind, badge};

/// Letters of a hash or an id that a table shows.
const CODE_SHOWN: usize = 12;

/// Elements of a list that a table shows.
const ELEMENTS_SHOWN: usize = 2;

/// A value as a cell of a table.
pub(super) fn cell(field: &Field, row: &JsonRow) -> Markup {
    let texts = texts(row, field.column);
    let Some(first) = texts.first() else { return html! { "–" } };
    match field.looks {
        Looks::Code if first.chars().count() > CODE_SHOWN + 1 => {
            let short: String = first.chars().take(CODE_SHOWN).collect();
            html! { code title=(first) { (short) "…" } }
        }
        Looks::List => html! {
            @for text in texts.iter().take(ELEMENTS_SHOWN) { div { (text) } }
            @if texts.len() > ELEMENTS_SHOWN {
                div.muted title=(texts.join("\n")) { "and " (texts.len() - ELEMENTS_SHOWN) " more" }
            }
        },
        _ => whole(field.looks, first),
    }
}

/// A value that nothing is left out of.
pub(super) fn whole(looks: Looks, text: &str) -> Markup {
    match looks {
        Looks::Size => text.parse().map_or_else(|_| html! { (text) }, |bytes| html! { span.size { (size(bytes)) } }),
        Looks::Time => moment(text),
        Looks::Code => html! { code { (text) } },
        Looks::Flag => html! { (if text == "true" { "yes" } else { "no" }) },
        Looks::Severity => badge(severity(text), text),
        Looks::Text | Looks::Number | Looks::List => html! { (text) },
    }
}

/// The values of a column as texts; none where it has none.
pub(super) fn texts(row: &JsonRow, column: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match row.get(column) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(values)) => values.iter().filter(|value| !value.is_null()).map(text).collect(),
        Some(value) => vec![text(value)],
    }
}

/// A time of a row, as all times of the console look.
pub(super) fn moment(text: &str) -> Markup {
    text.parse().map_or_else(|_| html! { (text) }, when)
}

/// The colour of a severity.
pub(super) fn severity(word: &str) -> Kind {
    match word {
        "CRITICAL" => Kind::Error,
        "HIGH" | "MODERATE" => Kind::Warning,
        "LOW" => Kind::Info,
        _ => Kind::Resting,
    }
}

/// Bytes in the largest unit that says enough; units of 1,024 as file managers have them.
pub(super) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if size < 1024.0 {
            let decimals = usize::from(unit != "B" && size < 100.0);
            return format!("{size:.decimals$} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} TB")
}

/// A count as people read it: `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let sizes = [0, 1023, 1024, 1536, 102_400, 5 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KB", "1.5 KB", "100 KB", "5.0 GB", "16777216.0 TB"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }
}
