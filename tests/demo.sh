#!/bin/sh
# The whole path on this machine: real e-mails in a simulated tenant, one run, a local lake, and the question that
# Waybill is for. Called by `make demo`. WAYBILL names another binary than the one that was just built.
set -eu
cd "$(dirname "$0")/.."

waybill=${WAYBILL:-${CARGO_TARGET_DIR:-target}/debug/waybill}
corpus=tests/fixtures/eml-mikel-mail
lake=demo-lake
log=$(mktemp -d)
simulator=

stop() {
    [ -z "$simulator" ] || kill "$simulator" 2>/dev/null || true
    rm -rf "$log"
}
trap stop EXIT
trap 'exit 130' INT TERM

title() { printf '\n\033[1m%s\033[0m\n\n' "$*"; }
[ -t 1 ] || title() { printf '\n%s\n\n' "$*"; }

# Shows a command as a person would type it, and runs it.
run() {
    printf '$ waybill'
    for word in "$@"; do
        case $word in
            *\'*) printf ' "%s"' "$word" ;;
            *[!A-Za-z0-9_./:,=-]*) printf " '%s'" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$waybill" "$@"
    printf '\n'
}

[ -x "$waybill" ] || {
    echo "demo: there is no program at $waybill; call \`make demo\`, or set WAYBILL" >&2
    exit 2
}

title '1. A Microsoft 365 tenant on this machine, whose users sent the e-mails below tests/fixtures'
echo "\$ waybill simulate --corpus $corpus --shift-dates now --listen 127.0.0.1:0"
"$waybill" simulate --corpus "$corpus" --shift-dates now --listen 127.0.0.1:0 >"$log/tenant" 2>"$log/errors" &
simulator=$!
tries=0
until [ -s "$log/tenant" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ] || ! kill -0 "$simulator" 2>/dev/null; then
        echo 'demo: the simulator did not start' >&2
        cat "$log/errors" >&2
        exit 1
    fi
    sleep 0.1
done
tenant() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$log/tenant"; }
echo "It listens on $(tenant login)."

title '2. A connection: which tenant, whose mailboxes, and where the secret is kept'
rm -rf "$lake"
DEMO_SECRET=$(tenant client_secret)
export DEMO_SECRET
run --lake "$lake" connection add --name 'Demo mail' --scope all --since 24h \
    --tenant "$(tenant tenant_id)" --client-id "$(tenant client_id)" --client-secret-env DEMO_SECRET \
    --endpoint "login=$(tenant login)" --endpoint "graph=$(tenant graph)" --endpoint "activity=$(tenant activity)"

title '3. One run, as cron would start it: audit log → messages → attachments → hashes → lake'
run --lake "$lake" run --connection 'Demo mail'

title '4. The question: here is a file. Who sent it, and to whom?'
if command -v sha256sum >/dev/null; then sum=sha256sum; else sum='shasum -a 256'; fi
# The file is cut out of one of the e-mails without Waybill, so that the hash is a second opinion.
mail=$corpus/attachment_emails/attachment_pdf.eml
sha256=$(tr -d '\r' <"$mail" | sed -n '/^JVBERi/,/^--/p' | sed '/^--/d' | base64 -d | $sum | cut -d ' ' -f 1)
echo "The PDF in $(basename "$mail"), hashed without Waybill:"
echo "$sha256"
echo
run --lake "$lake" sql \
    "SELECT observed_at, sender, recipients, file_name, subject FROM file_events WHERE sha256 = '$sha256' ORDER BY observed_at"

echo 'The same without SQL:'
echo
run --lake "$lake" search --sha256 "$sha256" --columns observed_at,sender,recipients,file_name,subject

found=$("$waybill" --lake "$lake" sql --format csv "SELECT count(*) AS n FROM file_events WHERE sha256 = '$sha256'" | tail -n 1)
[ "$found" -gt 0 ] || {
    echo 'demo: the file was not found, although it was sent' >&2
    exit 1
}

title "The lake stays in ./$lake. Ask it more:"
echo "  $waybill --lake $lake sql 'DESCRIBE file_events'"
echo "  $waybill --lake $lake sql 'SELECT sender, count(*) AS files FROM file_events GROUP BY sender ORDER BY files DESC'"
echo "  $waybill --lake $lake search --file-name '*.pdf'"
