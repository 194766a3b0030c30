#!/bin/sh
# Known weaknesses of what requirements.lock pins; where nobody can be asked it says so and passes.
said=$(pip-audit --progress-spinner off --disable-pip -r requirements.lock 2>&1)
status=$?
case "$said" in
*ConnectionError* | *"Max retries"* | *"Failed to "* | *"Network is unreachable"*)
    echo "pip-audit: skipped, the database of weaknesses cannot be reached"
    exit 0
    ;;
esac
unknown=$(printf '%s\n' "$said" | grep -c "could not be audited")
if [ "$unknown" -gt 0 ]; then
    echo "pip-audit: skipped for $unknown packages that the index asked has no record of"
fi
printf '%s\n' "$said" | grep -Ev "could not be audited|^Name|^---"
exit $status
