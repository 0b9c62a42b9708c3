#!/usr/bin/env bash
# A temporary Slurm on this machine: a controller and some node daemons, without systemd, cgroups or accounting.
# All files are in one folder, $SLURM_HOME. Needs root and these Debian packages:
#   apt-get install --no-install-recommends slurm-wlm munge
#
#   tests/slurm/slurm.sh start [nodes=2]
#   eval "$(tests/slurm/slurm.sh env)"      # then sbatch, srun, sinfo and r1zero find it
#   tests/slurm/slurm.sh stop
set -euo pipefail
home=${SLURM_HOME:-${TMPDIR:-/tmp}/r1zero-slurm}
port=${SLURM_PORT:-16817}  # of the controller; the nodes use the next ones
export SLURM_CONF=$home/slurm.conf

start() {
  local nodes=$1 node
  stop
  mkdir -p "$home"/{state,log,run,munge}
  chmod 755 "$home" "$home/run"  # munged rejects a socket that others cannot reach
  chmod 700 "$home/munge"
  (umask 077; head -c 128 /dev/urandom > "$home/munge/key")
  munged --force --key-file="$home/munge/key" --seed-file="$home/munge/seed" --socket="$home/run/munge.socket" \
    --pid-file="$home/run/munged.pid" --log-file="$home/log/munged.log"
  configure "$nodes" > "$SLURM_CONF"
  slurmctld -c
  wait_for "scontrol ping | grep -q UP"  # otherwise a node would wait 10 s before it tries again
  for node in $(seq 0 $((nodes - 1))); do
    mkdir -p "$home/spool/n$node"
    slurmd -N "n$node"
  done
  wait_for "[ \$(sinfo --noheader --Node --states=idle | wc -l) = $nodes ]" || { sinfo -Nl; tail "$home"/log/*; return 1; }
}

configure() {
  local nodes=$1 node host cores memory
  host=$(hostname -s)
  cores=$(($(nproc) / nodes)); cores=$((cores > 0 ? cores : 1))  # what a node reports; tasks are not bound to cores
  memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
  cat <<CONF
ClusterName=r1zero
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/run/munge.socket
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool/%n
SlurmctldPidFile=$home/run/slurmctld.pid
SlurmdPidFile=$home/run/slurmd-%n.pid
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdLogFile=$home/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
ReturnToService=2
KillWait=20
CONF
  for node in $(seq 0 $((nodes - 1))); do
    echo "NodeName=n$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1 + node)) CPUs=$cores CoresPerSocket=$cores RealMemory=$memory"
  done
  echo "PartitionName=all Nodes=ALL Default=YES"
}

stop() {
  local file process
  for file in "$home"/run/{slurmd-*,slurmctld,munged}.pid; do
    [ -s "$file" ] && kill -9 "$(cat "$file")" 2>/dev/null || true
  done
  for process in $(pgrep -f '^slurmstepd: '); do  # the steps of jobs outlive their daemon
    grep -qsz "^SLURM_CONF=$SLURM_CONF\$" "/proc/$process/environ" && kill -9 "$process" || true
  done
  [ ! -f "$SLURM_CONF" ] || rm -rf "$home"
}

wait_for() {
  local end=$((SECONDS + 30))
  until bash -c "$1" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}

case ${1:-} in
  start) start "${2:-2}" ;;
  env) echo "export SLURM_CONF=$SLURM_CONF" ;;
  stop) stop ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
