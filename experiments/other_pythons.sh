#!/usr/bin/env bash
# Runs the README's two commands on the Python of another Debian release: in a chroot made by debootstrap, from a fresh
# clone of this checkout. Needs root and the package debootstrap, and takes about 8 GB of disk and half an hour.
#
#   experiments/other_pythons.sh SUITE MIRROR FOLDER
#
# SUITE: a release of Debian, such as trixie (Python 3.13) or sid (Python 3.14 in 2026). MIRROR: the URL of its packages.
# FOLDER: where the chroot is made; one that is there is used again. pip is configured as on this machine.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
suite=$1 mirror=$2 folder=$(realpath -m "$3")
# In a mount namespace of its own, whatever is mounted below is gone at the end.
[ "${4:-}" = mounted ] || exec unshare --mount "$0" "$suite" "$mirror" "$folder" mounted

[ -e "$folder/usr/bin/git" ] ||
    debootstrap --variant=minbase --include=python3,python3-venv,git,ca-certificates "$suite" "$folder" "$mirror"
mount -t proc proc "$folder/proc"
mount --rbind /dev "$folder/dev"

cp /etc/resolv.conf "$folder/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/"
for file in /etc/pip.conf /etc/xdg/pip ~/.pip ~/.config/pip; do
    if [ -e "$file" ]; then mkdir -p "$folder$(dirname "$file")" && cp -r "$file" "$folder$(dirname "$file")/"; fi
done

mkdir -p "$folder/srv" && rm -rf "$folder/srv/slimsearch"
cd "$(dirname "$0")/.."
git clone -q . "$folder/srv/slimsearch"
for words in 'experiments/run.py --space mnist_cnn --strategy optuna' '-m pytest'; do
    command=$(grep -m 1 -F -- "$words" README.md)
    printf '\n== %s: %s\n' "$(chroot "$folder" python3 --version)" "$command"
    time chroot "$folder" bash -c "cd /srv/slimsearch && $command"
done
