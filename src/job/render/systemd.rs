//! systemd: a service that runs the job once, and a timer that starts it.
//!
//! What the settings mean: <https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html>,
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.time.html#Calendar%20Events>.

use chrono_tz::Tz;

use super::{File, Order, comment, folder};
use crate::error::{Code, Error, Result};
use crate::job::cron::{Cron, list};

/// Weekdays from Sunday on.
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// What a process that reads two services and writes one store does not need.
const SANDBOX: &str = "\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077
";

pub(super) fn render(order: &Order<'_>, slug: &str, lake: &str) -> Result<Vec<File>> {
    let (job, unit) = (order.job, format!("waybill-{slug}"));
    let mut service = comment(&format!(
        "Rendered by `waybill schedule render systemd`. Copy it and {unit}.timer to /etc/systemd/system, then:\n\
         systemctl daemon-reload && systemctl enable --now {unit}.timer"
    ));
    let description = escape(&job.name);
    service.push_str(&format!(
        "[Unit]\nDescription=Waybill: {description}\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nType=oneshot\n"
    ));
    match folder(lake) {
        None => service.push_str("DynamicUser=yes\n"),
        Some(path) => {
            let path = Some(path).filter(|path| path.starts_with('/')).ok_or_else(|| {
                Error::new(
                    Code::Usage,
                    format!("the lake `{lake}` depends on the folder one is in; give its whole path"),
                )
            })?;
            // A folder of this machine needs an owner who is the same tomorrow.
            service.push_str(&format!("User=waybill\nReadWritePaths={}\n", quote(path)));
        }
    }
    if job.lake.is_none() {
        service.push_str(&format!("Environment={}\n", quote(&format!("WAYBILL_LAKE={lake}"))));
    }
    if !order.secrets.is_empty() {
        let names: Vec<String> = order.secrets.iter().map(|name| format!("{name}=…")).collect();
        service.push_str(&comment(&format!(
            "Read by systemd before it gives up root: let it belong to root with mode 0600. A line for each: {}",
            names.join(" ")
        )));
        service.push_str(&format!("EnvironmentFile=/etc/waybill/{unit}.env\n"));
    }
    service.push_str(&comment("Handed over by systemd, so that no one but root has to be able to read the file."));
    service.push_str(&format!("LoadCredential=job.toml:{}\n", escape(order.path)));
    service.push_str(&format!(
        "ExecStart={} run --job %d/job.toml --output json --log-format json\n",
        quote(&order.program.replace('$', "$$"))
    ));
    service.push_str(&comment(
        "Done in part (3): what is owed comes with a later run. Another run was faster (11). Stopped, with nothing lost (130).",
    ));
    service.push_str("SuccessExitStatus=3 11 130\nTimeoutStopSec=120\n\n");
    service.push_str(SANDBOX);

    let calendar: String =
        calendar(&job.cron, job.timezone()).iter().map(|line| format!("OnCalendar={line}\n")).collect();
    let timer = format!(
        "{}[Unit]\nDescription=Waybill: {description}\n\n[Timer]\n{}{calendar}RandomizedDelaySec={}s\nAccuracySec=1s\n{}Persistent=true\n\n\
         [Install]\nWantedBy=timers.target\n",
        comment("Rendered by `waybill schedule render systemd`."),
        comment(&format!("cron: {}", job.cron)),
        job.jitter().num_seconds(),
        comment("Makes good, once, what was missed while the machine was off."),
    );
    Ok(vec![
        File { name: format!("{unit}.service"), text: service },
        File { name: format!("{unit}.timer"), text: timer },
    ])
}

/// A cron expression as calendar events, which fire when one of them does. systemd wants day *and* weekday where cron
/// wants one *or* the other, so that takes two.
pub(super) fn calendar(cron: &Cron, zone: Tz) -> Vec<String> {
    let fields = cron.fields();
    let digits = |values: &[u16], all: usize| {
        if values.len() == all { "*".to_owned() } else { list(values, "..", |value| format!("{value:02}")) }
    };
    let date = |days: Option<&Vec<u16>>| {
        format!("*-{}-{}", digits(&fields.months, 12), days.map_or("*".to_owned(), |days| digits(days, 31)))
    };
    let time = format!("{}:{}:00 {}", digits(&fields.hours, 24), digits(&fields.minutes, 60), zone.name());
    let weekdays = fields.weekdays.as_ref().map(|weekdays| {
        // systemd's week begins on Monday.
        let mut from_monday: Vec<u16> = weekdays.iter().map(|weekday| (weekday + 6) % 7).collect();
        from_monday.sort_unstable();
        list(&from_monday, "..", |weekday| WEEKDAYS[usize::from((weekday + 1) % 7)].to_owned())
    });
    match (&fields.days, weekdays) {
        (days, None) => vec![format!("{} {time}", date(days.as_ref()))],
        (None, Some(weekdays)) => vec![format!("{weekdays} {} {time}", date(None))],
        (days, Some(weekdays)) => {
            vec![format!("{} {time}", date(days.as_ref())), format!("{weekdays} {} {time}", date(None))]
        }
    }
}

/// A text in which systemd looks for specifiers.
fn escape(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word of a setting that is split into words.
fn quote(text: &str) -> String {
    let text = escape(text);
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:=%+@$".contains(letter);
    if text.chars().all(is_plain) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cron_expression_becomes_one_calendar_event_or_two() {
        for (cron, zone, events) in [
            ("5 * * * *", Tz::UTC, &["*-*-* *:05:00 UTC"][..]),
            ("*/15 6-8,20 * * *", Tz::UTC, &["*-*-* 06..08,20:00,15,30,45:00 UTC"]),
            ("30 2 * * MON-FRI", Tz::Europe__Berlin, &["Mon..Fri *-*-* 02:30:00 Europe/Berlin"]),
            ("0 0 * * SAT,SUN,MON", Tz::UTC, &["Mon,Sat,Sun *-*-* 00:00:00 UTC"]),
            ("0 0 1,15 JAN-MAR *", Tz::UTC, &["*-01..03-01,15 00:00:00 UTC"]),
            ("0 0 13 * FRI", Tz::UTC, &["*-*-13 00:00:00 UTC", "Fri *-*-* 00:00:00 UTC"]),
            ("* * * * 0-7", Tz::UTC, &["*-*-* *:*:00 UTC"]),
        ] {
            assert_eq!(calendar(&cron.parse().unwrap(), zone), events, "{cron}");
        }
    }
}
