//! Kubernetes: a `CronJob`, and a `ConfigMap` that carries the job file. For shards it makes Indexed Jobs: a pod for each,
//! which Kubernetes numbers from 0 in `JOB_COMPLETION_INDEX`.
//!
//! What the fields mean: <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>,
//! <https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy>,
//! <https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode>,
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>.

use chrono_tz::Tz;

use super::{File, Order, folder};
use crate::error::{Code, Error, Result};

pub(super) fn render(order: &Order<'_>, slug: &str, lake: &str) -> Result<Vec<File>> {
    let job = order.job;
    let image = order
        .image
        .ok_or_else(|| Error::new(Code::Usage, "a pod needs an image that holds `waybill`: give `--image IMAGE`"))?;
    if folder(lake).is_some() {
        let message =
            format!("the lake `{lake}` is a folder of one machine, which a pod cannot reach; name object storage");
        return Err(Error::new(Code::Usage, message));
    }
    let unit = format!("waybill-{slug}");
    let zone = if job.timezone() == Tz::UTC { "Etc/UTC" } else { job.timezone().name() };
    let mut environment = String::new();
    if job.lake.is_none() {
        environment
            .push_str(&format!("                - name: WAYBILL_LAKE\n                  value: {}\n", quote(lake)));
    }
    for name in order.secrets {
        environment.push_str(&format!(
            "                - name: {name}\n                  valueFrom:\n                    secretKeyRef:\n\
             \x20                     name: {unit}\n                      key: {name}\n"
        ));
    }
    if !environment.is_empty() {
        environment.insert_str(0, "              env:\n");
    }
    let secret = if order.secrets.is_empty() {
        String::new()
    } else {
        let keys: Vec<String> = order.secrets.iter().map(|name| format!("--from-file={name}=FILE")).collect();
        format!("# The secrets are not in here. Once: kubectl create secret generic {unit} {}\n", keys.join(" "))
    };
    let (indexed, shard) = match order.shards {
        0 | 1 => (String::new(), String::new()),
        shards => (
            format!(
                "\
      # A pod for each shard. They commit beside each other, so one that fails keeps none of the others from its work.
      completionMode: Indexed
      completions: {shards}
      parallelism: {shards}
      backoffLimitPerIndex: 0
"
            ),
            format!(", --shard-index, \"$(JOB_COMPLETION_INDEX)/{shards}\""),
        ),
    };
    // With a limit for each index there is none for all of them together.
    let backoff = if indexed.is_empty() { "      backoffLimit: 0\n" } else { "" };
    let text = format!(
        "\
# Rendered by `waybill schedule render kubernetes`. Apply it with: kubectl apply -f {unit}.yaml
{secret}apiVersion: v1
kind: ConfigMap
metadata:
  name: {unit}
  labels:
    app.kubernetes.io/name: waybill
data:
  job.toml: {file}
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {unit}
  labels:
    app.kubernetes.io/name: waybill
spec:
  schedule: {cron}
  timeZone: {zone}
  # A run reads everything since the last one, so one that was missed or skipped is made good by the next.
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      # Not tried again at once: what is owed, throttled or refused needs time. The next run goes on.
{backoff}{indexed}      podFailurePolicy:
        rules:
          # A pod that its node loses says nothing about the run: another one takes over.
          - action: Ignore
            onPodConditions:
              - type: DisruptionTarget
                status: \"True\"
      template:
        metadata:
          labels:
            app.kubernetes.io/name: waybill
            app.kubernetes.io/instance: {unit}
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: 120
          automountServiceAccountToken: false
          securityContext:
            runAsNonRoot: true
            runAsUser: 65532
            runAsGroup: 65532
            fsGroup: 65532
            seccompProfile:
              type: RuntimeDefault
          containers:
            - name: waybill
              image: {image}
              command: [waybill]
              # Done in part (3) is no failed Job, and neither is a run that another one outpaced (11): the summary on
              # stdout and the table `runs` tell.
              args: [run, --job, /etc/waybill/job.toml{shard}, --output, json, --log-format, json, --success-exit, \"3,11\"]
{environment}              securityContext:
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities:
                  drop: [ALL]
              resources:
                requests:
                  cpu: 250m
                  memory: 512Mi
              volumeMounts:
                - name: job
                  mountPath: /etc/waybill
                  readOnly: true
                - name: tmp
                  mountPath: /tmp
          volumes:
            - name: job
              configMap:
                name: {unit}
            - name: tmp
              emptyDir: {{}}
",
        file = block(order.text),
        cron = quote(&job.cron.plain()),
        zone = quote(zone),
        image = quote(image),
    );
    Ok(vec![File { name: format!("{unit}.yaml"), text }])
}

/// A file as a YAML value: readable where YAML can, else quoted.
fn block(text: &str) -> String {
    let is_plain = |letter: char| !letter.is_control() || letter == '\n' || letter == '\t';
    if text.trim().is_empty() || !text.chars().all(is_plain) {
        return quote(text);
    }
    let lines = text.trim_end().lines();
    let lines: String =
        lines.map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect();
    format!("|2\n{}", lines.trim_end_matches('\n'))
}

/// A text in double quotes, which YAML reads as JSON does.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_readable_where_yaml_can_hold_it() {
        assert_eq!(block("  # indented\na = 1\n\nb = 2\n\n"), "|2\n      # indented\n    a = 1\n\n    b = 2");
        assert_eq!(block("a = 1\r\n"), "\"a = 1\\r\\n\"");
    }
}
