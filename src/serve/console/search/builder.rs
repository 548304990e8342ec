//! The form that writes a search's address: range, filters in groups, columns. Its buttons work without scripts: each sends
//! the form, and the answer is the form with the change.

use maud::{Markup, html};

use super::address::{Address, Filter, Group, Member, Range, SPANS, Takes};
use super::fields::{FIELDS, GROUPS, OPERATORS, Visible, of_term};
use super::hidden;
use crate::limits;
use crate::search::query::Query;
use crate::serve::console::layout::sentence;

/// The whole form.
pub(super) fn builder(address: &Address, visible: &Visible<'_>, wrong_range: Option<&str>) -> Markup {
    html! {
        form.search method="get" action="/search" #filters {
            (range(&address.range, wrong_range))
            input type="hidden" name="s" value=(address.sort);
            input type="hidden" name="d" value=(if address.is_ascending { "asc" } else { "desc" });
            (group(&address.root, &[], visible))
            (columns(address, visible))
        }
    }
}

fn range(range: &Range, wrong: Option<&str>) -> Markup {
    let (from, to) = match range {
        Range::Custom { from, to } => (from.as_str(), to.as_str()),
        Range::Last(_) | Range::All => ("", ""),
    };
    html! {
        div.row {
            div {
                label for="range" { "Sent" }
                select #range name="range" {
                    @for span in &SPANS { option value=(span.name) selected[range.name() == span.name] { (span.label) } }
                    option value="all" selected[range.name() == "all"] { "All time" }
                    option value="custom" selected[range.name() == "custom"] { "From … to …" }
                }
                input type="hidden" name="was" value=(range.name());
            }
            @for (name, label, text) in [("from", "From (UTC)", from), ("to", "To, included (UTC)", to)] {
                div {
                    label for=(name) { (label) }
                    // Days are picked; the minutes that a bar of the histogram leads to are written.
                    input id=(name) name=(name) value=(text)
                        type=(if text.is_empty() || text.len() == "2026-11-24".len() { "date" } else { "text" })
                        aria-invalid=[wrong.map(|_| "true")] aria-describedby=[wrong.map(|_| "range-wrong")];
                }
            }
            div { button.main type="submit" { "Search" } }
        }
        @if let Some(wrong) = wrong { p.wrong #range-wrong { span aria-hidden="true" { "✕ " } (sentence(wrong)) } }
    }
}

fn group(group: &Group, path: &[usize], visible: &Visible<'_>) -> Markup {
    let (at, place) = (dotted(path), numbered(path));
    let name = if path.is_empty() { "Filters".to_owned() } else { format!("Group {place}") };
    html! {
        fieldset.group {
            legend { (name) }
            @if group.members.len() > 1 || !path.is_empty() {
                div.joined {
                    label for={ "joined-" (at) } { "Events match" }
                    select id={ "joined-" (at) } name=(if path.is_empty() { "match" } else { "g" }) {
                        option value="AND" selected[!group.is_any] { "all of these" }
                        option value="OR" selected[group.is_any] { "any of these" }
                    }
                    @if !path.is_empty() {
                        button.quiet type="submit" name="do" value={ "drop:" (at) } { "Remove group " (place) }
                    }
                }
            }
            @for (index, member) in group.members.iter().enumerate() {
                @let path = [path, &[index]].concat();
                @match member {
                    Member::Filter(one) => (filter(one, &path, visible)),
                    Member::Group(inner) => (self::group(inner, &path, visible)),
                }
            }
            div.actions {
                button.quiet type="submit" name="do" value={ "filter:" (at) } { "Add filter" }
                @if path.len() < limits::CONSOLE_GROUP_DEPTH {
                    button.quiet type="submit" name="do" value={ "group:" (at) } { "Add group" }
                }
            }
            @if !path.is_empty() { input type="hidden" name="e" value="1"; }
        }
    }
}

fn filter(filter: &Filter, path: &[usize], visible: &Visible<'_>) -> Markup {
    let (at, place) = (dotted(path), numbered(path));
    let wrong = finding(filter, visible);
    let (is_wrong, describes) = (wrong.as_ref().map(|_| "true"), wrong.as_ref().map(|_| format!("wrong-{at}")));
    let value = filter.values.join("\n");
    let is_known = of_term(&filter.term).is_some_and(|field| visible.has(field));
    html! {
        div.filter role="group" aria-label={ "Filter " (place) } {
            select name="f" aria-label={ "Field of filter " (place) } {
                @if !is_known { option value=(filter.term) selected { (filter.term) } }
                @for heading in GROUPS {
                    optgroup label=(heading) {
                        @for field in FIELDS.iter().filter(|field| field.group == heading && visible.has(field)) {
                            option value=(field.term) selected[field.term == filter.term] { (field.label) }
                        }
                    }
                }
            }
            select name="o" aria-label={ "Operator of filter " (place) } {
                @if OPERATORS.iter().all(|(name, _)| *name != filter.operator) {
                    option value=(filter.operator) selected { (filter.operator) }
                }
                @for (name, words) in OPERATORS { option value=(name) selected[name == filter.operator] { (words) } }
            }
            @if filter.takes() == Takes::Several || filter.values.len() > 1 {
                textarea name="vs" rows="3" aria-label={ "Values of filter " (place) ", one a line" }
                    aria-invalid=[is_wrong] aria-describedby=[&describes] { "\n" (value) }
            } @else {
                input type="text" name="v" value=(value) aria-label={ "Value of filter " (place) }
                    aria-invalid=[is_wrong] aria-describedby=[&describes];
            }
            button.quiet type="submit" name="do" value={ "drop:" (at) } aria-label={ "Remove filter " (place) } { "✕" }
            @if let Some(wrong) = &wrong {
                p.wrong id=[&describes] { span aria-hidden="true" { "✕ " } (sentence(wrong)) }
            }
        }
    }
}

/// What is wrong with a filter by itself; one that still has no value waits for it.
fn finding(filter: &Filter, visible: &Visible<'_>) -> Option<String> {
    if !visible.has_term(&filter.term) {
        return Some(hidden(&filter.term));
    }
    if filter.takes() != Takes::Nothing && filter.values.is_empty() {
        return None;
    }
    let alone = serde_json::json!({"groups": [{"filters": [filter.to_json()]}]});
    let findings = Query::from_json(&alone).err()?;
    Some(findings.first()?.to_string())
}

fn columns(address: &Address, visible: &Visible<'_>) -> Markup {
    let shown = address.shown(visible);
    html! {
        details.columns {
            summary { "Columns" }
            div.choices {
                @for heading in GROUPS {
                    fieldset {
                        legend { (heading) }
                        @for field in visible.all().filter(|field| field.group == heading) {
                            label.option {
                                input type="checkbox" name="c" value=(field.term)
                                    checked[shown.iter().any(|other| other.term == field.term)];
                                " " (field.label)
                            }
                        }
                    }
                }
            }
            button.plain type="submit" { "Show these columns" }
        }
    }
}

/// A path as buttons send it: `0.2`.
fn dotted(path: &[usize]) -> String {
    path.iter().map(usize::to_string).collect::<Vec<_>>().join(".")
}

/// A path as people count: `1.3`.
fn numbered(path: &[usize]) -> String {
    path.iter().map(|step| (step + 1).to_string()).collect::<Vec<_>>().join(".")
}
