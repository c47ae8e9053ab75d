#!/usr/bin/env bash
# PID 1 of a host that hosts.py makes, started within namespaces of its own: NAME ADDRESS
# FOLDER holds keys and names, VENV and PYBASE what the host runs from, ROOT the checkout, which it must not see.
set -euo pipefail
name=$1 address=$2
hostname "$name"
mount -t proc proc /proc
# What is needed from outside stays in reach while private folders cover the rest.
mount -t tmpfs tmpfs /mnt
mkdir /mnt/venv /mnt/pybase /mnt/root
mount --bind "$FOLDER/root-$name" /mnt/root
mount --bind "$VENV" /mnt/venv
mount --bind "$PYBASE" /mnt/pybase
cp "$FOLDER/hostkey" "$FOLDER/key.pub" "$FOLDER/hosts" /mnt/
mount -t tmpfs -o mode=755 tmpfs /run
outside=/run/outside
mkdir -p /run/sshd "$outside"
mount --move /mnt "$outside"
mount -t tmpfs tmpfs "$ROOT"
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount --bind "$outside/root" /root
mount -t tmpfs -o mode=1777,size=512m tmpfs /dev/shm
mkdir -p "$VENV" "$PYBASE"
mount --bind "$outside/venv" "$VENV"
[ -x "$VENV/bin/python" ] || mount --bind "$outside/pybase" "$PYBASE"
if [ ! -e /root/venv ]; then  # its first boot
    ln -s "$VENV" /root/venv
    mkdir -m 700 /root/.ssh
    echo 'export OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0' > /root/.bashrc
fi
cp "$outside/key.pub" /root/.ssh/authorized_keys
install -m 600 "$outside/hostkey" /run/sshd/hostkey
{ echo "127.0.0.1 localhost"; cat "$outside/hosts"; } > /run/hosts
mount --bind /run/hosts /etc/hosts
cat > /run/sshd/config <<CONF
ListenAddress $address
HostKey /run/sshd/hostkey
PidFile none
PasswordAuthentication no
PermitRootLogin prohibit-password
UsePAM no
PrintMotd no
CONF
cd /root
env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /usr/sbin/sshd -D -e -f /run/sshd/config &
# PID 1 reaps orphans: Ray's daemons are forked onto it.
while :; do wait -n 2>/dev/null || sleep 0.2; done
