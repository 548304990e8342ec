//! Airflow: a DAG with one task, or with a mapped one where runs are split into shards, for Airflow 2.4 and later and for Airflow 3.
//!
//! Done in part (exit code 3) is success: rows were committed, so what depends on the task must go on, and the summary,
//! which becomes the task's XCom, says what is owed. Another run that was faster (11) is a skipped task: nothing was done.
//! What the arguments mean: <https://airflow.apache.org/docs/apache-airflow-providers-standard/stable/operators/bash.html>.

use super::{File, Order};
use crate::error::{Code, Error, Result};

pub(super) fn render(order: &Order<'_>, slug: &str) -> Result<Vec<File>> {
    let (job, id) = (order.job, format!("waybill_{}", slug.replace('-', "_")));
    for text in [Some(order.path), order.lake].into_iter().flatten() {
        if text.contains(['{', '}']) {
            let message = format!("`{text}` holds a brace, which Airflow takes for a template");
            return Err(Error::new(Code::Usage, message));
        }
    }
    let lake = match (&job.lake, order.lake) {
        (None, Some(lake)) => format!("--lake {} ", shell(lake)),
        _ => String::new(),
    };
    let command = |shard: &str| {
        let job = shell(order.path);
        python(&format!("waybill {lake}run --job {job}{shard} --output json --log-format json --success-exit 3"))
    };
    let (operator, command) = match order.shards {
        0 | 1 => ("BashOperator(", format!("        bash_command={},\n    )", command(""))),
        shards => {
            let commands: String = (1..=shards)
                .map(|number| format!("            {},\n", command(&format!(" --shard {number}/{shards}"))))
                .collect();
            ("BashOperator.partial(", format!("    ).expand(\n        bash_command=[\n{commands}        ],\n    )"))
        }
    };
    let secrets = if order.secrets.is_empty() {
        String::new()
    } else {
        format!(
            "\n\nThe worker's environment has to hold {}; Airflow's own variables and connections are not used.",
            order.secrets.join(", ")
        )
    };
    let text = format!(
        "\
# Rendered by `waybill schedule render airflow`. Copy it into the folder of DAGs; the workers need `waybill` on their
# PATH, and the job file.
import pendulum

try:  # Airflow 3
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.operators.bash import BashOperator

with DAG(
    dag_id={id},
    description={description},
    doc_md={doc},
    schedule={cron},
    start_date=pendulum.datetime(2026, 1, 1, tz={zone}),
    # A run reads everything since the last one: there is nothing to catch up with, and nothing to gain from two at once.
    catchup=False,
    max_active_runs=1,
    tags=[\"waybill\"],
):
    {operator}
        task_id=\"run\",
        # Another run was faster: nothing was done here.
        skip_on_exit_code=11,
        # What is owed, throttled or refused needs time. The next run goes on.
        retries=0,
        # Exit code 3, done in part, is success: what is owed comes with a later run.
{command}
",
        id = python(&id),
        description = python(&format!("Waybill: {}", job.name)),
        doc = python(&format!("Runs `{}`.{secrets}", order.path)),
        cron = python(&job.cron.plain()),
        zone = python(job.timezone().name()),
    );
    Ok(vec![File { name: format!("{id}.py"), text }])
}

/// A word for a shell.
fn shell(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:=%+@".contains(letter);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A text as Python writes it.
fn python(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            _ if letter.is_control() => quoted.push_str(&format!("\\U{:08x}", u32::from(letter))),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_path_stays_one_word() {
        assert_eq!(shell("/etc/it's $(here)"), r"'/etc/it'\''s $(here)'");
        assert_eq!(python("a\"b\\c\nd\u{1}"), r#""a\"b\\c\nd\U00000001""#);
    }
}
